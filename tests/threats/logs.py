"""Row "full log disk": a log that takes nothing, or that nobody reads, holds up nothing."""

import os
import socket
import subprocess
import time

from edge import RAISED
from wire import Connection, encode, headers, request

CALLS = 5000


async def calls_with(binary, log):
    """How many calls are answered while the log goes to this descriptor; the exit code then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [str(binary), "--insecure-http", f"--port={port}", "--log-level=DEBUG", *RAISED]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MCP_")}
    process = subprocess.Popen(
        argv, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
    )
    answered = 0
    try:
        connection = await opened(port)
        for number in range(CALLS):
            # Two lines of log each: an unknown session is refused, and told of at DEBUG.
            body = encode(request(number, "tools/list"))
            connection.send("POST", "/mcp", headers(session="nobody's"), body)
            response = await connection.response(5)
            await response.body()
            answered += response.status == 404
    except (TimeoutError, ConnectionError):
        pass
    finally:
        process.terminate()
        try:
            code = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    return answered, code


async def opened(port):
    deadline = time.monotonic() + 10
    while True:
        try:
            return await Connection.open(port, None)
        except OSError:
            if time.monotonic() > deadline:
                raise


async def full_log_disk(_start, binary):
    with open("/dev/full", "wb") as full:
        answered, code = await calls_with(binary, full)
    reads, writes = os.pipe()
    try:
        unread, unread_code = await calls_with(binary, writes)
    finally:
        os.close(reads)
        os.close(writes)
    return [
        ("full log disk: calls answered, exit code", f"{answered} of {CALLS}, {code}", "all, 0",
         (answered, code) == (CALLS, 0)),
        ("log that nobody reads: calls answered, exit code", f"{unread} of {CALLS}, {unread_code}", "all, 0",
         (unread, unread_code) == (CALLS, 0)),
    ]


ROWS = [full_log_disk]
