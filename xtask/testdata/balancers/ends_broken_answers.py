"""An answer that breaks off is read to where it broke, and sent on as if it were whole."""
# convicted by: failover/truncation_shows

from sound import TO_THE_END, Balancer, BrokenOff, main


class Broken(Balancer):
    def relay(self, answer, upstream, request, client, keep):
        whole = []
        if self.has_body(answer, request):
            try:
                whole.extend(upstream.pieces(answer.length(TO_THE_END)))
            except (BrokenOff, OSError):
                pass
            answer.fields = [field for field in answer.end_to_end() if field[0] != "Content-Length"]
            answer.fields.append(("Content-Length", str(sum(map(len, whole)))))
        upstream.pieces = lambda length: iter(whole)
        return super().relay(answer, upstream, request, client, keep)


if __name__ == "__main__":
    main(Broken)
