"""Only the fields that the balancer knows of reach the server."""
# convicted by: fields/request_passes

from sound import Balancer, main

KNOWN = {"host", "content-length", "content-type", "accept", "user-agent", "x-nonce"}


class Broken(Balancer):
    def request_head(self, request, length):
        request.fields = [field for field in request.fields if field[0].lower() in KNOWN]
        return super().request_head(request, length)


if __name__ == "__main__":
    main(Broken)
