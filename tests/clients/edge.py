"""Starts and stops the edge under test, and finds every process it leaves behind.

Everything the suite assumes about the binary's options and start-up line stands in this file.
"""

import json
import os
import secrets
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE / ".work"
EVERYTHING = [
    "node",
    str(WORK / "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"),
    "stdio",
]

# The one line of the log that says the edge serves, and its fields.
SERVING = "serving"
FIELDS = {"url": "url", "address": "address", "port": "port", "path": "path", "ca": "ca"}

# Limits that are not the subject of a cell are lifted out of its way.
RAISED = [
    "--requests-per-second=100000",
    "--burst=100000",
    "--connections-per-ip=2000",
    "--max-connections=5000",
    "--streams-per-ip=2000",
    "--sessions-per-ip=2000",
    "--max-sessions=5000",
]
START_TIMEOUT = 30
STOP_TIMEOUT = 40


def session_idle(seconds):
    return [f"--session-idle-timeout={seconds}s"]


def call_timeout(seconds):
    return [f"--call-timeout={seconds}s"]


def max_children(count):
    return [f"--max-children={count}"]


def pass_env(name, value):
    return ["--env", f"{name}={value}"]


def upstream(url, kind=None):
    return [f"--upstream={url}", *([f"--upstream-kind={kind}"] if kind else [])]


class Edge:
    """One running edge. `mark` is in the environment of every child, so orphans are found too.

    Without a command it has an upstream, which is among the options or in `variables`; with
    variables it gets no options at all. `through` is a command that runs it.
    """

    def __init__(
        self, binary, command, *options, directory, name="edge", certs=None, variables=None,
        through=(),
    ):
        self.token = secrets.token_urlsafe(32)
        self.mark = uuid.uuid4().hex
        directory = Path(directory)
        certs = certs or directory / "certs"
        self.log = directory / f"{name}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MCP_")}
        environment["MCP_AUTH_TOKEN"] = self.token
        environment["SUITE_UNLISTED"] = "not for the child"
        argv = [*through, str(binary)]
        if variables is None:
            argv += ["--self-signed", "--certs-dir", str(certs), "--port", "0"]
            argv += ["--log-format", "json", *options]
        else:
            environment |= {
                "MCP_SELF_SIGNED": "true", "MCP_CERTS_DIR": str(certs), "MCP_PORT": "0",
                "MCP_LOG_FORMAT": "json", **variables,
            }
        if command:
            argv += [*pass_env("SUITE_MARK", self.mark), "--", *command]
        self.argv = argv
        with self.log.open("wb") as log, (directory / f"{name}.out").open("wb") as out:
            self.process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                start_new_session=True,
            )
        try:
            serving = self._serving()
        except Exception:
            self.kill()
            raise
        self.url = serving[FIELDS["url"]]
        self.port = int(serving[FIELDS["port"]])
        self.path = serving[FIELDS["path"]]
        self.ca = serving[FIELDS["ca"]]
        self.base = f"https://127.0.0.1:{self.port}"

    def _serving(self):
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            for record in self.records():
                if record.get("message") == SERVING:
                    missing = [f for f in FIELDS.values() if f not in record]
                    if missing:
                        raise RuntimeError(f"the serving line lacks {missing}: {record}")
                    return record
            if self.process.poll() is not None:
                raise RuntimeError(f"exit {self.process.returncode} at start:\n{self.tail()}")
            time.sleep(0.02)
        raise RuntimeError(f"no serving line within {START_TIMEOUT} s:\n{self.tail()}")

    def records(self):
        """The JSON log so far, flat whether or not the fields are nested."""
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield {**record, **record.get("fields", {})}

    def tail(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @property
    def pid(self):
        return self.process.pid

    def children(self):
        return processes(self.mark, self.pid)

    def wait_children(self, at_most, timeout):
        """The children still there once there are `at_most` of them or the time is up."""
        deadline = time.monotonic() + timeout
        while len(left := self.children()) > at_most and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def probe(self, path, timeout=5):
        """Status and body of a GET without a token."""
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(self.base + path, timeout=timeout, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def wait_ready(self, timeout=15):
        """Waits until it says that the upstream answers."""
        deadline = time.monotonic() + timeout
        while (found := self.probe("/readyz"))[0] != 200:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ready within {timeout} s: {found}\n{self.tail()}")
            time.sleep(0.05)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) // 1024
        return 0

    def stop(self):
        """SIGTERM; returns what was wrong, or None for exit 0 with nothing left."""
        wrong = []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        else:
            wrong.append("it was dead already")
        started = time.monotonic()
        try:
            code = self.process.wait(STOP_TIMEOUT)
            if code != 0:
                wrong.append(f"exit code {code}")
        except subprocess.TimeoutExpired:
            wrong.append(f"no exit within {STOP_TIMEOUT} s of SIGTERM")
        self.stopped_in = time.monotonic() - started
        time.sleep(0.1)
        left = processes(self.mark, None)
        if left:
            wrong.append(f"processes left: {left}")
        self.kill()
        if wrong:
            return "; ".join(wrong) + f"\nlast log lines:\n{self.tail()}"
        return None

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in processes(self.mark, None):
            kill(pid)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def processes(mark, root):
    """{pid: command line} of whatever has the mark in its environment or `root` as ancestor."""
    needle = f"SUITE_MARK={mark}".encode()
    parents, found = {}, set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid = int(entry)
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
            if needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
        except (OSError, ValueError):
            continue
        parents[pid] = int(parent)
    if root is not None:
        for pid in parents:
            seen, at = set(), pid
            while at in parents and at not in seen and at != root:
                seen.add(at)
                at = parents[at]
            if at == root and pid != root:
                found.add(pid)
    found.discard(root)
    found.discard(os.getpid())
    result = {}
    for pid in found:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        result[pid] = line.strip()[-80:] or "(zombie)"
    return result
