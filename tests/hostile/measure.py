#!/usr/bin/env python3
"""Slow peers, a flood and guesses against a release binary, each beside a good client.

    cargo build --release --locked
    tests/hostile/measure.py target/release/mcp-edge

Loopback only, two minutes at most; it ends what it starts. It prints one table of figures beside
what must hold; it does not pass or fail: a busy machine is no reason to.
"""

import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TOKEN = "measured-with-this-token-of-more-than-32-bytes"
GOOD, FLOOD, GUESSER = "127.0.0.9", "127.0.0.10", "127.0.0.11"
RATE, BURST = 10, 20
SECONDS = 5
BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()

# What is measured is the edge, not its certificate.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


class Edge:
    """The binary, for as long as the block lasts."""

    def __init__(self, binary, *options):
        self.binary, self.options = binary, options

    def __enter__(self):
        self.certs = tempfile.TemporaryDirectory()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [self.binary, "--host", "127.0.0.1", "--port", str(self.port), "--self-signed",
                   "--certs-dir", self.certs.name, "--name", "localhost", *self.options]
        environment = {"PATH": os.environ["PATH"], "MCP_AUTH_TOKEN": TOKEN}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "serving" in line:
                break
        else:
            raise SystemExit("the edge did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.certs.cleanup()

    def cpu(self):
        """CPU seconds so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connect(self, source):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=TLS,
                                           source_address=(source, 0))


def post(connection, token=TOKEN):
    headers = {"Host": "localhost", "Authorization": f"Bearer {token}",
               "Content-Type": "application/json", "Accept": "application/json"}
    connection.request("POST", "/mcp", BODY, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


class GoodClient(threading.Thread):
    """Calls 5 times a second, below the rate, and notes how long each call takes."""

    def __init__(self, edge):
        super().__init__(daemon=True)
        self.edge, self.done, self.times, self.failed = edge, threading.Event(), [], 0

    def run(self):
        connection = self.edge.connect(GOOD)
        while not self.done.wait(0.2):
            begun = time.monotonic()
            try:
                good = post(connection) == 200
            except (OSError, http.client.HTTPException):
                good = False
                connection.close()
            if good:
                self.times.append((time.monotonic() - begun) * 1000)
            else:
                self.failed += 1

    def verdict(self):
        self.done.set()
        self.join(30)
        if len(self.times) < 2:
            return "no answers"
        cut = statistics.quantiles(self.times, n=100, method="inclusive")
        number = len(self.times) + self.failed
        return f"{len(self.times)}/{number} answered, p50 {cut[49]:.1f} ms, p99 {cut[98]:.1f} ms"


def flood(edge, source, tokens, statuses, seconds=SECONDS):
    """Requests as fast as one connection lets them; a refused connection is opened anew."""
    end, connection = time.monotonic() + seconds, edge.connect(source)
    for token in tokens:
        if time.monotonic() > end:
            break
        try:
            status = post(connection, token)
        except (OSError, http.client.HTTPException):
            status = 0
            connection.close()
        statuses[status] = statuses.get(status, 0) + 1


def always(token):
    while True:
        yield token


def guesses():
    number = 0
    while True:
        number += 1
        yield f"guess-{number:032}"


def slow_peers(binary):
    with Edge(binary, "--connections-per-ip", "60") as edge:
        good = GoodClient(edge)
        good.start()
        head = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\nx: "
        held = []
        for number in range(800):
            connection = edge.connect(f"127.0.0.{20 + number // 50}")
            try:
                if number % 2:
                    connection.connect()
                    connection.sock.sendall(head)
                    held.append(connection.sock)
                else:
                    held.append(socket.create_connection(
                        ("127.0.0.1", edge.port), 20, (f"127.0.0.{20 + number // 50}", 0)))
            except OSError:
                pass
        time.sleep(SECONDS)
        yield f"{len(held)} slow connections", good.verdict(), "100 %, p99 under 100 ms"
        for connection in held:
            connection.close()


def floods(binary):
    limits = ("--requests-per-second", str(RATE), "--burst", str(BURST), "--rate-wait", "0s")
    with Edge(binary, *limits) as edge:
        good, statuses, before, begun = GoodClient(edge), {}, edge.cpu(), time.monotonic()
        good.start()
        flood(edge, FLOOD, always(TOKEN), statuses)
        took = time.monotonic() - begun
        refused, spent = statuses.get(429, 0), edge.cpu() - before
        most = (BURST + RATE * took) * 1.05
        yield "beside a flood", good.verdict(), "100 %, p99 under 150 ms"
        yield "accepted of the flood", str(statuses.get(200, 0)), f"at most {most:.0f}"
        yield ("CPU of a refusal", f"{spent / max(refused, 1) * 1e6:.0f} µs over {refused}, with the "
               "good client's", "half of nginx's")
        statuses, begun = {}, time.monotonic()
        flood(edge, GUESSER, guesses(), statuses)
        most = (BURST + RATE * (time.monotonic() - begun)) * 1.05
        yield (f"guesses compared of {sum(statuses.values())}", str(statuses.get(401, 0)),
               f"at most {most:.0f}")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print("| row | figure | must hold |\n|---|---|---|")
    for part in (slow_peers, floods):
        for row in part(sys.argv[1]):
            print("| " + " | ".join(row) + " |", flush=True)


main()
