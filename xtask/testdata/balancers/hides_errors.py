"""A 500 of a server becomes the balancer's own 502."""
# convicted by: rotation/errors_skip_no_place

from sound import Balancer, main


class Broken(Balancer):
    def relay(self, answer, upstream, request, client, keep):
        if answer.status >= 500:
            return self.refuse(client, 502)
        return super().relay(answer, upstream, request, client, keep)


if __name__ == "__main__":
    main(Broken)
