"""The edge spoken to by curl and by bare bytes: status, headers and bodies of the answers.

Usage: raw.py EDGE_BINARY DIRECTORY [NAME_PART]. One JSON line per check, as in steps.py.
Standard library and the curl command only.
"""

import asyncio
import json
import os
import signal
import ssl
import sys
import tempfile
import time
import traceback

import wire
from edge import EVERYTHING, RAISED, Edge
from wire import Connection, answer_to, call, encode, headers, initialize, notification, request

ORIGIN = "https://app.example.com"
LIMITS = [*RAISED, f"--allow-origin={ORIGIN}"]
LONG = "trigger-long-running-operation"
LIST = encode(request(1, "tools/list"))
OAUTH = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/mcp",
    "/mcp/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/openid-configuration",
    "/mcp/.well-known/openid-configuration",
    "/register",
    "/authorize",
    "/token",
]

checks = []


def check(name, limits=LIMITS):
    def add(function):
        checks.append((name, function, limits))
        return function

    return add


class Answer:
    def __init__(self, status, version, headers, body):
        self.status, self.version, self.headers, self.body = status, version, headers, body

    def __repr__(self):
        return f"HTTP/{self.version} {self.status} {self.headers} {self.body[:600]!r}"

    def is_json(self):
        assert self.headers.get("content-type", "").startswith("application/json"), self
        return json.loads(self.body)

    def judged_by_backend(self):
        """Bad arguments of a plain call: the server says so as a tool's error, or as error -32602."""
        found = self.is_json()
        return self.status == 422 or (self.status == 200 and found.get("isError") is True)


async def curl(edge, path, *options, token=None, body=None, base=None, stdin=None):
    """One curl call that trusts the edge's CA; `-w` tells the version that was negotiated."""
    argv = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", str(edge.ca)]
    argv += ["--dump-header", "/dev/stderr", "--write-out", "\n%{http_version}"]
    if token:
        argv += ["-H", f"Authorization: Bearer {token}"]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "--data-binary", body.decode()]
    argv += [*options, (base or edge.base) + path]
    with open(stdin or os.devnull, "rb") as given:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    out, err = await asyncio.wait_for(process.communicate(), 25)
    blocks = [b for b in err.decode("latin-1").split("\r\n\r\n") if b.startswith("HTTP/")]
    assert process.returncode == 0 and blocks, f"curl {process.returncode}: {err!r}"
    status, *lines = blocks[-1].split("\r\n")
    found = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), value.strip())
    body, _, version = out.decode().rpartition("\n")
    return Answer(int(status.split()[1]), version, found, body)


async def refused(edge, path, *options, token=None):
    """A POST that is refused before its body is read; over HTTP/2 see early_answers."""
    return await curl(edge, path, "--http1.1", *options, token=token, body=LIST)


def names_tools(answer):
    assert answer.status == 200, answer
    found = answer.is_json()
    assert found["id"] == 1, found
    assert "echo" in [t["name"] for t in found["result"]["tools"]], answer
    assert "mcp-session-id" not in answer.headers, "a bare POST must not open a session"


def challenged(answer, status, error, body=True):
    assert answer.status == status, answer
    challenge = answer.headers.get("www-authenticate", "")
    assert challenge.startswith("Bearer "), answer
    assert (f'error="{error}"' in challenge) if error else ("error=" not in challenge), answer
    assert "resource_metadata" not in challenge, f"no OAuth here: {challenge}"
    if body:
        found = answer.is_json()
        assert "jsonrpc" not in found, f"era probes take JSON-RPC for an answer: {found}"


# --- curl -------------------------------------------------------------------------------------


@check("curl over HTTP/2: bare tools/list without Accept and session")
async def curl_h2(edge):
    answer = await curl(edge, "/mcp", "-H", "Accept:", token=edge.token, body=LIST)
    names_tools(answer)
    assert answer.version == "2", answer


@check("curl over HTTP/1.1: bare tools/list without Accept and session")
async def curl_h1(edge):
    answer = await curl(edge, "/mcp", "--http1.1", "-H", "Accept:", token=edge.token, body=LIST)
    names_tools(answer)
    assert answer.version == "1.1", answer


@check("curl: bare tools/list with Accept */*, a trailing slash, TLS 1.2")
async def curl_variants(edge):
    names_tools(await curl(edge, "/mcp", token=edge.token, body=LIST))
    names_tools(await curl(edge, "/mcp/", token=edge.token, body=LIST))
    names_tools(await curl(edge, "/mcp", "--tls-max", "1.2", token=edge.token, body=LIST))
    names_tools(await curl(edge, "/mcp", token=edge.token, body=LIST, base=edge.base.replace("127.0.0.1", "localhost")))


@check("curl: a bare tools/call")
async def curl_call(edge):
    body = encode(call(9, "get-sum", {"a": 40, "b": 2}))
    answer = await curl(edge, "/mcp", "-H", "Accept:", token=edge.token, body=body)
    assert answer.status == 200, answer
    found = answer.is_json()
    assert found["id"] == 9 and "is 42" in found["result"]["content"][0]["text"], found


@check("401: no token, wrong token, token in the query")
async def unauthorized(edge):
    challenged(await refused(edge, "/mcp"), 401, None)
    wrong = "x" * len(edge.token)
    challenged(await refused(edge, "/mcp", token=wrong), 401, "invalid_token")
    challenged(await refused(edge, "/mcp", token=edge.token[:-1]), 401, "invalid_token")
    for query in ("token", "access_token", "api_key"):
        challenged(await refused(edge, f"/mcp?{query}={edge.token}"), 401, None)


@check("curl over HTTP/2 sees every one of 40 refusals of a POST")
async def refusals_over_h2(edge):
    # An answer that comes with RST_STREAM before curl (7.88) has sent its body is lost to curl.
    lost = []
    for _ in range(40):
        try:
            challenged(await curl(edge, "/mcp", "--http2", token="x" * 40, body=LIST), 401, "invalid_token")
        except AssertionError as error:
            lost.append(str(error))
    assert not lost, f"{len(lost)} of 40 lost, as: {lost[0]}"


@check("curl over HTTP/2 and HTTP/1.1 gets every answer that comes before its upload is over")
async def early_answers(edge):
    # Debian 12's curl (7.88) loses an answer that RST_STREAM follows at once.
    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for name, size in {"much": 1_100_000, "too much": 10_600_000}.items():
            files[name] = os.path.join(directory, name)
            with open(files[name], "wb") as file:
                file.write(b"x" * size)
        json_type = ["-H", "Content-Type: application/json"]
        foreign = ["-H", "Origin: https://evil.example"]
        lost = []
        for version in ("--http2", "--http1.1"):
            for status, path, token, name, options in (
                (413, "/mcp", edge.token, "too much", json_type),
                (401, "/mcp", "x" * 40, "much", json_type),
                (401, "/mcp", "x" * 40, "too much", json_type),
                (403, "/mcp", edge.token, "much", [*json_type, *foreign]),
                (404, "/nowhere", edge.token, "much", json_type),
                (405, "/sse", edge.token, "much", json_type),
                (415, "/mcp", edge.token, "much", ["-H", "Content-Type: text/plain"]),
                (200, "/livez", edge.token, "much", ["-X", "GET"]),
            ):
                if (status, version) == (200, "--http2"):
                    # There this curl sends all of its body, and then waits for more than the end.
                    continue
                sent = ["--data-binary", f"@{files[name]}"]
                # As an upload whose length nobody knows.
                streamed = ["--upload-file", "-", "-X", "POST"]
                for how, stdin in ((sent, None), (streamed, files[name])):
                    if how is streamed and "GET" in options:
                        continue
                    try:
                        answer = await curl(
                            edge, path, version, *options, *how, token=token, stdin=stdin
                        )
                        assert answer.status == status, answer
                    except AssertionError as error:
                        lost.append(f"{version} {status} {name}: {error}")
        assert not lost, f"{len(lost)} lost, as: {lost[0]}"


@check("400: two Authorization headers, and one that is no Bearer token")
async def malformed_authorization(edge):
    twice = ["-H", f"Authorization: Bearer {edge.token}"] * 2
    challenged(await refused(edge, "/mcp", *twice), 400, "invalid_request")
    two_words = ["-H", f"Authorization: Bearer {edge.token} x"]
    challenged(await refused(edge, "/mcp", *two_words), 400, "invalid_request")


@check("401 comes before the method: HEAD, GET, DELETE, PUT, and on /sse")
async def auth_before_method(edge):
    for path in ("/mcp", "/sse"):
        challenged(await curl(edge, path, "--head"), 401, None, body=False)
        challenged(await curl(edge, path, "--head", "--http1.1"), 401, None, body=False)
        for method in ("GET", "DELETE", "PUT", "PATCH"):
            challenged(await curl(edge, path, "-X", method), 401, None)


@check("405 with Allow for HEAD, PUT and for POST on /sse, with a token")
async def wrong_method(edge):
    for path, method in (("/mcp", "PUT"), ("/mcp", "PATCH"), ("/sse", "DELETE")):
        answer = await curl(edge, path, "-X", method, token=edge.token)
        assert answer.status == 405 and answer.headers.get("allow"), answer
        answer.is_json()
    answer = await refused(edge, "/sse", token=edge.token)
    assert answer.status == 405 and "GET" in answer.headers.get("allow", ""), answer
    answer.is_json()
    answer = await curl(edge, "/mcp", "--head", token=edge.token)
    assert answer.status in (200, 405), answer


@check("OAuth probes get a JSON 404 without a token")
async def oauth_probes(edge):
    for path in OAUTH:
        for options in ([], ["--http1.1", "-d", "{}"]):
            answer = await curl(edge, path, *options)
            assert answer.status == 404, f"{path} {options}: {answer}"
            assert answer.is_json().get("error"), answer
            assert "www-authenticate" not in answer.headers, f"{path}: {answer}"


@check("an unknown path is 401 without and JSON 404 with a token")
async def unknown_path(edge):
    answer = await curl(edge, "/nowhere", token=edge.token)
    assert answer.status == 404, answer
    answer.is_json()
    answer = await curl(edge, "/nowhere")
    assert answer.status in (401, 404), answer
    answer.is_json()


@check("CORS: preflight before authentication, for listed origins only")
async def cors(edge):
    asked = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST"]
    answer = await curl(edge, "/mcp", *asked, "-H", f"Origin: {ORIGIN}")
    assert answer.status in (200, 204), answer
    assert answer.headers.get("access-control-allow-origin") == ORIGIN, answer
    allowed = answer.headers.get("access-control-allow-headers", "").lower()
    for name in ("authorization", "content-type", "mcp-session-id", "mcp-protocol-version", "last-event-id"):
        assert name in allowed, answer
    assert "DELETE" in answer.headers.get("access-control-allow-methods", ""), answer
    answer = await curl(edge, "/mcp", *asked, "-H", "Origin: https://evil.example")
    assert "access-control-allow-origin" not in answer.headers, answer
    answer = await curl(edge, "/mcp", "-H", f"Origin: {ORIGIN}", token=edge.token, body=LIST)
    names_tools(answer)
    assert answer.headers.get("access-control-allow-origin") == ORIGIN, answer
    exposed = answer.headers.get("access-control-expose-headers", "").lower()
    for name in ("mcp-session-id", "www-authenticate", "retry-after"):
        assert name in exposed, answer


@check("403 for a foreign Origin, 403 or 421 for a foreign Host")
async def origin_and_host(edge):
    answer = await refused(edge, "/mcp", "-H", "Origin: https://evil.example", token=edge.token)
    assert answer.status == 403, answer
    answer.is_json()
    answer = await refused(edge, "/mcp", "-H", "Host: evil.example", token=edge.token)
    assert answer.status in (403, 421), answer
    answer.is_json()
    same = ["-H", f"Origin: {edge.base}"]
    names_tools(await curl(edge, "/mcp", *same, token=edge.token, body=LIST))


@check("plain HTTP on the TLS port: a readable 400 that says https")
async def plain_http(edge):
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(f"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:{edge.port}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert b"https" in answer.lower(), answer


@check("malformed input: its status and code, never a 5xx")
async def malformed(edge):
    deep = b"[" * 100000
    cases = [
        (b"{", 400, -32700),
        (b"", 400, -32700),
        (b"\xff\xfe", 400, -32700),
        (deep, 400, None),
        (b"[]", 400, -32600),
        (b"17", 400, -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1}', 400, -32600),
    ]
    wrong = []
    for body, status, code in cases:
        connection = await open_to(edge)
        connection.send("POST", "/mcp", headers(edge.token), body)
        response = await connection.response()
        answer = await response.body()
        try:
            got = json.loads(answer).get("error", {}).get("code")
        except ValueError:
            got = "not JSON"
        if response.status != status or (code is not None and got != code):
            wrong.append(f"{body[:60]!r}: {response.status} {answer[:200]!r}, not {status} {code}")
        connection.close()
    assert not wrong, "\n".join(wrong)


@check("415 for a body that is not application/json")
async def media_type(edge):
    options = ["--http1.1", "-H", "Content-Type: text/plain", "--data-binary", LIST.decode()]
    answer = await curl(edge, "/mcp", *options, token=edge.token)
    assert answer.status == 415, answer
    answer.is_json()


# --- sessions ---------------------------------------------------------------------------------


async def open_to(edge, source=None):
    return await Connection.open(edge.port, wire.trust(edge.ca), source)


async def post(edge, message, session=None):
    """The response to one POST on a connection of its own, with that connection."""
    connection = await open_to(edge)
    connection.send("POST", "/mcp", headers(edge.token, session), encode(message))
    return await connection.response(), connection


async def open_session(edge, version=wire.VERSION, capabilities=None):
    message = initialize(capabilities=capabilities)
    message["params"]["protocolVersion"] = version
    response, connection = await post(edge, message)
    answer, _ = await answer_to(response, 0)
    assert response.status == 200 and "result" in answer, (response.status, answer)
    session = response.headers["mcp-session-id"]
    connection.close()
    response, connection = await post(edge, notification("notifications/initialized"), session)
    body = await response.body()
    assert (response.status, body) == (202, b""), (response.status, body)
    connection.close()
    return session


async def ask(edge, message, session, timeout=30):
    response, connection = await post(edge, message, session)
    try:
        assert response.status == 200, (response.status, await response.body())
        return (await answer_to(response, message["id"], timeout))[0]
    finally:
        connection.close()


async def status_of(edge, message, session):
    response, connection = await post(edge, message, session)
    connection.close()
    return response.status


async def delete(edge, session):
    connection = await open_to(edge)
    connection.send("DELETE", "/mcp", headers(edge.token, session))
    response = await connection.response()
    await response.body()
    connection.close()
    return response.status


async def open_stream(edge, path="/mcp", session=None, last=None):
    connection = await open_to(edge)
    asked = headers(edge.token, session, accept="text/event-stream")
    if last is not None:
        asked["Last-Event-ID"] = last
    connection.send("GET", path, asked)
    return await connection.response(), connection


async def gone(edge, children, timeout=10):
    deadline = time.monotonic() + timeout
    while (left := children & set(edge.children())) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert not left, f"still there after {timeout} s: {left}"


@check("a session id is 256 bits of visible ASCII and never the same")
async def session_ids(edge):
    ids = {await open_session(edge) for _ in range(3)}
    assert len(ids) == 3, ids
    for found in ids:
        assert len(found) >= 43 and all(0x21 <= ord(c) <= 0x7E for c in found), found
        await delete(edge, found)


@check("DELETE ends the session and its child; then all is 404")
async def deletion(edge):
    before = set(edge.children())
    session = await open_session(edge)
    await ask(edge, request(1, "ping"), session)
    await ask(edge, request(2, "tools/list"), session)
    own = set(edge.children()) - before
    assert own, "no child for the session"
    assert await delete(edge, session) in (200, 204), "the SDKs take 200 and 204 only"
    await gone(edge, own)
    assert await status_of(edge, request(3, "tools/list"), session) == 404
    assert await delete(edge, session) == 404
    response, connection = await open_stream(edge, session=session)
    assert response.status == 404, response.status
    assert response.headers["content-type"].startswith("application/json"), response.headers
    connection.close()


@check("an id nobody issued is 404 with JSON, on POST, GET and DELETE")
async def unknown_session(edge):
    for session in ("nope", "A" * 43, "0" * 5000):
        response, connection = await post(edge, request(1, "tools/list"), session)
        body = await response.json()
        assert (response.status, body["error"]["code"]) in ((404, -32001), (404, -32600)), body
        connection.close()
        assert await delete(edge, session) == 404


@check("ids come back as they were sent: 0, text, large, negative")
async def request_ids(edge):
    session = await open_session(edge)
    for id in (0, "", "abc", "0", 7, -3, 2**53 - 1, "\u2028"):
        answer = await ask(edge, call(id, "echo", {"message": "x"}), session)
        assert answer["id"] == id and type(answer["id"]) is type(id), (id, answer)
    await delete(edge, session)


@check("initialize: every legacy version is answered in kind, others with 2025-11-25")
async def versions(edge):
    for asked, wanted in {
        "2024-11-05": "2024-11-05",
        "2025-03-26": "2025-03-26",
        "2025-06-18": "2025-06-18",
        "2025-11-25": "2025-11-25",
        "2099-01-01": "2025-11-25",
    }.items():
        message = initialize()
        message["params"]["protocolVersion"] = asked
        response, connection = await post(edge, message)
        answer, _ = await answer_to(response, 0)
        got = answer.get("result", {}).get("protocolVersion")
        assert got == wanted, f"{asked}: {response.status} {answer}"
        connection.close()
        await delete(edge, response.headers["mcp-session-id"])


@check("a batch is answered in 2025-03-26 and refused in 2025-11-25")
async def batches(edge):
    batch = [call("a", "echo", {"message": "1"}), call("b", "echo", {"message": "2"})]
    session = await open_session(edge, "2025-03-26")
    connection = await open_to(edge)
    asked = {k: v for k, v in headers(edge.token, session).items() if k != "MCP-Protocol-Version"}
    connection.send("POST", "/mcp", asked, encode(batch))
    response = await connection.response()
    found = []
    if response.is_stream:
        async for event in response.events():
            message = json.loads(event["data"])
            found += message if isinstance(message, list) else [message]
    else:
        found = await response.json()
    assert sorted(m["id"] for m in found) == ["a", "b"], found
    connection.close()
    await delete(edge, session)
    session = await open_session(edge)
    response, connection = await post(edge, batch, session)
    answer = await response.json()
    assert (response.status, answer["error"]["code"]) == (400, -32600), answer
    connection.close()
    await delete(edge, session)


@check("a cancelled call: its stream ends and no answer comes")
async def cancelled(edge):
    session = await open_session(edge)
    response, connection = await post(edge, call(5, LONG, {"duration": 3, "steps": 6}, "p"), session)
    assert response.status == 200 and response.is_stream, response.headers
    got = []

    async def read():
        async for event in response.events():
            message = json.loads(event["data"])
            got.append(message)
            # Whatever else the server has to say at its start may come first.
            if [m.get("method") for m in got].count("notifications/progress") == 1 == (
                message.get("method") == "notifications/progress"
            ):
                note = notification("notifications/cancelled", {"requestId": 5, "reason": "enough"})
                assert await status_of(edge, note, session) == 202

    # A stream that outlives its call would hold one of the client's places until the call timeout.
    await asyncio.wait_for(read(), 8)
    answers = [m for m in got if m.get("id") == 5]
    assert not answers, f"a cancelled call wants no answer: {answers}"
    connection.close()
    await delete(edge, session)


@check("a child killed in mid-call: an error within a second, new sessions work")
async def killed_child(edge):
    before = set(edge.children())
    session = await open_session(edge)
    await ask(edge, request(1, "tools/list"), session)
    child = set(edge.children()) - before
    assert child, "no child of its own"
    response, connection = await post(edge, call(5, LONG, {"duration": 20, "steps": 40}, "p"), session)
    events = response.events()
    await asyncio.wait_for(anext(events), 10)
    for pid in child:
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    async def to_the_answer():
        async for event in events:
            message = json.loads(event["data"])
            if message.get("id") == 5:
                return message

    answer = await asyncio.wait_for(to_the_answer(), 5)
    took = time.monotonic() - started
    assert answer and "error" in answer, answer
    assert took < 1, f"{took:.2f} s"
    assert "9" in answer["error"]["message"] or "kill" in answer["error"]["message"].lower(), answer
    connection.close()
    fresh = await open_session(edge)
    answer = await ask(edge, call(1, "echo", {"message": "up"}), fresh)
    assert answer["result"]["content"][0]["text"] == "Echo: up", answer
    await delete(edge, fresh)


@check("a GET stream: at once a byte, and a second one replaces it")
async def get_streams(edge):
    session = await open_session(edge, capabilities={"roots": {"listChanged": True}})
    response, connection = await open_stream(edge, session=session)
    assert response.status == 200 and response.is_stream, response.headers
    assert "no-cache" in response.headers.get("cache-control", ""), response.headers
    assert response.headers.get("x-accel-buffering") == "no", response.headers
    first = response.chunks()
    await asyncio.wait_for(anext(first), 2)
    again, second = await open_stream(edge, session=session)
    assert again.status == 200 and again.is_stream, again.status

    async def drained():
        async for _ in first:
            pass

    await asyncio.wait_for(drained(), 5)
    # Roots that change make the server ask for them: no call is under way, so by the new stream.
    changed = notification("notifications/roots/list_changed")
    assert await status_of(edge, changed, session) == 202

    async def asked():
        async for event in again.events():
            if json.loads(event["data"]).get("method") == "roots/list":
                return

    await asyncio.wait_for(asked(), 5)
    for connection in (connection, second):
        connection.close()
    await delete(edge, session)


@check("2024-11-05: /sse and GET on the unified path name a relative endpoint")
async def sse_endpoint(edge):
    for path in ("/sse", "/sse/", "/mcp"):
        response, connection = await open_stream(edge, path)
        assert response.status == 200 and response.is_stream, (path, response.status)
        event = await asyncio.wait_for(anext(response.events()), 10)
        assert event["event"] == "endpoint", event
        assert event["data"].startswith("/"), f"not relative: {event['data']}"
        posting = await open_to(edge)
        posting.send("POST", event["data"], headers(edge.token), b"{")
        answer = await posting.response()
        assert answer.status == 400, (path, answer.status)
        await answer.body()
        posting.close()
        connection.close()
    posting = await open_to(edge)
    unknown = event["data"].split("=")[0] + "=" + "A" * 43
    posting.send("POST", unknown, headers(edge.token), LIST)
    answer = await posting.response()
    assert answer.status == 404, answer.status
    posting.close()


@check("an SSE client that hangs up takes its child with it")
async def sse_hangup(edge):
    before = set(edge.children())
    response, connection = await open_stream(edge, "/sse")
    events = response.events()
    endpoint = (await asyncio.wait_for(anext(events), 10))["data"]
    posting = await open_to(edge)
    posting.send("POST", endpoint, headers(edge.token), encode(initialize()))
    answer = await posting.response()
    assert answer.status == 202, answer.status
    await asyncio.wait_for(anext(events), 15)
    own = set(edge.children()) - before
    assert own, "no child"
    connection.reset()
    await gone(edge, own)
    posting.close()


# --- the limits as they are by default --------------------------------------------------------


@check("60 requests at once: 20 or 21 pass, the rest are 429; a neighbour notices nothing", limits=[])
async def rate(edge):
    body = encode(request(1, "ping"))
    # Whatever has to be warm to answer at once is warmed from an address of its own.
    assert await ping_from(edge, "127.0.0.3", body) == 200
    connections = [await open_to(edge) for _ in range(12)]

    async def five(connection):
        found = []
        for _ in range(5):
            connection.send("POST", "/mcp", headers(edge.token), body)
            response = await connection.response()
            found.append((response.status, response.headers, await response.body()))
        return found

    started = time.monotonic()
    groups = asyncio.gather(*map(five, connections))
    neighbour = await ping_from(edge, "127.0.0.2", body)
    answers = [answer for group in await groups for answer in group]
    took = time.monotonic() - started
    passed = [a for a in answers if a[0] == 200]
    refused = [a for a in answers if a[0] == 429]
    assert len(passed) + len(refused) == 60, sorted({a[0] for a in answers})
    assert took < 3, f"the 60 took {took:.2f} s, which says nothing"
    assert 20 <= len(passed) <= 21 + int(took * 10), f"{len(passed)} passed in {took:.3f} s"
    for _, found, text in refused:
        assert int(found["retry-after"]) >= 1, found
        assert json.loads(text)["error"], text
    assert neighbour == 200, f"the neighbour got {neighbour}"
    for connection in connections:
        connection.close()


async def ping_from(edge, source, body):
    connection = await open_to(edge, source)
    connection.send("POST", "/mcp", headers(edge.token), body)
    response = await connection.response()
    await response.body()
    connection.close()
    return response.status


@check("the 21st connection is refused before TLS; a neighbour connects", limits=[])
async def connections(edge):
    held = [await open_to(edge) for _ in range(20)]
    started = time.monotonic()
    try:
        extra = await open_to(edge)
    except (ssl.SSLError, OSError, EOFError, asyncio.IncompleteReadError):
        pass
    else:
        extra.close()
        raise AssertionError("the 21st connection was served")
    assert time.monotonic() - started < 2, "refused, but late"
    assert await ping_from(edge, "127.0.0.2", encode(request(1, "ping"))) == 200
    held.pop().close()
    await asyncio.sleep(0.5)
    again = await open_to(edge)
    for connection in [*held, again]:
        connection.close()


async def main(binary, directory, only):
    planned = [c for c in checks if only in c[0]]
    print(json.dumps({"plan": [c[0] for c in planned] + ["SIGTERM: exit 0, nothing left"]}), flush=True)
    edges, stopped = {}, []
    try:
        for name, function, limits in planned:
            # What tests the default limits gets an edge of its own, where nothing was used up.
            key = "raised" if limits else name
            started, error = time.monotonic(), ""
            try:
                if key not in edges:
                    log = f"edge-{len(edges)}"
                    edges[key] = await asyncio.to_thread(
                        Edge, binary, EVERYTHING, *limits, directory=directory, name=log
                    )
                await asyncio.wait_for(function(edges[key]), 60)
            except Exception as failure:
                error = explain(failure)
            report(name, error, time.monotonic() - started)
    finally:
        for key, edge in edges.items():
            if problem := await asyncio.to_thread(edge.stop):
                stopped.append(f"{key}: {problem}")
    report("SIGTERM: exit 0, nothing left", "\n".join(stopped), 0)


def report(name, error, seconds):
    line = {"check": name, "ok": not error, "seconds": round(seconds, 2), "detail": error}
    print(json.dumps(line), flush=True)


def explain(error):
    if isinstance(error, AssertionError) and error.args:
        return str(error)
    places = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(places[-4:]))
    return f"{type(error).__name__}: {error} ({where})"


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
