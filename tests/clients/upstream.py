"""Starts the fixture upstreams, kills them, and starts them again on the same port."""

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
import uuid

from edge import HERE, WORK, kill, processes

PYTHON = str(WORK / "py1/bin/python")
START_TIMEOUT = 20
# kind: (program, its options, path of MCP, what --upstream-kind calls it)
KINDS = {
    "sse": ("fast_sse.py", [], "/sse", "sse"),
    "unified": ("fast_sse.py", ["--sse-path=/mcp/unified"], "/mcp/unified", "sse"),
    "http": ("fast_http.py", [], "/mcp", "streamable"),
    "json": ("fast_http.py", ["--json"], "/mcp", "streamable"),
    "stateless": ("fast_http.py", ["--stateless"], "/mcp", "streamable"),
    "ts": ("ts_http.mjs", [], "/mcp", "streamable"),
    "ts400": ("ts_http.mjs", ["--unknown-session=400"], "/mcp", "streamable"),
    "plain": ("plain.py", [], "/mcp/", "streamable"),
}


def free_port():
    """A port below those that the system gives to outgoing connections.

    Nobody gets it by chance while the upstream is down between two lives.
    """
    while True:
        port = random.randint(20000, 30000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            continue


class Upstream:
    """One fixture, which lives again and again on the port that it got at first."""

    def __init__(self, kind, *more, directory, name="upstream", token=None, start=True):
        self.kind = kind
        program, options, self.path, self.speaks = KINDS[kind]
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.url = self.base + self.path
        self.counts = directory / f"{name}.counts"
        self.counts.write_text("")
        self.log = directory / f"{name}.log"
        self.mark = uuid.uuid4().hex
        self.argv = ["node"] if program.endswith(".mjs") else [PYTHON]
        self.argv += [str(HERE / "upstreams" / program), f"--port={self.port}", *options, *more]
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MCP_")}
        self.environment |= {"UPSTREAM_COUNTS": str(self.counts), "SUITE_MARK": self.mark}
        if token:
            self.environment["UPSTREAM_TOKEN"] = token
        self.process = self.killed_at = None
        if start:
            self.start()

    def start(self):
        """Returns when it accepts connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.kill()
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
        raise RuntimeError(f"the upstream does not listen:\n{tail}")

    def kill(self):
        """SIGKILL: nothing is said to anybody, as when a machine dies."""
        self.killed_at = time.monotonic()
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for pid in processes(self.mark, None):
            kill(pid)

    def watch(self, timeout=5):
        """{"streams": open event streams, "requests": {method: count}}, as the fixture sees it."""
        with urllib.request.urlopen(f"{self.base}/_watch", timeout=timeout) as answer:
            return json.load(answer)

    def wait_streams(self, at_most, timeout):
        """The open streams once there are `at_most` of them or the time is up."""
        deadline = time.monotonic() + timeout
        while (left := self.watch()["streams"]) > at_most and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def ran(self):
        """Every run of a counting tool, as (tool, key), in order."""
        return [tuple(line.split(" ", 1)) for line in self.counts.read_text().splitlines()]
