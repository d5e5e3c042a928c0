"""A body is awaited behind an answer to HEAD and behind a 304."""
# convicted by: clients/bodiless

from sound import Balancer, main


class Broken(Balancer):
    def has_body(self, answer, request):
        return True


if __name__ == "__main__":
    main(Broken)
