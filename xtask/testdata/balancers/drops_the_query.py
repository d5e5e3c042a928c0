"""What follows the question mark does not reach the server."""
# convicted by: bodies/sizes, fields/target_passes

from sound import Balancer, main


class Broken(Balancer):
    def request_head(self, request, length):
        request.words[1] = request.words[1].partition("?")[0]
        return super().request_head(request, length)


if __name__ == "__main__":
    main(Broken)
