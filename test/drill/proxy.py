"""A TCP proxy of our own that misbehaves on demand: adds a delay to what comes back, or resets
whoever connects, and counts them."""
import asyncio
import contextlib
import socket
import struct
import threading
import time


class Background:
    """An asyncio server in a thread, on a port of its own."""

    def __init__(self):
        self.loop, self.ready, self.port, self.accepted = (
            asyncio.new_event_loop(), threading.Event(), 0, [],
        )
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        self.ready.wait(10)

    def run(self):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self.client, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))

    async def client(self, reader, writer):
        self.accepted.append(time.monotonic())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.serve(reader, writer)
        writer.close()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


def reset(writer):
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )


class Proxy(Background):
    def __init__(self, port):
        self.target, self.delay, self.resets, self.writers = port, 0.0, False, set()
        super().__init__()

    async def serve(self, reader, writer):
        if self.resets:
            reset(writer)
            return
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers.add(writer)
        await asyncio.wait(
            [
                asyncio.create_task(self.pump(reader, back_writer, False)),
                asyncio.create_task(self.pump(back_reader, writer, True)),
            ],
            return_when=asyncio.FIRST_COMPLETED,
        )
        self.writers.discard(writer)
        back_writer.close()

    async def pump(self, reader, writer, back):
        line = asyncio.Queue()  # each piece as much later, none before another
        sender = asyncio.create_task(self.send(line, writer))
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                line.put_nowait((self.loop.time() + (self.delay if back else 0), piece))
        sender.cancel()

    async def send(self, line, writer):
        while True:
            when, piece = await line.get()
            await asyncio.sleep(max(0, when - self.loop.time()))
            writer.write(piece)

    def away(self):
        """From now on everybody is reset, those connected too."""
        def do():
            self.resets = True
            for w in self.writers:
                reset(w)
                w.close()
        self.loop.call_soon_threadsafe(do)

    def back(self):
        self.resets = False


class NonsenseRedis(Background):
    """Greets as Redis does, and answers every command after that with the bytes given."""

    def __init__(self):
        self.says, self.refuses_hello = b"", None
        super().__init__()

    async def serve(self, reader, writer):
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                n = int((await reader.readline())[1:])
                words.append((await reader.readexactly(n + 2))[:-2])
            if self.refuses_hello:
                writer.write(self.refuses_hello)
            elif words[0] == b"PING":
                writer.write(b"+PONG\r\n")
            elif words[:2] == [b"CLIENT", b"SETNAME"]:
                writer.write(b"+OK\r\n")
            elif self.says == b"endless":
                writer.write(b"$500000000\r\n")
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            else:
                writer.write(self.says)
