"""The programs that our users run, as they install them: do they get on with the edge?

Usage: programs.py EDGE_BINARY [--check PART] [--directory DIR]. One JSON line per check, as in
steps.py. Each program has a home of its own, trusts the edge through NODE_EXTRA_CA_CERTS as the
start-up lines say, and reaches nothing but this machine. Runs in the pinned venv.
"""

import asyncio
import contextlib
import json
import os
import re
import tempfile
from pathlib import Path

import wire
from checks import Checks, parse_options, run
from edge import EVERYTHING, RAISED, WORK, Edge, kill, processes
from model import TOOL, Model
from walk import explain, report

MODULES = WORK / "programs/node_modules"
LIMIT = 45
STOPPED = "SIGTERM: exit 0, nothing left"
NOBODY_LEFT = "no process of the programs is left"
LONG = "trigger-long-running-operation"
WRONG = "wrong-wrong-wrong-wrong-wrong"
# Nobody listens there: what a program wants from elsewhere fails at once.
NOWHERE = "http://127.0.0.1:9"
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "NO_COLOR": "1",
}
PROXY = {"HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE, "NO_PROXY": "localhost,127.0.0.1"}
INSPECTOR = ["node", str(MODULES / ".bin/mcp-inspector"), "--cli"]
QWEN = ["node", str(MODULES / ".bin/qwen")]
REMOTE = ["node", str(MODULES / ".bin/mcp-remote")]
# As it is today, with a runtime of its own, and the last one that runs on Node.
CLAUDE = {
    "Claude Code": ["node", str(MODULES / "@anthropic-ai/claude-code/cli-wrapper.cjs")],
    "Claude Code on Node": ["node", str(MODULES / "claude-code-on-node/cli.js")],
}


class User:
    """Somebody with a home directory of their own, who was told the edge's URL, token and CA."""

    def __init__(self, edge, directory, mark, trusts=True):
        self.edge, self.home = edge, Path(tempfile.mkdtemp(dir=directory, prefix="home-"))
        self.url = f"https://localhost:{edge.port}"
        keep = {k: os.environ[k] for k in ("PATH", "TMPDIR") if k in os.environ}
        self.environment = {
            **keep, **QUIET, **PROXY, "HOME": str(self.home), "LANG": "C.UTF-8", "SUITE_MARK": mark,
        }
        if trusts:
            self.environment["NODE_EXTRA_CA_CERTS"] = str(edge.ca)

    def bearer(self, token=None):
        return f"Authorization: Bearer {token or self.edge.token}"

    async def start(self, argv, stdin=asyncio.subprocess.DEVNULL, **more):
        return await asyncio.create_subprocess_exec(
            *argv, cwd=self.home, env={**self.environment, **more}, stdin=stdin,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 20,
        )

    async def run(self, *argv):
        """Exit code and what it printed, stdout before stderr."""
        process = await self.start(argv)
        try:
            out, err = await asyncio.wait_for(process.communicate(), LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    async def does(self, *argv):
        code, out, err = await self.run(*argv)
        assert code == 0, f"{argv[1:4]}: exit {code}\n{out[-1500:]}\n{err[-1500:]}"
        return out


checks = Checks()


# --- MCP Inspector ----------------------------------------------------------------------------


def without_proxy(user):
    """With a proxy, Inspector 2 loads a library that Node 20 cannot run. It asks nobody else."""
    user.environment = {k: v for k, v in user.environment.items() if k not in PROXY}


def add_inspector(transport, path):
    async def inspect(user):
        without_proxy(user)
        call = [*INSPECTOR, user.url + path, "--transport", transport, "--header", user.bearer()]
        listed = json.loads(await user.does(*call, "--method", "tools/list"))
        assert "echo" in [t["name"] for t in listed["tools"]], listed
        echo = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello"]
        answer = json.loads(await user.does(*call, *echo))
        assert answer["content"][0]["text"] == "Echo: hello", answer

    checks.check(f"MCP Inspector --cli, --transport {transport}: tools/list, tools/call")(inspect)


add_inspector("http", "/mcp")
add_inspector("sse", "/sse")


@checks.check("MCP Inspector --cli with a wrong token says that authorization is wanted")
async def inspector_refused(user):
    without_proxy(user)
    call = [*INSPECTOR, f"{user.url}/mcp", "--transport", "http"]
    code, out, err = await user.run(*call, "--header", user.bearer(WRONG), "--method", "tools/list")
    assert code != 0 and "auth" in (out + err).lower(), (code, out, err)


# --- Qwen Code --------------------------------------------------------------------------------


def add_qwen(transport, path, member):
    async def qwen(user):
        added = ["mcp", "add", "--transport", transport, "edge", user.url + path]
        await user.does(*QWEN, *added, "--header", user.bearer())
        found = list(user.home.rglob(".qwen/settings.json"))
        settings = json.loads(found[0].read_text())["mcpServers"]["edge"]
        wanted = {member: user.url + path, "headers": {"Authorization": f"Bearer {user.edge.token}"}}
        assert settings == wanted, {**settings, "headers": "…"}
        listed = await user.does(*QWEN, "mcp", "list")
        assert re.search(r"edge: .* - Connected", listed), listed

    checks.check(f"Qwen Code, {member}: mcp add, mcp list says Connected")(qwen)


add_qwen("http", "/mcp", "httpUrl")
add_qwen("sse", "/sse", "url")


@checks.check("Qwen Code with a wrong token: mcp list does not say Connected")
async def qwen_refused(user):
    added = ["mcp", "add", "--transport", "http", "edge", f"{user.url}/mcp"]
    await user.does(*QWEN, *added, "--header", user.bearer(WRONG))
    _, out, err = await user.run(*QWEN, "mcp", "list")
    assert "edge: " in out and "- Connected" not in out, (out, err)


@checks.check("Qwen Code: a turn in which its model calls a tool")
async def qwen_turn(user):
    added = ["mcp", "add", "--transport", "http", "edge", f"{user.url}/mcp"]
    await user.does(*QWEN, *added, "--header", user.bearer())
    (path,) = user.home.rglob(".qwen/settings.json")
    settings = json.loads(path.read_text())
    # All tools are offered at once, not found by a search of the model's.
    path.write_text(json.dumps({**settings, "tools": {"toolSearch": {"enabled": False}}}))
    with Model() as model:
        user.environment |= {
            "OPENAI_BASE_URL": f"{model.url}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": "none",
        }
        told = ["-p", "call the tool", "--approval-mode", "yolo", "--auth-type", "openai"]
        said = await user.does(*QWEN, *told)
        assert "Echo: hello" in said, (said, model.tools())


# --- Claude Code ------------------------------------------------------------------------------


def add_claude(name, claude, transport, path):
    async def connects(user):
        added = ["mcp", "add", "--transport", transport, "edge", user.url + path]
        await user.does(*claude, *added, "--header", user.bearer())
        listed = await user.does(*claude, "mcp", "list")
        assert re.search(r"edge: .* - . Connected", listed), listed

    checks.check(f"{name}, --transport {transport}: mcp add, mcp list says Connected")(connects)


def add_claude_turn(name, claude):
    async def turn(user):
        added = ["mcp", "add", "--transport", "http", "edge", f"{user.url}/mcp"]
        await user.does(*claude, *added, "--header", user.bearer())
        with Model() as model:
            user.environment |= {
                "ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "none",
                # All tools are offered at once, not found by a search of the model's.
                "ENABLE_TOOL_SEARCH": "false",
            }
            said = await user.does(*claude, "-p", "call the tool", "--allowedTools", TOOL)
            assert "Echo: hello" in said, (said, model.tools())

    checks.check(f"{name}: a turn in which its model calls a tool")(turn)


def add_claude_refused(name, claude):
    async def refused(user):
        added = ["mcp", "add", "--transport", "http", "edge", f"{user.url}/mcp"]
        await user.does(*claude, *added, "--header", user.bearer(WRONG))
        listed = await user.does(*claude, "mcp", "list")
        assert "edge: " in listed and "Connected" not in listed, listed

    checks.check(f"{name} with a wrong token: mcp list does not say Connected")(refused)


def add_claude_distrusting(name, claude):
    async def distrusts(user):
        user.environment.pop("NODE_EXTRA_CA_CERTS")
        added = ["mcp", "add", "--transport", "http", "edge", f"{user.url}/mcp"]
        await user.does(*claude, *added, "--header", user.bearer())
        listed = await user.does(*claude, "mcp", "list")
        assert "edge: " in listed and "Connected" not in listed, listed

    checks.check(f"{name} without the CA: mcp list does not say Connected")(distrusts)


for _name, _claude in CLAUDE.items():
    add_claude(_name, _claude, "http", "/mcp")
    add_claude(_name, _claude, "sse", "/sse")
    add_claude_turn(_name, _claude)
    add_claude_refused(_name, _claude)
    add_claude_distrusting(_name, _claude)


# --- mcp-remote -------------------------------------------------------------------------------


class Remote:
    """mcp-remote, spoken to over its stdin and stdout as a client that knows stdio only does."""

    def __init__(self, process):
        self.process, self.seen = process, []

    def send(self, message):
        self.process.stdin.write(wire.encode(message) + b"\n")

    async def answer(self, id):
        while line := await self.process.stdout.readline():
            message = json.loads(line)
            self.seen.append(message)
            if message.get("id") == id and "method" not in message:
                return message
        raise AssertionError(f"it ended: {(await self.process.stderr.read())[-1500:]}")


def add_remote(path, *more):
    async def remote(user):
        # The space would be lost in the settings of some clients, so its README has it so.
        argv = [*REMOTE, user.url + path, "--header", "Authorization:${AUTH}", *more]
        auth = f"Bearer {user.edge.token}"
        process = await user.start(argv, stdin=asyncio.subprocess.PIPE, AUTH=auth)
        try:
            remote = Remote(process)
            remote.send(wire.initialize())
            answer = await asyncio.wait_for(remote.answer(0), LIMIT)
            assert answer["result"]["serverInfo"]["name"] == "mcp-servers/everything", answer
            remote.send(wire.notification("notifications/initialized"))
            remote.send(wire.request(1, "tools/list"))
            answer = await asyncio.wait_for(remote.answer(1), LIMIT)
            assert "echo" in [t["name"] for t in answer["result"]["tools"]], answer
            remote.send(wire.call(2, LONG, {"duration": 0.6, "steps": 3}, "p"))
            answer = await asyncio.wait_for(remote.answer(2), LIMIT)
            assert "Steps: 3" in answer["result"]["content"][0]["text"], answer
            method = "notifications/progress"
            progress = [m["params"]["progress"] for m in remote.seen if m.get("method") == method]
            assert progress == [1, 2, 3], remote.seen
            process.stdin.close()
            await asyncio.wait_for(process.wait(), 10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    name = " ".join(["mcp-remote", path, *more])
    checks.check(f"{name}: initialize, tools/list, tools/call with progress")(remote)


add_remote("/mcp")
add_remote("/mcp", "--transport", "sse-only")
add_remote("/sse", "--transport", "sse-first")


@checks.check("mcp-remote with a wrong token ends, and shows what the edge says")
async def remote_refused(user):
    argv = [*REMOTE, f"{user.url}/mcp", "--header", "Authorization:${AUTH}"]
    user.environment["AUTH"] = f"Bearer {WRONG}"
    code, out, err = await user.run(*argv)
    assert code == 1 and not out, (code, out, err[-800:])
    assert "bearer token" in err, err[-1500:]


async def main(options):
    planned = [c for c in checks.all if options.check in c[0]]
    print(json.dumps({"plan": [*[c[0] for c in planned], NOBODY_LEFT, STOPPED]}), flush=True)
    edge = await asyncio.to_thread(Edge, options.binary, EVERYTHING, *RAISED, directory=options.directory)
    mark = f"programs-{edge.mark}"
    try:
        for name, function, _, timeout in planned:
            try:
                user = User(edge, options.directory, mark)
            except Exception as error:
                report(name, False, 0, explain(error))
                continue
            await run(name, function(user), timeout)
        left = processes(mark, None)
        report(NOBODY_LEFT, not left, 0, str(left or ""))
        problem = await asyncio.to_thread(edge.stop)
        report(STOPPED, not problem, 0, problem or "")
    finally:
        for pid in processes(mark, None):
            kill(pid)
        edge.kill()


if __name__ == "__main__":
    asyncio.run(main(parse_options(__doc__, "programs")))
