"""An answer breaks off behind its first MiB."""
# convicted by: bodies/sizes

from sound import Balancer, BrokenOff, main


class Broken(Balancer):
    def body(self, upstream, length):
        left = 1 << 20
        for piece in super().body(upstream, length):
            if len(piece) > left:
                raise BrokenOff
            left -= len(piece)
            yield piece


if __name__ == "__main__":
    main(Broken)
