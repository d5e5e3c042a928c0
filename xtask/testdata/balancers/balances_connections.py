"""A connection is balanced, not a request: a kept one stays with its server."""
# convicted by: rotation/errors_skip_no_place, rotation/parallel_balance, rotation/parallel_strict, rotation/sequential

from sound import Balancer, main


class Broken(Balancer):
    def turn(self, client):
        if not hasattr(client, "servers"):
            client.servers = super().turn(client)
        return client.servers


if __name__ == "__main__":
    main(Broken)
