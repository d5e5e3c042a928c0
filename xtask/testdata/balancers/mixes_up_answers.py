"""All clients' longer answers go through one buffer: one may get a piece of another's."""
# convicted by: clients/own_answers

import time

from sound import Balancer, main


class Broken(Balancer):
    buffer = b""

    def body(self, upstream, length):
        for piece in super().body(upstream, length):
            if len(piece) < 4096:
                yield piece
                continue
            self.buffer = piece
            time.sleep(0.001)
            yield self.buffer


if __name__ == "__main__":
    main(Broken)
