"""A POST that a server has got is sent to another one."""
# convicted by: failover/post_at_most_once

from sound import Balancer, main


class Kept:
    """A client whose request is read once and sent as often as it takes."""

    def __init__(self, client, body):
        self.send, self.pieces = client.send, lambda length: iter(body)


class Broken(Balancer):
    def may_repeat(self, method, length):
        return True

    def ask(self, upstream, request, length, client):
        if not hasattr(request, "body"):
            request.body = list(client.pieces(length))
        return super().ask(upstream, request, length, Kept(client, request.body))


if __name__ == "__main__":
    main(Broken)
