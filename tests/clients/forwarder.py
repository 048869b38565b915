"""A TCP forwarder that can cut every connection it carries, as a network does."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager


class Forwarder:
    def __init__(self, port):
        self.target = port
        self.port = None
        self.accepted = 0
        self._open = set()
        self._tasks = set()

    async def _carry(self, reader, writer):
        self.accepted += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._open.add(pair)
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            self._open.discard(pair)
            for end in pair:
                end.transport.abort()

    def cut(self):
        """Resets every connection, on both sides; new ones are carried as before."""
        for pair in list(self._open):
            for end in pair:
                reset(end)
        return len(self._open)


def reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            # Its other side was quicker: it is closed already.
            pass
    writer.transport.abort()


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (OSError, RuntimeError):
        writer.transport.abort()


@asynccontextmanager
async def forwarder(port):
    carrier = Forwarder(port)
    server = await asyncio.start_server(carrier._carry, "127.0.0.1", 0)
    carrier.port = server.sockets[0].getsockname()[1]
    try:
        yield carrier
    finally:
        server.close()
        carrier.cut()
        if carrier._tasks:
            await asyncio.wait(carrier._tasks, timeout=5)
