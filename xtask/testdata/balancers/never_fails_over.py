"""A server that refuses the connection costs the client an error."""
# convicted by: failover/killed_under_load, failover/refused

from sound import Balancer, main


class Broken(Balancer):
    def may_fail_over(self, method):
        return False


if __name__ == "__main__":
    main(Broken)
