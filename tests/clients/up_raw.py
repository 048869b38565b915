"""An edge in front of a fixture upstream, spoken to by curl without handshake and session.

The cell comes as JSON in CELL, with `base`, `ca` and `token` of the edge; checks go out as in steps.py.
"""

import asyncio
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

from checks import Checks, run
from raw import LIST, challenged, curl
from up_steps import NAMES
from wire import call, encode

cell = json.loads(os.environ["CELL"])
edge = SimpleNamespace(base=cell["base"], ca=cell["ca"], token=cell["token"])
PATH = cell["path"]
checks = Checks()
check = checks.check


async def bare(message, *options):
    answer = await curl(edge, PATH, *options, token=edge.token, body=encode(message))
    assert answer.status == 200, answer
    assert "mcp-session-id" not in answer.headers, "a bare POST must not open a session"
    found = answer.is_json()
    assert found["id"] == message["id"], found
    return found


async def text_of(message, *options):
    return (await bare(message, *options))["result"]["content"][0]["text"]


async def call_tool(body, *options, token=edge.token):
    return await curl(edge, f"{PATH}/call-tool", *options, token=token, body=encode(body))


@check("tools/list without Accept, over HTTP/2 and HTTP/1.1")
async def listing():
    for version, option in (("2", "--http2"), ("1.1", "--http1.1")):
        answer = await curl(edge, PATH, option, "-H", "Accept:", token=edge.token, body=LIST)
        assert (answer.status, answer.version) == (200, version), answer
        found = answer.is_json()
        assert found["id"] == 1 and found["result"]["tools"][0]["name"] == "echo", found


@check("tools/call, and twenty of them at once")
async def calls():
    assert await text_of(call("a", "add", {"a": 40, "b": 2}), "-H", "Accept:") == "42"

    async def one(number):
        got = await text_of(call(number, "add", {"a": number, "b": 1000}))
        assert got == f"{number + 1000}", f"{number}: {got}"

    await asyncio.gather(*(one(n) for n in range(20)))


@check("an unsafe call runs once")
async def once():
    key = f"once-{time.time_ns()}"
    assert await text_of(call(1, "count_unsafe", {"key": key})) == f"counted {key}"
    answer = await call_tool({"name": "count_unsafe", "arguments": {"key": f"{key}-rest"}})
    assert answer.status == 200, answer
    lines = Path(cell["upstream"]["counts"]).read_text().splitlines()
    ran = [line for line in lines if key in line]
    assert ran == [f"unsafe {key}", f"unsafe {key}-rest"], ran


@check("a tool that asks a bare caller gets no answer, and the caller an end")
async def asks():
    started = time.monotonic()
    found = await bare(call(5, "ask", {"how": "elicit"}))
    took = time.monotonic() - started
    assert "error" in found or found["result"].get("isError"), found
    assert took < 5, f"{took:.1f} s"
    return f"{took * 1000:.0f} ms"


@check("GET tools and /tools/list: every page")
async def tools():
    for path in (f"{PATH}/tools", "/tools/list"):
        answer = await curl(edge, path, token=edge.token)
        assert answer.status == 200, answer
        found = answer.is_json()
        assert list(found) == ["tools"], found
        assert [t["name"] for t in found["tools"]] == NAMES, found
        assert "a" in found["tools"][1]["inputSchema"]["properties"], found["tools"][1]


@check("POST call-tool: the result")
async def result():
    answer = await call_tool({"name": "add", "arguments": {"a": 40, "b": 2}})
    assert answer.status == 200, answer
    found = answer.is_json()
    assert found["content"] == [{"type": "text", "text": "42"}] and "jsonrpc" not in found, found
    answer = await call_tool({"name": "headers"})
    assert answer.status == 200 and edge.token not in answer.body, answer


@check("POST call-tool: 404 unknown tool, the server's word on bad arguments, 400 bad body")
async def refusals():
    cases = [
        ({"name": "no-such-tool", "arguments": {}}, 404),
        ({"name": 7, "arguments": {}}, 400),
        ({"arguments": {}}, 400),
        ([], 400),
    ]
    wrong = []
    for body, status in cases:
        answer = await call_tool(body)
        if answer.status != status or not isinstance(answer.is_json(), dict):
            wrong.append(f"{body}: {answer}, not {status}")
    for arguments in ({"a": "two", "b": 4}, {"a": 2}, {}):
        answer = await call_tool({"name": "add", "arguments": arguments})
        if not answer.judged_by_backend():
            wrong.append(f"{arguments}: {answer}")
    answer = await curl(edge, f"{PATH}/call-tool", token=edge.token, body=b"{")
    if answer.status != 400:
        wrong.append(f"half an object: {answer}")
    assert not wrong, "\n".join(wrong)


@check("405 with Allow for another method")
async def methods():
    for path, method in ((f"{PATH}/tools", "DELETE"), ("/tools/list", "PUT"), (f"{PATH}/call-tool", "GET")):
        answer = await curl(edge, path, "-X", method, token=edge.token)
        assert answer.status == 405 and answer.headers.get("allow"), f"{path}: {answer}"


@check("401 without a token for all of them")
async def unauthorized():
    for path in (f"{PATH}/tools", "/tools/list"):
        challenged(await curl(edge, path), 401, None)
    challenged(await call_tool({"name": "echo", "arguments": {"text": "x"}}, "--http1.1", token=None), 401, None)


@check("/livez and /readyz: open and empty")
async def probes():
    for path in ("/livez", "/readyz"):
        answer = await curl(edge, path)
        assert (answer.status, answer.body) == (200, ""), answer


async def main():
    for name, function, arguments, timeout in checks.plan(cell["only"]):
        await run(name, function(*arguments), timeout)


if __name__ == "__main__":
    asyncio.run(main())
