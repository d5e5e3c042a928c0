"""A small HTTP load balancer that does nothing wrong, for the suite to acquit.

    python3 sound.py --port 8000 127.0.0.1:8080 127.0.0.1:8081 127.0.0.1:8082

A thread for each client connection, one for each server's health checks, and a
fresh connection to a server for each request. The broken balancers beside this
file override one method each.
"""

import argparse
import socket
import threading
import time

PIECE = 64 * 1024
CHUNKED, TO_THE_END = "chunked", "to the end"
REASONS = {400: "Bad Request", 502: "Bad Gateway", 503: "Service Unavailable"}
# About a connection, not about the message (RFC 9110 section 7.6.1).
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}


class BrokenOff(Exception):
    """The other side went away, or took too long, in the middle of a message."""


class Stream:
    """A socket that is read in lines and pieces."""

    def __init__(self, sock, patience=60):
        sock.settimeout(patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.reader, self.send = sock, sock.makefile("rb", PIECE), sock.sendall

    def line(self):
        return self.read(lambda: self.reader.readline(PIECE)).rstrip(b"\r\n")

    def piece(self, most):
        """Some bytes, as soon as there are any."""
        return self.read(lambda: self.reader.read1(min(most, PIECE)))

    def read(self, read):
        try:
            data = read()
        except OSError as error:
            raise BrokenOff from error
        if not data:
            raise BrokenOff
        return data

    def pieces(self, length):
        """The pieces of a body of this length."""
        if length == CHUNKED:
            while size := int(self.line().split(b";")[0], 16):
                yield from self.pieces(size)
                self.line()
            while self.line():
                pass  # A trailer.
        elif length == TO_THE_END:
            while data := self.reader.read1(PIECE):
                yield data
        else:
            while length:
                data = self.piece(length)
                length -= len(data)
                yield data

    def close(self):
        self.reader.close()
        self.sock.close()


class Message:
    """The head of a request or an answer."""

    def __init__(self, stream):
        self.words = stream.line().decode("latin-1").split(" ", 2)
        self.fields = []
        while line := stream.line():
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise ValueError(f"no field: {line!r}")
            self.fields.append((name, value.strip()))

    def get(self, name, default=""):
        return next((value for key, value in self.fields if key.lower() == name), default)

    def length(self, default):
        """How long its body is, by its fields."""
        if self.get("transfer-encoding").lower() == "chunked":
            return CHUNKED
        length = self.get("content-length")
        return int(length) if length else default

    def end_to_end(self):
        """The fields that are about the message."""
        dropped = {word.strip().lower() for word in self.get("connection").split(",")} | HOP_BY_HOP
        return [(name, value) for name, value in self.fields if name.lower() not in dropped]


class Server:
    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.name, self.address = address, (host.strip("[]"), int(port))
        self.healthy = False


class Balancer:
    def __init__(self, options):
        self.options = options
        self.servers = [Server(address) for address in options.servers]
        self.last = -1  # Who was dealt to last.
        self.lock = threading.Lock()

    # Whose turn it is.

    def turn(self, client):
        """The healthy servers, the one whose turn it is first."""
        with self.lock:
            count = len(self.servers)
            for place in ((self.last + step) % count for step in range(1, count + 1)):
                if self.servers[place].healthy:
                    self.last = place
                    return self.healthy_from(place)
        return []

    def healthy_from(self, place):
        return [server for server in self.servers[place:] + self.servers[:place] if server.healthy]

    # Who is healthy.

    def check(self, server):
        try:
            self.found(server, self.passes(self.probe(server)))
        except (BrokenOff, OSError, ValueError, IndexError):
            self.found(server, False)

    def probe(self, server):
        stream = self.connect(server, patience=2)
        try:
            line = f"GET {self.options.health_path} HTTP/1.1"
            stream.send(head(line, [("Host", server.name), ("Connection", "close")]))
            return int(Message(stream).words[1])
        finally:
            stream.close()

    def passes(self, status):
        return status == 200

    def found(self, server, healthy):
        server.healthy = healthy

    def watch(self, server):
        while True:
            time.sleep(self.options.health_period)
            self.check(server)

    # One request.

    def serve(self, client):
        """Answers one request. Returns whether the connection can go on."""
        request = Message(client)
        method, _, version = request.words
        length = request.length(0)
        keep = version == "HTTP/1.1" and request.get("connection").lower() != "close"
        for server in self.turn(client):
            try:
                upstream = self.connect(server)
            except OSError:
                if self.may_fail_over(method):
                    continue
                return self.refuse(client, 502)
            try:
                answer = self.ask(upstream, request, length, client)
                if answer:
                    keep = keep and answer.whole_request
                    return self.relay(answer, upstream, request, client, keep)
            finally:
                upstream.close()
            if not self.may_repeat(method, length):
                return self.refuse(client, 502)
        return self.no_server(client)

    def connect(self, server, patience=60):
        return Stream(socket.create_connection(server.address, timeout=2), patience)

    def may_fail_over(self, method):
        """Whether a request may go elsewhere of which nothing was sent yet."""
        return True

    def may_repeat(self, method, length):
        """Whether a request may go elsewhere that has reached a server."""
        return method in ("GET", "HEAD", "OPTIONS") and length == 0

    def ask(self, upstream, request, length, client):
        """Sends the request. Returns the head of the answer, if one comes."""
        whole = False
        try:
            upstream.send(self.request_head(request, length))
            if request.get("expect"):
                client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            for piece in client.pieces(length):
                upstream.send(framed(piece, length))
            upstream.send(last_chunk(length))
            whole = True
        except OSError:
            pass  # It may have answered before it closed.
        try:
            while (answer := Message(upstream)).words[1].startswith("1"):
                pass
            answer.status = int(answer.words[1])
        except (BrokenOff, ValueError, IndexError):
            return None
        answer.whole_request = whole
        return answer

    def request_head(self, request, length):
        fields = [field for field in request.end_to_end() if field[0].lower() != "expect"]
        if length == CHUNKED:
            fields.append(("Transfer-Encoding", "chunked"))
        fields.append(("Connection", "close"))
        return head(f"{request.words[0]} {request.words[1]} HTTP/1.1", fields)

    def relay(self, answer, upstream, request, client, keep):
        """Passes the answer on, piece by piece. If it breaks off, that shows:
        the client's connection is cut by whoever catches the error."""
        length = answer.length(TO_THE_END)
        fields = self.answer_fields(answer)
        if not self.has_body(answer, request):
            length = 0
        elif length in (CHUNKED, TO_THE_END):
            # An HTTP/1.0 client knows the end by the close.
            length_out = CHUNKED if request.words[2] == "HTTP/1.1" else TO_THE_END
            keep = keep and length_out == CHUNKED
            fields += [("Transfer-Encoding", "chunked")] if length_out == CHUNKED else []
        else:
            length_out = length
        fields.append(("Connection", "keep-alive" if keep else "close"))
        client.send(head(f"HTTP/1.1 {' '.join(answer.words[1:])}", fields))
        if length:
            for piece in self.body(upstream, length):
                client.send(framed(piece, length_out))
            client.send(last_chunk(length_out))
        return keep

    def answer_fields(self, answer):
        return answer.end_to_end()

    def has_body(self, answer, request):
        return request.words[0] != "HEAD" and answer.status not in (204, 304)

    def body(self, upstream, length):
        return upstream.pieces(length)

    def no_server(self, client):
        return self.refuse(client, 503)

    def refuse(self, client, status):
        text = f"{status} {REASONS[status]}"
        fields = [("Content-Length", str(len(text))), ("Connection", "close")]
        client.send(head(f"HTTP/1.1 {text}", fields) + text.encode())
        return False

    # The program.

    def handle(self, client):
        try:
            while self.serve(client):
                pass
        except ValueError:
            self.refuse(client, 400)
        except (BrokenOff, OSError):
            pass  # Whoever it was: what has begun cannot be finished.
        finally:
            client.close()

    def accepted(self, client):
        threading.Thread(target=self.handle, args=[client], daemon=True).start()

    def run(self):
        checks = [threading.Thread(target=self.check, args=[server]) for server in self.servers]
        for check in checks:
            check.start()
        for check in checks:
            check.join()
        for server in self.servers:
            threading.Thread(target=self.watch, args=[server], daemon=True).start()
        listener = socket.create_server(("127.0.0.1", self.options.port), backlog=512)
        while True:
            self.accepted(Stream(listener.accept()[0]))


def head(line, fields):
    lines = [line] + [f"{name}: {value}" for name, value in fields]
    return "\r\n".join(lines + ["", ""]).encode("latin-1")


def framed(piece, length):
    return b"%x\r\n%b\r\n" % (len(piece), piece) if length == CHUNKED else piece


def last_chunk(length):
    return b"0\r\n\r\n" if length == CHUNKED else b""


def main(balancer=Balancer):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--health-path", default="/health")
    parser.add_argument("--health-period", type=float, default=1, help="seconds")
    parser.add_argument("servers", nargs="+", metavar="HOST:PORT")
    balancer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
