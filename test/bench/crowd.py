"""Many connections at once, which wrk cannot do in every shape: a crowd of plain sockets on one
epoll, each with one request at a time."""
import os
import select
import socket
import time

from stack import OTHER_CORES


class Client:
    def __init__(self, sock):
        self.sock, self.received, self.asked_at, self.status, self.seconds, self.closed = (
            sock, b"", None, None, None, False,
        )


class Crowd:
    """Clients from several addresses of loopback, since one has too few ports for all there may
    be."""

    def __init__(self, port, n, seconds=30):
        os.sched_setaffinity(0, OTHER_CORES)
        self.epoll, self.clients = select.epoll(), {}
        end = time.monotonic() + seconds
        for i in range(n):
            s = socket.socket()
            s.setblocking(False)
            s.bind((f"127.0.0.{2 + i % 8}", 0))
            s.connect_ex(("127.0.0.1", port))
            self.clients[s.fileno()] = Client(s)
            self.epoll.register(s, select.EPOLLOUT)
        waiting = set(self.clients)
        while waiting and time.monotonic() < end:
            for fd, _ in self.epoll.poll(0.1):
                waiting.discard(fd)
                self.epoll.modify(fd, select.EPOLLIN)
        if waiting:
            raise SystemExit(
                f"bench: {len(waiting)} of {n} connections were not made in {seconds} s"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for c in self.clients.values():
            c.sock.close()
        self.epoll.close()

    def ask_in_turn(self, request, seconds):
        """So many at a time that nobody has to queue for long."""
        every = list(self.clients.values())
        for i in range(0, len(every), 500):
            some = every[i:i + 500]
            self.ask(request, some)
            self.read(seconds, lambda: all(c.status or c.closed for c in some))

    def ask(self, request, clients=None):
        """Sends to all: bytes, or a function of the client's number."""
        for i, c in enumerate(clients or self.clients.values()):
            c.received, c.status, c.asked_at = b"", None, time.monotonic()
            try:
                c.sock.send(request(i) if callable(request) else request)
            except OSError:
                self._gone(c)

    def _gone(self, c):
        self.epoll.modify(c.sock, 0)
        c.closed, c.seconds = True, time.monotonic() - c.asked_at if c.asked_at else None

    def read(self, seconds, until=None):
        """Takes what comes until all are answered (or until() says so), or the time is up."""
        end = time.monotonic() + seconds
        until = until or (lambda: all(c.status or c.closed for c in self.clients.values()))
        while not until() and time.monotonic() < end:
            for fd, _ in self.epoll.poll(0.05, 4096):
                self._take(self.clients[fd])

    def _take(self, c):
        try:
            data = c.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._gone(c)
            return
        c.received += data
        head, end, body = c.received.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        if end and len(body) >= length and c.status is None:
            c.status, c.seconds = int(head.split()[1]), time.monotonic() - c.asked_at

    def said(self, status, text=b""):
        """The seconds that answers of this kind took, in order."""
        return sorted(
            c.seconds for c in self.clients.values() if c.status == status and text in c.received
        )
