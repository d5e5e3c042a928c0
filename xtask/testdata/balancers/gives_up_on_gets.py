"""A GET whose server goes away without an answer is not tried elsewhere."""
# convicted by: failover/get_retried_elsewhere, failover/killed_under_load

from sound import Balancer, main


class Broken(Balancer):
    def may_repeat(self, method, length):
        return False


if __name__ == "__main__":
    main(Broken)
