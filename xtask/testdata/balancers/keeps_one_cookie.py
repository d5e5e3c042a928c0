"""An answer's fields are kept in a dict: of two Set-Cookie one is left."""
# convicted by: fields/answer_passes

from sound import Balancer, main


class Broken(Balancer):
    def answer_fields(self, answer):
        return list(dict(super().answer_fields(answer)).items())


if __name__ == "__main__":
    main(Broken)
