"""Each connection has a rotation of its own, which begins with the first server."""
# convicted by: rotation/connection_each, rotation/parallel_balance, rotation/parallel_strict, rotation/leave_and_return

from sound import Balancer, main


class Broken(Balancer):
    def turn(self, client):
        servers = self.healthy_from(0)
        client.turn = getattr(client, "turn", -1) + 1
        place = client.turn % max(len(servers), 1)
        return servers[place:] + servers[:place]


if __name__ == "__main__":
    main(Broken)
