"""Servers are drawn instead of taking turns."""
# convicted by: rotation/connection_each, rotation/errors_skip_no_place, rotation/leave_and_return, rotation/parallel_balance, rotation/parallel_strict, rotation/sequential

import random

from sound import Balancer, main


class Broken(Balancer):
    def turn(self, client):
        servers = self.healthy_from(0)
        return random.sample(servers, len(servers))


if __name__ == "__main__":
    main(Broken)
