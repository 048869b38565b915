"""Chromium against the edge: pages of an allowed origin, of a foreign one, and of none.

Usage: browser.py EDGE_BINARY --directory DIRECTORY [--check PART]. It starts the edges, has a
fresh profile of Chromium trust their CA, and browser/drive.mjs does the rest.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from edge import EVERYTHING, HERE, RAISED, Edge, kill, processes, upstream
from upstream import Upstream, free_port
from walk import report

LIMIT = 240
NO_TOKEN = ["env", "-u", "MCP_AUTH_TOKEN"]
NOTHING_STARTED = "what a foreign page sends starts no process"
STOPPED = "SIGTERM: exit 0, nothing left"
NOBODY_LEFT = "no process of Chromium is left"


def trusting(home, ca):
    """A home directory in which Chromium trusts the CA, as a user's import would have it."""
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{database}"]
    subprocess.run([*certutil, "-N", "--empty-password"], check=True, timeout=30)
    add = [*certutil, "-A", "-n", "edge", "-t", "C,,", "-i", str(ca)]
    subprocess.run(add, check=True, timeout=30)
    return str(home)


class Edges:
    """The edges of the cell by name. One that does not start fails the checks that need it."""

    def __init__(self, binary, directory, origin):
        self.binary, self.directory, self.origin = binary, directory, origin
        self.running, self.told = {}, {}

    def start(self, name, command, *options, through=()):
        try:
            edge = Edge(
                self.binary, command, *options, directory=self.directory, name=name,
                certs=self.directory / "certs", through=through,
            )
        except Exception as error:
            self.told[name] = {"error": str(error)}
            return
        self.running[name] = edge
        base = f"https://localhost:{edge.port}"
        token = None if through else edge.token
        self.told[name] = {"base": base, "url": f"{base}/mcp", "token": token}

    def start_all(self, up):
        here, none = f"--allow-origin={self.origin}", ("--allow-anonymous",)
        self.start("listed", EVERYTHING, *RAISED, here)
        self.start("limited", None, here)
        self.start("open", EVERYTHING, *RAISED, here, *none, through=NO_TOKEN)
        # What starts here is counted: see NOTHING_STARTED.
        self.start("guarded", EVERYTHING, *RAISED, *none, through=NO_TOKEN)
        self.start("forwarding", None, *RAISED, here, *upstream(up.url), "--forward-header=X-User-Role")
        self.start("null", None, *RAISED, "--allow-origin=null")
        return next(iter(self.running.values())).ca

    def started(self, name):
        """Processes that the edge has started so far."""
        edge = self.running.get(name)
        if edge is None:
            return None
        return sum(record.get("message") == "child started" for record in edge.records())


def finish(edges, ending):
    started = time.monotonic()
    if NOTHING_STARTED in ending:
        # The other edge shows that the log has the words at all.
        found = edges.started("guarded"), bool(edges.started("listed"))
        problem = "" if found == (0, True) else f"(started, known to the log): {found}"
        report(NOTHING_STARTED, not problem, 0, problem)
    wrong = [f"{name}: {found}" for name, edge in edges.running.items() if (found := edge.stop())]
    report(STOPPED, not wrong, time.monotonic() - started, "\n".join(wrong))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--check", default="")
    options = parser.parse_args()
    directory = options.directory.resolve()
    chromium = shutil.which("chromium")
    if not chromium or not shutil.which("certutil"):
        sys.exit("chromium and certutil are needed (Debian: chromium, libnss3-tools)")
    port, mark = free_port(), uuid.uuid4().hex
    # Only who runs everything has run what might have started something.
    ending = [NOBODY_LEFT, *([] if options.check else [NOTHING_STARTED]), STOPPED]
    edges = Edges(options.binary.resolve(), directory, f"http://app.test:{port}")
    up = driver = None
    try:
        up = Upstream("ts", directory=directory)
        ca = edges.start_all(up)
        strange = directory / "home-without-ca"
        strange.mkdir()
        cell = {
            "chromium": chromium, "port": port, "directory": str(directory), "only": options.check,
            "home": trusting(directory / "home", ca), "strange": str(strange), "edges": edges.told,
            "more": ending,
        }
        environment = {**os.environ, "CELL": json.dumps(cell), "SUITE_MARK": mark}
        driver = subprocess.Popen(["node", "browser/drive.mjs"], cwd=HERE, env=environment)
        try:
            code = driver.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = f"none within {LIMIT} s"
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        deadline = time.monotonic() + 5
        while (left := processes(mark, None)) and time.monotonic() < deadline:
            time.sleep(0.1)
        report(NOBODY_LEFT, not left, 0, str(left or ""))
        finish(edges, ending)
        if code != 0:
            sys.exit(f"browser/drive.mjs: exit {code}")
    finally:
        for pid in processes(mark, None):
            kill(pid)
        for edge in edges.running.values():
            edge.kill()
        if up:
            up.kill()


if __name__ == "__main__":
    main()
