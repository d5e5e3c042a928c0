"""The counter is read and written without a lock: parallel requests get the same turn."""
# convicted by: rotation/parallel_balance, rotation/parallel_strict

import time

from sound import Balancer, main


class Broken(Balancer):
    def turn(self, client):
        turn = self.last + 1
        time.sleep(0.002)
        self.last = turn
        servers = self.healthy_from(0)
        place = turn % max(len(servers), 1)
        return servers[place:] + servers[:place]


if __name__ == "__main__":
    main(Broken)
