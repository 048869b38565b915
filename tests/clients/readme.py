"""Runs what README.md and certs/README.md tell people to type, and to put into their clients.

Usage: readme.py EDGE_BINARY [--check PART] [--directory DIR]. One JSON line per check, as in
steps.py. Runs in the pinned venv.

Commands run in the order in which they stand, in one directory, as a shell would run them. Only
ports, paths and names that are not of this machine are mapped to others: see `Machine.mapped`. A
command is a line of an `sh` block, or code in the text that begins with the name of a program. One
that is neither run nor in NOT_RUN fails.
"""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

from checks import parse_options, run
from edge import EVERYTHING, HERE, kill, processes
from readme_clients import LIMIT, PICTURES, PROGRAMS, SNIPPETS, rows, trusted
from upstream import Upstream, free_port
from walk import explain, report

ROOT = HERE.parent.parent
START = 30
NOBODY_LEFT = "no process is left"
EVERY = "every command is run, or says why not"

# Commands that are not run here, and why. A blank at the end stands for whatever follows.
NOT_RUN = {
    "cargo install ": "it builds a release for minutes; the binary under test stands in for it",
    "cargo test": ".ci/run runs it",
    ".ci/run": "it runs this",
    ".ci/sbom ": ".ci/run runs it",
    "fuzz/run ": ".ci/run runs it, for 5 seconds",
    "tests/clients/run": "it runs this",
    "tests/reproducible": "it builds two releases, for half an hour",
    "tests/soak/run": ".ci/run runs it",
    "tests/tls/scan": "it needs a release and two scanners; who changes TLS runs it",
    "mcp-edge __keep ": "what ps shows; nobody types it",
    "docker exec": "named as something that others do",
    "kill -9": "named as something that others do; tests/vanish.rs does it",
    "nginx -s reload": "the command that is replaced",
    "npx -y": "a part of a command that is run",
}
# What a code span or a line has to begin with to be a command.
NAMES = r"(?:cargo|claude|curl|docker|export|kill|mcp-edge|nginx|npx|openssl|qwen|\.ci/|fuzz/|tests/)"
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )?{NAMES}(?:\S*)(?: |$)")
FILES = re.compile(r"\S+\.(?:rs|md|py|mjs|toml|json)$|.*[*/]$")


def read(name):
    """The fenced blocks of a file as (line, language, text), and the text outside them."""
    found, prose, inside = [], [], None
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        if inside is not None:
            if line == "```":
                found.append(inside)
                inside = None
            else:
                inside[2].append(line)
        elif line.startswith("```"):
            inside = (number + 1, line[3:].strip(), [])
        else:
            prose.append((number, line))
    assert inside is None, f"{name}: a block is never closed"
    return [(n, language, "\n".join(lines)) for n, language, lines in found], prose


def commands(block):
    """The commands of an `sh` block: joined where they are continued, without comments."""
    line, _, text = block
    joined, start = "", line
    for number, part in enumerate(text.splitlines(), line):
        start = start if joined else number
        joined += part.strip() if not joined else " " + part.strip()
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip()
            continue
        command = re.sub(r"\s+#\s.*$", "", joined)
        if command and not command.startswith("#"):
            yield start, command
        joined = ""
    assert not joined, f"line {start}: continued by nothing"


def spans(prose):
    """Code in the text that reads like a command."""
    for number, line in prose:
        for span in re.findall(r"`([^`]+)`", line):
            if COMMAND.match(span) and not FILES.match(span):
                yield number, span


def not_run(command):
    if why := NOT_RUN.get(command):
        return why
    begins = (why for it, why in NOT_RUN.items() if it.endswith(" ") and command.startswith(it))
    return next(begins, None)


def free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Machine:
    """The machine of somebody who reads the README: a home, a directory, programs in PATH."""

    def __init__(self, binary, directory):
        self.binary, self.mark = binary, uuid.uuid4().hex
        self.home, self.here, self.bin = (directory / n for n in ("home", "here", "bin"))
        for place in (self.home, self.here, self.bin):
            place.mkdir(parents=True)
        (self.bin / "mcp-edge").symlink_to(binary)
        self.program("claude", PROGRAMS / "@anthropic-ai/claude-code/cli-wrapper.cjs")
        self.program("qwen", PROGRAMS / ".bin/qwen")
        self.modules(self.here, EVERYTHING[1].partition("/@")[0])
        self.elsewhere = directory / "elsewhere"
        self.elsewhere.mkdir()
        self.modules(self.elsewhere, PROGRAMS)
        (self.home / ".npmrc").write_text("offline=true\nupdate-notifier=false\n")
        self.directory, self.process, self.port, self.up = directory, None, None, None
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.home), "LANG": "C.UTF-8",
            "SUITE_MARK": self.mark, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1", "DISABLE_ERROR_REPORTING": "1", "DISABLE_TELEMETRY": "1",
            "NO_COLOR": "1", "npm_config_offline": "true",
        }

    def program(self, name, script):
        path = self.bin / name
        path.write_text(f'#!/bin/sh\nexec node {shlex.quote(str(script))} "$@"\n')
        path.chmod(0o755)

    def modules(self, place, modules):
        """Has `npx -y NAME` find packages there, as it would after its first download."""
        (place / "node_modules").symlink_to(modules)

    @property
    def base(self):
        return f"https://localhost:{self.port}"

    @property
    def ca(self):
        return self.here / "certs/ca.pem"

    @property
    def token(self):
        """What the client is given by the operator."""
        return self.environment.get("MCP_AUTH_TOKEN") or (self.here / "certs/token").read_text().strip()

    def mapped(self, text):
        """The same on this machine: ports, paths and names that are not ours are replaced."""
        for there, ours in {
            "cargo run --release --": "mcp-edge",
            "cargo run --example embedded": str(self.binary.parent / "examples/embedded"),
            "https://localhost:8443": self.base,
            "https://mcp.example.com": self.base,
            "--host 0.0.0.0 --port 443": f"--host 127.0.0.1 --port {self.port}",
            "/etc/letsencrypt/live/mcp.example.com": str(self.directory / "letsencrypt"),
            "http://127.0.0.1:8000": self.up.base if self.up else "http://127.0.0.1:8000",
            "Bearer TOKEN": "Bearer $MCP_AUTH_TOKEN",
        }.items():
            text = text.replace(there, ours)
        return text

    def shell(self, command, place=None):
        """Runs a command to its end; an export lasts."""
        line = f"set -e; {self.mapped(command)}"
        if command.startswith("export "):
            line += "; env -0"
        done = subprocess.run(
            ["bash", "-c", line], cwd=place or self.here, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert done.returncode == 0, f"exit {done.returncode}\n{out[-800:]}\n{err[-800:]}"
        if command.startswith("export "):
            found = dict(pair.split("=", 1) for pair in out.split("\0") if "=" in pair)
            self.environment |= {k: v for k, v in found.items() if k not in ("PWD", "SHLVL", "_")}
        return out

    def stop(self):
        """SIGTERM: whoever reads on has stopped the one before with ^C."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(START)
            assert code == 0, f"exit {code} after SIGTERM: {self.said()[-800:]}"

    def said(self):
        return self.log.read_text(errors="replace")

    def serve(self, command):
        """Starts a command that stays, and waits for its word that it serves."""
        self.stop()
        self.port = free_port()
        self.log = self.directory / f"served-{self.port}.log"
        environment = {**self.environment, "MCP_PORT": str(self.port)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {self.mapped(command)}"], cwd=self.here, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        deadline = time.monotonic() + START
        while '"message":"serving"' not in self.said():
            assert self.process.poll() is None, self.said()[-1500:]
            assert time.monotonic() < deadline, f"no word within {START} s: {self.said()[-800:]}"
            time.sleep(0.02)

    def get(self, path, token=True, base=None):
        context = ssl.create_default_context(cafile=str(self.ca))
        fields = {"Authorization": f"Bearer {self.token}"} if token else {}
        asked = urllib.request.Request((base or self.base) + path, headers=fields)
        with urllib.request.urlopen(asked, timeout=LIMIT, context=context) as answer:
            return answer.status, answer.read().decode()

    def serves(self, *tools):
        status, body = self.get("/mcp/tools")
        names = [tool["name"] for tool in json.loads(body)["tools"]]
        assert status == 200 and set(tools) <= set(names), (status, names)


# --- commands ---------------------------------------------------------------------------------


def embedded(machine, command):
    """Its port is fixed, and its token is its own."""
    machine.stop()
    started = time.monotonic()
    line = f"exec env {machine.mapped(command)}"
    process = subprocess.Popen(
        ["bash", "-c", line], cwd=machine.here, env=machine.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "https://localhost:8443/mcp\n"
        assert process.stdout.readline() == f"curl --cacert {machine.ca}\n"
        status, _ = machine.get("/livez", token=False, base="https://localhost:8443")
        assert status == 200 and time.monotonic() - started < START
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(START)
        except subprocess.TimeoutExpired:
            process.kill()


def no_example(machine, _):
    """Why it cannot be run here, if it cannot."""
    if not os.access(machine.mapped("cargo run --example embedded"), os.X_OK):
        return "cargo build --examples comes first"
    return None if free(8443) else "its port, 8443, is taken"


def server(machine, command):
    if "/etc/letsencrypt/" in command:
        place = machine.directory / "letsencrypt"
        place.mkdir(exist_ok=True)
        certs = machine.here / "certs"
        # The one without addresses, which no public CA would certify either.
        chain = (certs / "cert-names.pem").read_text() + machine.ca.read_text()
        (place / "fullchain.pem").write_text(chain)
        shutil.copy(certs / "key.pem", place / "privkey.pem")
        # A public CA would be among the system's.
        machine.environment |= {"CURL_CA_BUNDLE": str(machine.ca), "SSL_CERT_FILE": str(machine.ca)}
    if "--upstream " in command:
        machine.up = machine.up or Upstream("sse", directory=machine.directory)
    machine.serve(command)
    machine.serves(*(["add"] if "--upstream " in command else ["echo"]))


def curl(machine, command):
    answer = json.loads(machine.shell(command))
    if "call-tool" in command:
        assert answer["content"][0]["text"] == "Echo: hello", answer
    else:
        tools = answer.get("result", answer)["tools"]
        assert "echo" in [tool["name"] for tool in tools], answer


def adds(machine, command):
    """`claude mcp add` or `qwen mcp add`: what was added is connected to."""
    program = command.split()[0]
    machine.shell(command)
    name = re.search(r"--transport \S+ (\S+) ", command)[1]
    listed = machine.shell(f"{program} mcp list")
    assert re.search(rf"{name}: .* - .*Connected", listed), listed


def inspects(machine, command):
    tools = json.loads(machine.shell(command, machine.elsewhere))["tools"]
    assert "echo" in [tool["name"] for tool in tools], tools


def exports(machine, command):
    machine.shell(command)
    name = re.match(r"export ([A-Z_]+)=", command)[1]
    assert machine.environment.get(name), machine.environment.keys()
    if name.endswith("_CERTS"):
        assert Path(machine.environment[name]).is_file(), machine.environment[name]


def health(machine, command):
    if machine.process.poll() is not None:
        machine.serve("mcp-edge --self-signed")
    machine.environment["MCP_PORT"] = str(machine.port)
    machine.shell(command)
    del machine.environment["MCP_PORT"]


RUN = {
    "cargo run --release -- --self-signed": server,
    "MCP_AUTH_TOKEN=$(openssl rand -hex 32) cargo run --example embedded": embedded,
    "mcp-edge health": health,
    "mcp-edge --": server,
    "export ": exports,
    "claude mcp add ": adds,
    "qwen mcp add ": adds,
    "npx -y @modelcontextprotocol/inspector ": inspects,
    "curl ": curl,
}
WONT = {embedded: no_example}


def runner(command):
    return next((how for begin, how in RUN.items() if command.startswith(begin)), None)


# --- the plan ---------------------------------------------------------------------------------


def plan(machine):
    """(name, function, arguments) of everything to be done, in order, and what nobody does."""
    planned, nobody, reasons, seen = [], [], [], set()

    def add(where, command, again=True):
        if command in seen and not again:
            return
        seen.add(command)
        if why := not_run(command):
            reasons.append(f"{where} is not run: `{command}`: {why}")
        elif how := runner(command):
            planned.append((f"{where}: {command}", how, (machine, command)))
        else:
            nobody.append(f"{where}: `{command}`")

    for name in ("README.md", "certs/README.md"):
        blocks, prose = read(name)
        for block in blocks:
            line, language, text = block
            if language == "sh":
                for number, command in commands(block):
                    add(f"{name}:{number}", command)
            elif language in SNIPPETS:
                planned.append((f"{name}:{line}: {language}", SNIPPETS[language], (machine, text)))
            elif language not in PICTURES:
                nobody.append(f"{name}:{line}: a block of `{language}`")
        for number, span in spans(prose):
            add(f"{name}:{number}", span, again=False)
        for number, client, how in rows(prose):
            planned.append((f"{name}:{number}: {client} trusts the CA", trusted, (machine, client, how)))
    return planned, nobody, reasons


async def one(name, function, arguments):
    try:
        if why := WONT.get(function, lambda *_: None)(*arguments):
            print(json.dumps({"check": name, "skipped": why}), flush=True)
            return
    except Exception as error:
        report(name, False, 0, explain(error))
        return
    await run(name, asyncio.to_thread(function, *arguments), 2 * LIMIT)


def short(name):
    return name if len(name) < 110 else f"{name[:107]}…"


async def main(options):
    machine = Machine(Path(options.binary).resolve(), options.directory.resolve())
    planned, nobody, reasons = plan(machine)
    # A command needs those before it.
    wanted = [at for at, (name, _, _) in enumerate(planned, 1) if options.check in name]
    chosen = planned[: max(wanted, default=0)]
    names = [short(p[0]) for p in chosen]
    print(json.dumps({"plan": [EVERY, *names, NOBODY_LEFT]}), flush=True)
    report(EVERY, not nobody, 0, "\n".join(["readme.py knows nothing of", *nobody] if nobody else reasons))
    try:
        for (_, function, arguments), name in zip(chosen, names):
            await one(name, function, arguments)
        machine.stop()
        deadline = time.monotonic() + 5
        if machine.up:
            machine.up.kill()
        while (left := processes(machine.mark, None)) and time.monotonic() < deadline:
            time.sleep(0.1)
        report(NOBODY_LEFT, not left, 0, str(left or ""))
    finally:
        if machine.up:
            machine.up.kill()
        for pid in processes(machine.mark, None):
            kill(pid)


if __name__ == "__main__":
    asyncio.run(main(parse_options(__doc__, "readme")))
