"""A server that was out once stays out."""
# convicted by: active_health/all_dead, active_health/out_and_back, rotation/leave_and_return

from sound import Balancer, main


class Broken(Balancer):
    def found(self, server, healthy):
        super().found(server, healthy and not hasattr(server, "fell"))
        if not healthy:
            server.fell = True


if __name__ == "__main__":
    main(Broken)
