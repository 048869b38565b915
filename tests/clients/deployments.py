"""Five servers as their operators run them, each behind the edge: their paths, curl lines, clients.

Usage: deployments.py EDGE_BINARY [--check PART] [--directory DIR]. One JSON line per check, as in
steps.py. Each row has a fixture that behaves like its server. Runs in the pinned venv.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

import httpx
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from checks import Checks, parse_options, run
from edge import RAISED, Edge, upstream
from raw import challenged, curl
from up_steps import NAMES
from upstream import Upstream, free_port
from walk import explain, report

# The line that operators paste, as it stands, but for the address and the token.
BARE = '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'
ANSWER = 20

checks = Checks()
rows = {}


class Row:
    """One deployment: its upstream, its edge, and what else it holds until the end."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.up = self.edge = self.redirect = None
        self.edges = []

    async def upstream(self, kind, *more, **how):
        self.up = await asyncio.to_thread(Upstream, kind, *more, directory=self.directory, **how)

    async def start_edge(self, *options, ready=True, **how):
        edge = await asyncio.to_thread(
            Edge, self.binary, None, *options, directory=self.directory,
            name=f"edge{len(self.edges)}", **how,
        )
        self.edges.append(edge)
        if ready:
            await asyncio.to_thread(edge.wait_ready)
        return edge

    def stop(self):
        wrong = [problem for edge in self.edges if (problem := edge.stop())]
        if self.up:
            self.up.kill()
        return wrong


def row(name):
    def add(function):
        rows[name] = function
        return function

    return add


def check(name, text):
    return checks.check(f"{name}: {text}", name)


def bearer(edge):
    return {"Authorization": f"Bearer {edge.token}"}


async def literal(edge, *argv):
    """curl with these very arguments, a CA and a time limit; its output as (status, body)."""
    argv = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", str(edge.ca), *argv]
    argv += ["--write-out", "\n%{http_code}"]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 25)
    assert process.returncode == 0, f"curl {process.returncode}: {err!r}"
    body, _, status = out.decode().rpartition("\n")
    return int(status), body


async def visit(session):
    """What every session of these clients does: handshake, list, one call."""
    async with asyncio.timeout(ANSWER):
        await session.initialize()
        assert [t.name for t in (await session.list_tools()).tools] == NAMES
        result = await session.call_tool("add", {"a": 40, "b": 2})
        assert result.content[0].text == "42", result


async def by_sse(url, edge):
    async with sse_client(url, headers=bearer(edge)) as (read, write):
        async with ClientSession(read, write) as session:
            await visit(session)


async def by_http(url, edge):
    async with httpx.AsyncClient(headers=bearer(edge), timeout=ANSWER) as http:
        async with streamable_http_client(url, http_client=http) as (read, write, _):
            async with ClientSession(read, write) as session:
                await visit(session)


def named(found):
    assert [t["name"] for t in found["tools"]] == NAMES, found


# --- 1: SSE at /sse, messages under /messages/, a page for people at / ----------------------------


@row("skill-creator")
async def skill_creator(it):
    await it.upstream("sse", "--health", name="skill-creator")
    it.edge = await it.start_edge(*RAISED, *upstream(it.up.url), "--pass-open=/")


@check("skill-creator", "the health page at / is open, and the server's own")
async def health_page(it):
    answer = await curl(it.edge, "/")
    assert answer.status == 200 and "The server is running" in answer.body, answer
    assert answer.headers["content-type"].startswith("text/html"), answer
    # With --head curl writes the head to the output, too.
    answer = await curl(it.edge, "/", "--head", "--output", "/dev/null")
    assert answer.status in (200, 405), answer
    # What is open is that page and nothing beneath it.
    challenged(await curl(it.edge, "/sse"), 401, None)
    for path in ("/messages/?session_id=1", "/_watch", "/index.html"):
        answer = await curl(it.edge, path)
        assert answer.status in (401, 404), f"{path}: {answer}"
        answer = await curl(it.edge, path, token=it.edge.token)
        assert answer.status in (400, 404, 405), f"{path}: {answer}"


@check("skill-creator", "claude mcp add: the TypeScript SSE client on /sse with a bearer header")
async def claude(it):
    cell = {
        "kind": "sse", "url": f"{it.edge.base}/sse", "token": it.edge.token, "tool": "echo",
        "arguments": {"text": "hello"},
    }
    environment = {**os.environ, "CELL": json.dumps(cell), "NODE_EXTRA_CA_CERTS": str(it.edge.ca)}
    process = await asyncio.create_subprocess_exec(
        "node", "visit.mjs", env=environment, cwd=Path(__file__).parent,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), ANSWER)
    assert process.returncode == 0, err.decode()[-600:]
    assert json.loads(out) == {"tools": NAMES, "text": "Echo: hello"}, out


@check("skill-creator", "what OAuth probes ask for is a JSON 404, not the server's page")
async def probes(it):
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-authorization-server/sse"):
        answer = await curl(it.edge, path)
        assert answer.status == 404 and answer.is_json().get("error"), answer


# --- 2: SSE and POST on one path of choice --------------------------------------------------------


@row("sysom")
async def sysom(it):
    await it.upstream("unified", name="sysom")
    it.edge = await it.start_edge(*RAISED, *upstream(it.up.url), "--path=/mcp/unified")


@check("sysom", "curl -X POST with Content-Type only: 200 and the tools")
async def bare_curl(it):
    url = f"{it.edge.base}/mcp/unified"
    line = ["-X", "POST", url, "-H", "Content-Type: application/json", "-d", BARE]
    token = ["-H", f"Authorization: Bearer {it.edge.token}"]
    for more in ([], ["-H", "Accept:"], ["--http1.1", "-H", "Accept:"]):
        status, body = await literal(it.edge, *line, *token, *more)
        assert status == 200, (more, status, body)
        found = json.loads(body)
        assert found["id"] == 1 and found["jsonrpc"] == "2.0", found
        named(found["result"])
    status, body = await literal(it.edge, "--http1.1", *line)
    assert status == 401, (status, body)


@check("sysom", "Python sse_client(url): initialize, list_tools, call_tool")
async def sysom_sse(it):
    await by_sse(f"{it.edge.base}/mcp/unified", it.edge)


@check("sysom", "a Streamable HTTP client on the same path")
async def sysom_http(it):
    await by_http(f"{it.edge.base}/mcp/unified", it.edge)


# --- 3: every transport at once, a stream on a path of choice, port 80 ----------------------------


@row("roo")
async def roo(it):
    await it.upstream("http", name="roo")
    it.redirect = free_port()
    it.edge = await it.start_edge(
        *RAISED, *upstream(it.up.url), "--path=/stream", f"--redirect-http=127.0.0.1:{it.redirect}"
    )


@check("roo", "GET /tools/list")
async def roo_list(it):
    token = ["-H", f"Authorization: Bearer {it.edge.token}"]
    status, body = await literal(it.edge, *token, f"{it.edge.base}/tools/list")
    assert status == 200, (status, body)
    named(json.loads(body))


@check("roo", "curl -N on /stream: a stream that begins at once")
async def roo_stream(it):
    argv = [
        "curl", "-N", "--silent", "--include", "--max-time", "20", "--cacert", str(it.edge.ca),
        "-H", f"Authorization: Bearer {it.edge.token}", f"{it.edge.base}/stream",
    ]
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    seen = []
    try:
        async with asyncio.timeout(10):
            while not seen or not seen[-1].startswith("event: endpoint"):
                line = await process.stdout.readline()
                assert line, f"the stream ended: {seen}"
                seen.append(line.decode().strip())
    except TimeoutError:
        raise AssertionError(f"no endpoint within 10 s: {seen}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    took = time.monotonic() - started
    assert any(line.lower().startswith("content-type: text/event-stream") for line in seen), seen
    assert took < 2, f"{took:.1f} s"
    return f"{took * 1000:.0f} ms to the endpoint, TLS and all"


@check("roo", "SSE and Streamable HTTP on /stream, SSE on /sse")
async def roo_transports(it):
    await by_http(f"{it.edge.base}/stream", it.edge)
    await by_sse(f"{it.edge.base}/stream", it.edge)
    await by_sse(f"{it.edge.base}/sse", it.edge)


@check("roo", "port 80: 301 for GET, 308 for POST, to the same path and query")
async def roo_redirect(it):
    plain = f"http://127.0.0.1:{it.redirect}"
    for options, status in (([], 301), (["--head"], 301), (["-X", "POST", "-d", BARE], 308)):
        answer = await curl(it.edge, "/stream?x=1&y=%2F", *options, base=plain)
        assert answer.status == status, answer
        assert answer.headers.get("location") == f"{it.edge.base}/stream?x=1&y=%2F", answer
    # A token that went over the wire in the clear must not be answered as if it had not.
    answer = await curl(it.edge, "/tools/list", token=it.edge.token, base=plain)
    assert answer.status == 301 and "echo" not in answer.body, answer
    # Followed by curl, the bare POST stays a POST with its body.
    answer = await curl(
        it.edge, "/stream", "--location-trusted", token=it.edge.token, body=BARE.encode(), base=plain
    )
    assert answer.status == 200, answer
    named(answer.is_json()["result"])


@check("roo", "port 80 leads nobody to another site")
async def roo_open_redirect(it):
    plain = f"http://127.0.0.1:{it.redirect}"
    for options in (["-H", "Host: evil.example"], ["-H", "Host: evil.example:80"], ["--http1.0", "-H", "Host:"]):
        answer = await curl(it.edge, "/stream", *options, base=plain)
        assert "evil" not in answer.headers.get("location", ""), f"{options}: {answer}"
        assert answer.status < 500, answer
    answer = await curl(it.edge, "//evil.example/", "--path-as-is", base=plain)
    location = answer.headers.get("location", "")
    assert location.startswith(f"{it.edge.base}/") or answer.status >= 400, answer


@check("roo", "HTTP/2, TLS 1.2 and 1.3, nosniff, 413 for 11 MB")
async def roo_nginx(it):
    for options in (["--tls-max", "1.2"], ["--tlsv1.3"]):
        answer = await curl(it.edge, "/tools/list", *options, token=it.edge.token)
        assert (answer.status, answer.version) == (200, "2"), answer
        assert answer.headers.get("x-content-type-options") == "nosniff", answer
    big = it.directory / "eleven.json"
    big.write_text('"' + "x" * (11 << 20) + '"')
    argv = ["--http1.1", "-H", f"Authorization: Bearer {it.edge.token}"]
    argv += ["-H", "Content-Type: application/json", "--data-binary", f"@{big}"]
    status, body = await literal(it.edge, *argv, f"{it.edge.base}/stream")
    assert status == 413, (status, body[:300])


# --- 4: a web service with MCP mounted into it ----------------------------------------------------


@row("oilfield")
async def oilfield(it):
    # The edge is up first, as after a reboot: it has to wait for its server, not to give up.
    await it.upstream("plain", name="oilfield", start=False)
    it.edge = await it.start_edge(
        *RAISED, *upstream(it.up.url), "--pass-open=/health", "--pass=/records/*",
        "--forward-header=X-User-Email", ready=False,
    )
    it.early = await asyncio.to_thread(it.edge.probe, "/livez"), await asyncio.to_thread(it.edge.probe, "/readyz")
    await asyncio.to_thread(it.up.start)
    started = time.monotonic()
    await asyncio.to_thread(it.edge.wait_ready)
    it.took = time.monotonic() - started


@check("oilfield", "started before its server: alive at once, ready when the server is")
async def oilfield_order(it):
    (live, body), (ready, _) = it.early
    assert (live, body) == (200, b""), it.early
    assert ready == 503, it.early
    return f"ready {it.took * 1000:.0f} ms after the server"


@check("oilfield", "GET /health: the server's own answer, without a token")
async def oilfield_health(it):
    answer = await curl(it.edge, "/health")
    assert answer.status == 200, answer
    wanted = {"status": "healthy", "database": "connected", "total_records": 4711}
    assert answer.is_json() == wanted, answer
    for path in ("/livez", "/readyz"):
        answer = await curl(it.edge, path)
        assert (answer.status, answer.body) == (200, ""), f"{path}: {answer}"


@check("oilfield", "GET /mcp/tools")
async def oilfield_tools(it):
    answer = await curl(it.edge, "/mcp/tools", token=it.edge.token)
    assert answer.status == 200, answer
    named(answer.is_json())
    challenged(await curl(it.edge, "/mcp/tools"), 401, None)


@check("oilfield", "POST /mcp/call-tool, and the headers that it may bring")
async def oilfield_call(it):
    user = ["-H", "X-User-Role: USER", "-H", "X-User-Email: ada@example.com", "-H", "X-User-ID: 7"]
    body = json.dumps({"name": "add", "arguments": {"a": 40, "b": 2}}).encode()
    answer = await curl(it.edge, "/mcp/call-tool", *user, token=it.edge.token, body=body)
    assert answer.status == 200, answer
    found = answer.is_json()
    assert found["content"][0]["text"] == "42" and "jsonrpc" not in found, found
    body = json.dumps({"name": "headers", "arguments": {}}).encode()
    answer = await curl(it.edge, "/mcp/call-tool", *user, token=it.edge.token, body=body)
    got = json.loads(answer.is_json()["content"][0]["text"])
    assert got.get("x-user-email") == "ada@example.com", got
    for name in ("x-user-role", "x-user-id", "authorization"):
        assert name not in got, f"{name} went on: {got}"
    body = json.dumps({"name": "no-such-tool", "arguments": {}}).encode()
    answer = await curl(it.edge, "/mcp/call-tool", token=it.edge.token, body=body)
    assert answer.status == 404 and answer.is_json(), answer
    body = json.dumps({"name": "add", "arguments": {"a": "two", "b": 4}}).encode()
    answer = await curl(it.edge, "/mcp/call-tool", token=it.edge.token, body=body)
    assert answer.judged_by_backend(), answer


@check("oilfield", "other pages of the server, behind the token and as they are")
async def oilfield_pass(it):
    challenged(await curl(it.edge, "/records/7"), 401, None)
    path = "/records/a%20b/%C3%BC?x=1&y=%2F&x=2"
    for method in ("GET", "PUT", "DELETE"):
        answer = await curl(it.edge, path, "-X", method, token=it.edge.token)
        assert answer.status == 200 and answer.headers.get("x-record") == "yes", answer
        found = answer.is_json()
        assert found["method"] == method, found
        assert f"{found['path']}?{found['query']}" == path, found
    sent = found["headers"]
    assert it.edge.token not in json.dumps(sent), "the edge's token went on"
    assert sent.get("x-real-ip") == "127.0.0.1", sent
    assert sent.get("x-forwarded-for") == "127.0.0.1", sent
    assert sent.get("x-forwarded-proto") == "https", sent
    assert sent.get("host"), sent
    answer = await curl(it.edge, "/records/none", "-X", "PATCH", token=it.edge.token)
    assert answer.status == 405, f"the server's own refusal: {answer}"


@check("oilfield", "a body of 3 MB up and one of 20 MB down")
async def oilfield_bodies(it):
    file = it.directory / "upload"
    file.write_bytes(os.urandom(3 << 20))
    token = f"Authorization: Bearer {it.edge.token}"
    for version in ("--http1.1", "--http2"):
        argv = [version, "-H", token, "-H", "Content-Type: application/octet-stream", "-H", "Expect:"]
        status, body = await literal(
            it.edge, *argv, "--data-binary", f"@{file}", f"{it.edge.base}/records/upload"
        )
        assert status == 201, (status, body)
        wanted = {"bytes": 3 << 20, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        assert json.loads(body) == wanted, body
        down = it.directory / "download"
        url = f"{it.edge.base}/records/download?pieces=320"
        status, _ = await literal(it.edge, version, "-H", token, "-o", str(down), url)
        assert (status, down.stat().st_size) == (200, 320 * 65536), (status, down.stat().st_size)


@check("oilfield", "what was not listed stays closed, however it is written")
async def oilfield_closed(it):
    for path in (
        "/secret", "/records/../secret", "/records/%2e%2e/secret", "/records/%2E%2E%2Fsecret",
        "/records/..%2fsecret", "/records/./../secret", "/records/..;/secret", "/health/../secret",
        "//secret", "/health/secret", "/records//../../secret", "/records\\..\\secret", "/recordsx",
    ):
        for token in (None, it.edge.token):
            answer = await curl(it.edge, path, "--path-as-is", token=token)
            assert "nobody may read" not in answer.body, f"{path}: {answer}"
            assert answer.status in (400, 401, 404) or (
                token and path.startswith("/records/") and answer.status == 200
            ), f"{path}: {answer}"


@check("oilfield", "forwarded headers are believed from a trusted proxy only")
async def oilfield_proxy(it):
    said = ["-H", "X-Forwarded-For: 203.0.113.9", "-H", "X-Forwarded-Proto: http", "-H", "X-Real-IP: 203.0.113.9"]
    options = [*RAISED, *upstream(it.up.url), "--pass=/records/*"]
    trusting = await it.start_edge(*options, "--trusted-proxy=127.0.0.0/8")
    for edge, address in ((it.edge, "127.0.0.1"), (trusting, "203.0.113.9")):
        answer = await curl(edge, "/records/1", *said, token=edge.token)
        assert answer.status == 200, answer
        sent = answer.is_json()["headers"]
        assert sent.get("x-real-ip") == address, f"{address}: {sent}"
        first = sent.get("x-forwarded-for", "").split(",")[0].strip()
        assert first == address, f"{address}: {sent}"


@check("oilfield", "LibreChat: streamable-http and sse")
async def librechat(it):
    await by_http(f"{it.edge.base}/mcp", it.edge)
    await by_sse(f"{it.edge.base}/sse", it.edge)


# --- 5: everything by environment -----------------------------------------------------------------


@row("api-auto-test")
async def api_auto_test(it):
    await it.upstream("sse", name="api-auto-test")
    variables = {
        "MCP_TRANSPORT": "sse", "MCP_HOST": "127.0.0.1", "MCP_PORT": "0", "MCP_SSE_PATH": "/mcp",
        "MCP_UPSTREAM": it.up.url,
    }
    it.edge = await it.start_edge(variables=variables)


@check("api-auto-test", "started by variables alone, with the default limits")
async def by_variables(it):
    assert it.edge.path == "/mcp", it.edge.path
    assert it.edge.argv == [str(it.edge.argv[0])], it.edge.argv


@check("api-auto-test", "Python sse_client on /mcp, with the token of MCP_AUTH_TOKEN")
async def variables_sse(it):
    await by_sse(f"{it.edge.base}/mcp", it.edge)
    challenged(await curl(it.edge, "/mcp"), 401, None)


async def main(options):
    planned = checks.plan(options.check)
    running, stopped = {}, []
    try:
        for name, function, (key,), timeout in planned:
            if key not in running:
                it = running[key] = Row(options.binary, options.directory / key)
                it.directory.mkdir(parents=True, exist_ok=True)
                it.problem = None
                try:
                    await asyncio.wait_for(rows[key](it), 60)
                    # httpx, and with it the Python SDK, looks for its CA here when it is made.
                    it.ca = str(it.edge.ca)
                except Exception as error:
                    it.problem = explain(error)
            it = running[key]
            if it.problem:
                report(name, False, 0, f"the row does not start: {it.problem}")
                continue
            os.environ["SSL_CERT_FILE"] = it.ca
            await run(name, function(it), timeout)
    finally:
        for it in running.values():
            stopped += await asyncio.to_thread(it.stop)
    report("SIGTERM: exit 0, nothing left", not stopped, 0, "\n".join(stopped))


if __name__ == "__main__":
    asyncio.run(main(parse_options(__doc__, "deployments")))
