"""A server that is back stands at the end of the list, not in its old place."""
# convicted by: rotation/leave_and_return

from sound import Balancer, main


class Broken(Balancer):
    def found(self, server, healthy):
        returns = healthy and not server.healthy and hasattr(server, "seen")
        if healthy:
            server.seen = True
        if returns:
            with self.lock:
                self.servers = [other for other in self.servers if other is not server] + [server]
        super().found(server, healthy)


if __name__ == "__main__":
    main(Broken)
