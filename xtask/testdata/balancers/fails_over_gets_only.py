"""A POST is not tried elsewhere, though the server refused the connection."""
# convicted by: failover/refused

from sound import Balancer, main


class Broken(Balancer):
    def may_fail_over(self, method):
        return method == "GET"


if __name__ == "__main__":
    main(Broken)
