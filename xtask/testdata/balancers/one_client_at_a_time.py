"""A client is served until it leaves; the others wait."""
# convicted by: clients/idle_blocks_nobody

from sound import Balancer, main


class Broken(Balancer):
    def accepted(self, client):
        self.handle(client)


if __name__ == "__main__":
    main(Broken)
