"""Whatever a health check is answered, the server counts as healthy."""
# convicted by: active_health/out_and_back

from sound import Balancer, main


class Broken(Balancer):
    def passes(self, status):
        return True


if __name__ == "__main__":
    main(Broken)
