"""Runs the matrix: every client over every transport, each cell against an edge of its own.

Usage: suite.py EDGE_BINARY [--only CELL_PART] [--check CHECK_PART] [--jobs N] [--direct]
"""

import argparse
import concurrent.futures
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from edge import EVERYTHING, HERE, RAISED, WORK, Edge, kill, pass_env, processes, upstream
from upstream import KINDS, Upstream

CELL_TIMEOUT = 300
CHILD_GONE = 10

PY1, PY2 = str(WORK / "py1/bin/python"), str(WORK / "py2/bin/python")
SDK = {
    "py1": ([PY1, "steps.py"], "sdk1"),
    "py2": ([PY2, "steps.py"], "sdk2"),
    "ts1": (["node", "steps.mjs"], "sdk1"),
    "ts2": (["node", "steps.mjs"], "sdk2"),
}
# name: (SDK, transport, path, what else the cell is told)
MATRIX = {
    "py1-http": ("py1", "http", "/mcp", {}),
    "py1-http-h2": ("py1", "http", "/mcp", {"h2": True}),
    "py1-sse": ("py1", "sse", "/sse", {}),
    "py1-sse-mcp": ("py1", "sse", "/mcp", {}),
    "py1-stdio": ("py1", "stdio", None, {}),
    "py2-http": ("py2", "http", "/mcp", {}),
    "py2-http-legacy": ("py2", "http", "/mcp", {"mode": "legacy"}),
    "py2-sse": ("py2", "sse", "/sse", {}),
    "py2-sse-mcp": ("py2", "sse", "/mcp", {}),
    "ts1-http": ("ts1", "http", "/mcp", {}),
    "ts1-sse": ("ts1", "sse", "/sse", {}),
    "ts1-sse-mcp": ("ts1", "sse", "/mcp", {}),
    "ts1-stdio": ("ts1", "stdio", None, {}),
    "ts2-http": ("ts2", "http", "/mcp", {}),
    "ts2-http-auto": ("ts2", "http", "/mcp", {"mode": "auto"}),
    "ts2-sse": ("ts2", "sse", "/sse", {}),
    "ts2-sse-mcp": ("ts2", "sse", "/mcp", {}),
}
# Cells with an upstream over HTTP. name: (kind in upstream.py, SDK or curl, transport, path, more):
# `told` gives the edge --upstream-kind, with `token` the upstream wants a token of its own.
UP = {
    "up-sse-py1-http": ("sse", "py1", "http", "/mcp", {}),
    "up-sse-py1-sse": ("sse", "py1", "sse", "/sse", {}),
    "up-sse-ts1-http": ("sse", "ts1", "http", "/mcp", {}),
    "up-sse-curl": ("sse", "curl", "curl", "/mcp", {}),
    "up-unified-py1-sse": ("unified", "py1", "sse", "/mcp/unified", {"told": True}),
    "up-http-py1-http": ("http", "py1", "http", "/mcp", {}),
    "up-http-py1-sse": ("http", "py1", "sse", "/mcp", {}),
    "up-http-ts1-http": ("http", "ts1", "http", "/mcp", {}),
    "up-http-curl": ("http", "curl", "curl", "/mcp", {}),
    "up-json-py1-http": ("json", "py1", "http", "/mcp", {"told": True, "token": True}),
    "up-stateless-py1-sse": ("stateless", "py1", "sse", "/sse", {}),
    "up-ts-ts1-http": ("ts", "ts1", "http", "/mcp", {"token": True}),
    "up-ts-py1-sse": ("ts", "py1", "sse", "/sse", {}),
    "up-ts-curl": ("ts", "curl", "curl", "/mcp", {}),
}
UP_STEPS = {
    "py1": ([PY1, "up_steps.py"], "sdk1"),
    "ts1": (["node", "up_steps.mjs"], "sdk1"),
    "curl": ([PY1, "up_raw.py"], None),
}
# Cells that look at time or at everything at once run alone, after the matrix.
ALONE = [
    "fetch", "browser", "programs", "readme", "raw", "deployments", "faults", "restart", "chaos",
    "vanish",
]
SCRIPTS = ["browser", "programs", "readme", "deployments", "faults", "restart"]
STREAMS_GONE = 10


class Results:
    """What the checks of one cell came to, printed in one piece when the cell is done."""

    def __init__(self, cell):
        self.cell, self.lines, self.passed, self.failed, self.skipped = cell, [], 0, 0, 0
        self.started = time.monotonic()

    def add(self, check, problem, seconds=None):
        took = "" if seconds is None else f" ({seconds:.2f} s)"
        if problem:
            self.failed += 1
            self.lines.append(f"FAIL {self.cell}: {check}{took}")
            self.lines += [f"     {line}" for line in str(problem).splitlines()]
        else:
            self.passed += 1
            self.lines.append(f"ok   {self.cell}: {check}{took}")

    def skip(self, check, reason):
        self.skipped += 1
        self.lines.append(f"SKIPPED {self.cell}: {check}: {reason}")

    def print(self):
        took = time.monotonic() - self.started
        counts = count(self.passed, self.failed, self.skipped)
        summary = f"---- {self.cell}: {counts}, {took:.0f} s"
        print("\n".join([*self.lines, summary]), flush=True)


def count(passed, failed, skipped):
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def versions():
    """The programs of this machine that are clients here, or run them."""
    found = []
    for program in ["curl", "node", "chromium"]:
        try:
            told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20)
            words = [word for word in told.stdout.split() if word[:1].isdigit() or word[:2] == "v2"]
            found.append(f"{program} {words[0].removeprefix('v') if words else 'of no version'}")
        except (OSError, subprocess.TimeoutExpired):
            found.append(f"no {program}")
    return ", ".join([*found, f"python {sys.version.split()[0]}"])


def run_client(argv, environment, directory, results):
    """Runs one client program to its end and takes in the checks that it prints."""
    planned, seen = [], set()
    with (directory / "client.err").open("wb") as err:
        process = subprocess.Popen(
            argv, env=environment, cwd=HERE, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True,
        )
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline, problem = time.monotonic() + CELL_TIMEOUT, None
    while True:
        try:
            line = lines.get(timeout=max(0.1, deadline - time.monotonic()))
        except queue.Empty:
            problem = f"not done within {CELL_TIMEOUT} s"
            break
        if line is None:
            break
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if "plan" in found:
            planned = found["plan"]
        elif found.get("skipped"):
            seen.add(found["check"])
            results.skip(found["check"], found["skipped"])
        else:
            seen.add(found["check"])
            problem_here = None if found["ok"] else found["detail"] or "no reason given"
            results.add(found["check"], problem_here, found["seconds"])
            if found["ok"] and found["detail"]:
                results.lines += [f"     {line}" for line in found["detail"].splitlines()]
    try:
        code = process.wait(5 if problem else 30)
    except subprocess.TimeoutExpired:
        code = None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    if code != 0:
        tail = (directory / "client.err").read_text(errors="replace").splitlines()[-12:]
        problem = "\n".join([problem or f"exit code {code}", *tail])
    for check in planned:
        if check not in seen:
            results.add(check, "never ran")
    if problem or not planned:
        results.add("the client program ends by itself", problem or "it printed no plan")


class ChildWatch(threading.Thread):
    """Notes the greatest number of children that the edge had at one time."""

    def __init__(self, edge):
        super().__init__(daemon=True)
        self.edge, self.most, self.done = edge, 0, threading.Event()

    def run(self):
        while not self.done.wait(0.5):
            self.most = max(self.most, len(self.edge.children()))


def run_matrix_cell(name, binary, directory, only, direct):
    sdk, kind, path, more = MATRIX[name]
    argv, module = SDK[sdk]
    results = Results(name)
    mark = uuid.uuid4().hex
    cell = {
        "sdk": module, "kind": kind, "only": only, "edge": not direct, "token": None, "url": None,
        "reference": EVERYTHING, "mark": {"SUITE_MARK": mark}, **more,
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MCP_")}
    environment["SUITE_MARK"] = mark
    edge = server = None
    try:
        if direct:
            server, cell["url"] = start_reference(kind)
        elif kind == "stdio":
            cell["secret"] = uuid.uuid4().hex
            cell["server"] = [str(binary), *pass_env("SUITE_MARK", mark), "--", *EVERYTHING]
            cell["env"] = {
                "MCP_TRANSPORT": "stdio", "MCP_AUTH_TOKEN": cell["secret"], "SUITE_UNLISTED": "1",
            }
        else:
            edge = Edge(binary, EVERYTHING, *RAISED, directory=directory)
            cell["url"], cell["token"], cell["secret"] = edge.base + path, edge.token, edge.token
            # As the start-up lines of the edge tell its users to.
            environment["SSL_CERT_FILE"] = environment["NODE_EXTRA_CA_CERTS"] = str(edge.ca)
            before = len(edge.children())
            watch = ChildWatch(edge)
            watch.start()
        environment["CELL"] = json.dumps(cell)
        run_client(argv, environment, directory, results)
        if edge:
            watch.done.set()
            left = edge.wait_children(before, CHILD_GONE)
            problem = None if watch.most else "there never was a child"
            # A check that failed may have left its session open, which is then no fault of its own.
            if len(left) > before and not results.failed:
                problem = f"still there {CHILD_GONE} s after the client closed: {left}"
            results.add("a child per session, gone when the client has closed", problem)
            results.add("SIGTERM: exit 0, nothing left", edge.stop())
    except Exception as error:
        results.add("the cell runs", f"{type(error).__name__}: {error}")
    finally:
        if edge:
            edge.kill()
        if server:
            server.kill()
            server.wait()
        deadline = time.monotonic() + 5
        while (left := processes(mark, None)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            kill(pid)
        if left:
            results.add("no process of the cell is left", left)
        results.print()
    return results


def run_up_cell(name, binary, directory, only, direct):
    kind, sdk, transport, path, more = UP[name]
    argv, module = UP_STEPS[sdk]
    results = Results(name)
    token = uuid.uuid4().hex if more.get("token") else None
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MCP_")}
    edge = up = None
    try:
        up = Upstream(kind, directory=directory, token=token)
        cell = {
            "sdk": module, "kind": transport, "path": path, "only": only, "edge": not direct,
            "url": up.url, "token": token,
            "upstream": {
                "kind": kind, "speaks": up.speaks, "url": up.url, "token": token,
                "counts": str(up.counts),
            },
        }
        if not direct:
            options = [*RAISED, *upstream(up.url, up.speaks if more.get("told") else None)]
            if token:
                (directory / "upstream.token").write_text(token)
                options.append(f"--upstream-token-file={directory / 'upstream.token'}")
            if path not in ("/mcp", "/sse"):
                options.append(f"--path={path}")
            edge = Edge(binary, None, *options, directory=directory)
            edge.wait_ready()
            cell |= {"url": edge.base + path, "token": edge.token, "base": edge.base, "ca": edge.ca}
            environment["SSL_CERT_FILE"] = environment["NODE_EXTRA_CA_CERTS"] = str(edge.ca)
        environment["CELL"] = json.dumps(cell)
        run_client(argv, environment, directory, results)
        if sdk != "curl":
            # The edge may keep one stream of its own, the clients had two sessions at one time.
            left = up.wait_streams(0 if direct else 1, STREAMS_GONE)
            problem = f"{left} still open {STREAMS_GONE} s after the clients closed"
            gone = left <= (0 if direct else 1) or results.failed
            results.add("streams to the upstream end with the clients", None if gone else problem)
        if edge:
            results.add("SIGTERM: exit 0, nothing left", edge.stop())
    except Exception as error:
        results.add("the cell runs", f"{type(error).__name__}: {error}")
    finally:
        if edge:
            edge.kill()
        if up:
            up.kill()
        results.print()
    return results


def run_alone(name, binary, directory, only):
    results = Results(name)
    edge = None
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MCP_")}
    try:
        if name in SCRIPTS:
            argv = [PY1, f"{name}.py", str(binary), "--directory", str(directory)]
            run_client([*argv, *(["--check", only] if only else [])], environment, directory, results)
        elif name == "raw":
            argv = [sys.executable, "raw.py", str(binary), str(directory), only or ""]
            run_client(argv, environment, directory, results)
        elif name == "fetch":
            edge = Edge(binary, EVERYTHING, *RAISED, directory=directory)
            environment["NODE_EXTRA_CA_CERTS"] = str(edge.ca)
            environment["CELL"] = json.dumps({"url": f"{edge.base}/mcp", "token": edge.token})
            run_client(["node", "fetch.mjs"], environment, directory, results)
            results.add("SIGTERM: exit 0, nothing left", edge.stop())
        elif name == "chaos":
            seconds = os.environ.get("CHAOS_SECONDS", "30")
            run_script([sys.executable, "chaos.py", str(binary), seconds], directory, results)
        else:
            run_script([sys.executable, "vanish.py", str(binary)], directory, results)
    except Exception as error:
        results.add("the cell runs", f"{type(error).__name__}: {error}")
    finally:
        if edge:
            edge.kill()
        results.print()
    return results


def run_script(argv, directory, results):
    """A script with a verdict of its own: its exit code, its output being the reason."""
    started = time.monotonic()
    argv += ["--directory", str(directory)]
    process = subprocess.Popen(
        argv, cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=CELL_TIMEOUT + 120)
        problem = None if process.returncode == 0 else f"exit {process.returncode}\n{output}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        problem = "not done in time"
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    results.add(" ".join(Path(a).name for a in argv[1:2]), problem, time.monotonic() - started)
    if not problem:
        results.lines += [f"     {line}" for line in output.splitlines()[-4:]]


def start_reference(kind):
    """The reference server's own HTTP transports: proves the clients where there is no edge."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    mode, path = ("sse", "/sse") if kind == "sse" else ("streamableHttp", "/mcp")
    server = subprocess.Popen(
        [*EVERYTHING[:-1], mode], env={**os.environ, "PORT": str(port)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server, f"http://127.0.0.1:{port}{path}"
        except OSError:
            time.sleep(0.05)
    server.kill()
    raise RuntimeError("the reference server does not listen")


def is_native(name):
    """Whether the client of a cell speaks what its upstream speaks, so that it needs no edge."""
    kind, _, transport, _, _ = UP[name]
    return transport == ("sse" if KINDS[kind][3] == "sse" else "http")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("--only", default="", help="only cells whose name contains this")
    parser.add_argument("--check", help="only checks whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--direct", action="store_true", help="no edge: the reference server itself")
    options = parser.parse_args()
    binary = options.binary.resolve()
    if not options.direct and not os.access(binary, os.X_OK):
        print(f"{binary} is not there or cannot be executed: cargo build comes first")
        print("0 passed, 1 failed")
        return 1
    logs = WORK / "logs"
    shutil.rmtree(logs, ignore_errors=True)

    matrix = [name for name in [*MATRIX, *UP] if options.only in name]
    alone = [name for name in ALONE if options.only in name]
    if options.direct:
        # ts1 resumes a stream that ended with an error, which the reference server gets wrong.
        matrix = [n for n in matrix if n.endswith(("-http", "-sse", "-legacy", "-auto"))]
        matrix = [n for n in matrix if n != "ts1-http" and (n not in UP or is_native(n))]
        alone = []
    elif options.check:
        alone = [name for name in alone if name in ["raw", *SCRIPTS]]
    print(f"with {versions()}", flush=True)
    for name in matrix + alone:
        (logs / name).mkdir(parents=True)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(
            lambda n: (run_up_cell if n in UP else run_matrix_cell)(
                n, binary, logs / n, options.check, options.direct
            ), matrix
        ))
    found += [run_alone(name, binary, logs / name, options.check) for name in alone]

    failed = sum(r.failed for r in found)
    passed = sum(r.passed for r in found)
    skipped = sum(r.skipped for r in found)
    if failed:
        print("\nfailed:")
        for results in found:
            for line in results.lines:
                if line.startswith("FAIL"):
                    print(line)
    print(count(passed, failed, skipped), flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
