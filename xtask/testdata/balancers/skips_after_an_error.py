"""An answer of 500 or above costs the next server its turn."""
# convicted by: rotation/errors_skip_no_place

from sound import Balancer, main


class Broken(Balancer):
    def relay(self, answer, upstream, request, client, keep):
        if answer.status >= 500:
            super().turn(client)
        return super().relay(answer, upstream, request, client, keep)


if __name__ == "__main__":
    main(Broken)
