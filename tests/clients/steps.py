"""Walks one cell of the matrix with a Python SDK: a session against server-everything.

The cell comes as JSON in CELL. Every check is one JSON line on stdout, after a first line that
names them all, so that the suite can tell a check which never ran.
"""

import base64
import gzip
import importlib
import json
import os
import re
import time

import anyio

from forwarder import forwarder
from session import Refused
from walk import ODD_TEXT, Progress, answer, equal, registrar, shorten, start, text_of, walk

STATIC = "demo://resource/static/document/features.md"
TEXT = "demo://resource/dynamic/text/"
LEGACY = "2025-11-25"

steps = []
step = registrar(steps)


def over_http(cell):
    # The reference server's own HTTP transport resumes streams wrongly: it is no measure.
    return cell["kind"] == "http" and cell["edge"]


def on_network(cell):
    return cell["kind"] != "stdio"


def behind_edge(cell):
    return cell["edge"]


# What a server answers alike at any time, over any transport.
FAITHFUL = {
    "echo": lambda s: s.call("echo", {"message": "hello"}),
    "echo without its argument": lambda s: s.call("echo", {}),
    "get-sum": lambda s: s.call("get-sum", {"a": 2.5, "b": -4}),
    "get-sum of words": lambda s: s.call("get-sum", {"a": "two", "b": "four"}),
    "an unknown tool": lambda s: s.call("no-such-tool", {}),
    "get-tiny-image": lambda s: s.call("get-tiny-image"),
    "get-structured-content": lambda s: s.call("get-structured-content", {"location": "Chicago"}),
    "get-annotated-message": lambda s: s.call(
        "get-annotated-message", {"messageType": "error", "includeImage": True}
    ),
    "a task tool called plainly": lambda s: s.call("simulate-research-query", {"topic": "tea"}),
    "simple-prompt": lambda s: s.prompt("simple-prompt"),
    "args-prompt": lambda s: s.prompt("args-prompt", {"city": "Oslo", "state": "none"}),
    "args-prompt without its argument": lambda s: s.prompt("args-prompt", {}),
    "an unknown prompt": lambda s: s.prompt("no-such-prompt"),
    "a static resource": lambda s: s.read(STATIC),
    "an unknown resource": lambda s: s.read("demo://resource/none"),
    "a completion": lambda s: s.complete_prompt("completable-prompt", "department", "S"),
    "prompts": lambda s: s.prompts(),
    "resources": lambda s: s.resources(),
    "templates": lambda s: s.templates(),
}


@step("initialize")
async def initialize(s, cell, wanted):
    equal(s.init["protocolVersion"], LEGACY, "protocol version")
    equal(s.init, wanted["initialize"], "initialize result against stdio")


@step("tools/list: all of them, as over stdio")
async def tools(s, cell, wanted):
    got = await s.tools()
    equal([t["name"] for t in got], [t["name"] for t in wanted["tools"]], "names")
    equal(got, wanted["tools"], "definitions")


@step("same answers as over stdio")
async def faithful(s, cell, wanted):
    differing = []
    for name, call in FAITHFUL.items():
        got = await answer(s, call)
        if got != wanted[name]:
            differing.append(f"{name}: got {shorten(got)}, wanted {shorten(wanted[name])}")
    assert not differing, "\n".join(differing)


@step("echo of odd text")
async def odd(s, cell, wanted):
    equal(text_of(await s.call("echo", {"message": ODD_TEXT})), f"Echo: {ODD_TEXT}", "text")


@step("echo of 600 kB, 48 kB over HTTP/2")
async def large(s, cell, wanted):
    # httpcore 1.0 stalls when a body outgrows the HTTP/2 window while another stream is read.
    message = "0123456789abcdef" * (3000 if cell.get("h2") else 37500)
    got = text_of(await s.call("echo", {"message": message}))
    assert got == f"Echo: {message}", f"{len(got)} characters came back"


@step("twenty calls at once")
async def concurrent(s, cell, wanted):
    async def one(number):
        got = text_of(await s.call("get-sum", {"a": number, "b": 1000}))
        equal(got, f"The sum of {number} and 1000 is {number + 1000}.", "sum")

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)


@step("progress in order, before the result")
async def progress(s, cell, wanted):
    seen = Progress()
    arguments = {"duration": 1.5, "steps": 6}
    result = await s.call("trigger-long-running-operation", arguments, seen)
    equal(seen.seen, [(n, 6) for n in range(1, 7)], "progress when the result came")
    assert "Steps: 6" in text_of(result), result


@step("progress of two calls at once, each its own")
async def progress_apart(s, cell, wanted):
    seen = {3: Progress(), 5: Progress()}

    async def one(count):
        arguments = {"duration": 1.2, "steps": count}
        await s.call("trigger-long-running-operation", arguments, seen[count])

    async with anyio.create_task_group() as group:
        group.start_soon(one, 3)
        group.start_soon(one, 5)
    for count in seen:
        equal(seen[count].seen, [(n, count) for n in range(1, count + 1)], f"progress of {count}")


@step("sampling, answered")
async def sampling(s, cell, wanted):
    arguments = {"prompt": "why is the sky blue", "maxTokens": 77}
    result = text_of(await s.call("trigger-sampling-request", arguments))
    asked = await s.wait_asked("sampling/createMessage")
    equal(asked["maxTokens"], 77, "maxTokens")
    assert "answer to <Resource trigger-sampling-request context: why is" in result, result
    assert "test-model" in result, result


@step("sampling, refused by the client")
async def sampling_refused(s, cell, wanted):
    before, s.sample = s.sample, decline
    try:
        result = await s.call("trigger-sampling-request", {"prompt": "no", "maxTokens": 5})
    finally:
        s.sample = before
    assert result.get("isError") and "the user declined" in text_of(result), result


async def decline(_params):
    return None


@step("elicitation, accepted, declined and cancelled")
async def elicitation(s, cell, wanted):
    since = len(s.asked)
    s.elicit = ("accept", {"name": "Ada Lovelace", "integer": 7})
    accepted = await s.call("trigger-elicitation-request")
    assert "- Name: Ada Lovelace" in text_of(accepted, 1), accepted
    asked = await s.wait_asked("elicitation/create", since=since)
    assert "legacyTitledEnum" in asked["requestedSchema"]["properties"], asked
    for action, words in (("decline", "declined"), ("cancel", "cancelled")):
        s.elicit = (action, None)
        assert words in text_of(await s.call("trigger-elicitation-request")), action


@step("url elicitation, as request and as error -32042")
async def url_elicitation(s, cell, wanted):
    s.elicit = ("accept", None)
    arguments = {"url": "https://example.com/consent", "elicitationId": "e-1"}
    result = await s.call("trigger-url-elicitation", arguments)
    assert "Elicitation ID: e-1" in text_of(result), result
    try:
        result = await s.call("trigger-url-elicitation", {**arguments, "errorPath": True})
    except Refused as refused:
        equal(refused.code, -32042, "code")
        equal(refused.data["elicitations"][0]["mode"], "url", "data")
    else:
        raise AssertionError(f"no error: {result}")


@step("roots, and roots that change")
async def roots(s, cell, wanted):
    since = len(s.notes)
    result = text_of(await s.call("get-roots-list"))
    assert "file:///suite/one" in result and "file:///suite/two" in result, result
    assert any(method == "roots/list" for method, _ in s.asked), s.asked
    s.roots.append(("file:///suite/three", "Three"))
    await s.roots_changed()
    await s.wait_note(
        "notifications/message", lambda p: "Roots updated: 3" in str(p["data"]), since
    )
    result = text_of(await s.call("get-roots-list"))
    assert "file:///suite/three" in result, result


@step("prompts with arguments and with a resource")
async def prompts(s, cell, wanted):
    got = await s.prompt("completable-prompt", {"department": "Sales", "name": "Eve"})
    equal(
        got["messages"][0]["content"]["text"],
        "Please promote Eve to the head of the Sales team.",
        "text",
    )
    got = await s.prompt("resource-prompt", {"resourceType": "Text", "resourceId": "3"})
    equal(got["messages"][1]["content"]["resource"]["uri"], f"{TEXT}3", "resource")


@step("resources by template, text and binary")
async def templates(s, cell, wanted):
    got = (await s.read(f"{TEXT}42"))["contents"][0]
    assert got["text"].startswith("Resource 42: This is a plaintext"), got
    got = (await s.read("demo://resource/dynamic/blob/43"))["contents"][0]
    assert base64.b64decode(got["blob"]).startswith(b"Resource 43: This is a base64"), got


@step("a resource made in the session, and its list_changed")
async def session_resource(s, cell, wanted):
    since = len(s.notes)
    data = "data:text/plain;base64," + base64.b64encode(b"packed by the suite").decode()
    link = await s.call("gzip-file-as-resource", {"name": "suite.gz", "data": data})
    uri = link["content"][0]["uri"]
    await s.wait_note("notifications/resources/list_changed", since=since)
    assert uri in [r["uri"] for r in await s.resources()], "not listed"
    blob = (await s.read(uri))["contents"][0]["blob"]
    equal(gzip.decompress(base64.b64decode(blob)).decode(), "packed by the suite", "content")


@step("subscribe, updated, unsubscribe")
async def subscriptions(s, cell, wanted):
    since = len(s.notes)
    await s.subscribe(f"{TEXT}7")
    await s.call("toggle-subscriber-updates")
    try:
        await s.wait_note(
            "notifications/resources/updated", lambda p: p["uri"] == f"{TEXT}7", since
        )
    finally:
        await s.unsubscribe(f"{TEXT}7")
        await s.call("toggle-subscriber-updates")


@step("log messages, and only from the level asked for")
async def logging(s, cell, wanted):
    def about(number):
        return lambda p: p["level"] == "info" and f"{TEXT}{number}" in str(p["data"])

    since = len(s.notes)
    await s.set_level("error")
    await s.subscribe(f"{TEXT}101")
    await s.set_level("debug")
    await s.subscribe(f"{TEXT}102")
    await s.wait_note("notifications/message", about(102), since)
    quiet = [p for m, p in s.notes[since:] if m == "notifications/message" and about(101)(p)]
    equal(quiet, [], "info messages at level error")
    for number in (101, 102):
        await s.unsubscribe(f"{TEXT}{number}")


@step("completion of prompt and template arguments")
async def completion(s, cell, wanted):
    got = await s.complete_prompt("completable-prompt", "department", "E")
    equal(got["completion"]["values"], ["Engineering"], "department")
    got = await s.complete_prompt(
        "completable-prompt", "name", "A", {"department": "Engineering"}
    )
    equal(got["completion"]["values"], ["Alice"], "name, with context")
    got = await s.complete_resource(TEXT + "{resourceId}", "resourceId", "12")
    equal(got["completion"]["values"], ["12"], "resource id")


@step("ping")
async def ping(s, cell, wanted):
    equal(await s.ping(), {}, "answer")


@step("structured content")
async def structured(s, cell, wanted):
    got = await s.call("get-structured-content", {"location": "New York"})
    equal(
        got["structuredContent"],
        {"temperature": 33, "conditions": "Cloudy", "humidity": 82},
        "structuredContent",
    )


@step("a cancelled call leaves the session usable")
async def cancellation(s, cell, wanted):
    seen = Progress()
    arguments = {"duration": 3, "steps": 6}
    with anyio.fail_after(5):
        await s.call_and_cancel("trigger-long-running-operation", arguments, seen, seen.first)
    with anyio.fail_after(5):
        equal(text_of(await s.call("echo", {"message": "after"})), "Echo: after", "echo")
        equal(await s.ping(), {}, "ping")


@step("the child has the listed variables and no token", needs=behind_edge)
async def environment(s, cell, wanted):
    got = json.loads(text_of(await s.call("get-env")))
    secret = cell["secret"]
    assert secret not in json.dumps(got), "the token is in the child's environment"
    assert "MCP_AUTH_TOKEN" not in got, got["MCP_AUTH_TOKEN"]
    assert "SUITE_MARK" in got, f"--env did not reach the child: {sorted(got)}"
    assert "SUITE_UNLISTED" not in got, "a variable nobody listed reached the child"
    assert "PATH" in got, "no PATH"


@step("a task: created, polled, fetched", needs=lambda cell: cell["tasks"])
async def task(s, cell, wanted):
    created, states, result = await s.task("simulate-research-query", {"topic": "tea"})
    assert created["task"]["taskId"], created
    assert states[0] == "working" and states[-1] == "completed", states
    assert "tea" in text_of(result), result


@step("a second session sees nothing of the first", needs=on_network)
async def apart(s, cell, wanted):
    async with sdk.connect(cell) as other:
        await other.wait_asked("roots/list")
        await anyio.sleep(0.3)
        before = len(other.notes), len(other.asked)
        seen = Progress()
        await s.call("trigger-long-running-operation", {"duration": 0.6, "steps": 3}, seen)
        await s.call("trigger-sampling-request", {"prompt": "mine", "maxTokens": 5})
        await s.set_level("debug")
        await s.subscribe(f"{TEXT}103")
        await s.unsubscribe(f"{TEXT}103")
        await anyio.sleep(0.3)
        leaked = other.notes[before[0] :] + other.asked[before[1] :]
        equal(leaked, [], "what the idle session received")
        equal(text_of(await other.call("echo", {"message": "mine"})), "Echo: mine", "echo")


@step("a cut GET stream comes back and misses nothing", needs=over_http)
async def resumed_get(_s, cell, wanted):
    async with forwarder(port_of(cell["url"])) as carrier:
        url = cell["url"].replace(f":{port_of(cell['url'])}/", f":{carrier.port}/")
        async with sdk.connect(cell, url) as s:
            await s.wait_asked("roots/list")
            await s.subscribe(f"{TEXT}8")
            await s.call("toggle-subscriber-updates")
            began = time.monotonic()

            def updates():
                return sum(m == "notifications/resources/updated" for m, _ in s.notes)

            # The server notifies every five seconds: cut just before the second one, which then
            # happens while the client waits its second before it comes back.
            await s.wait_note("notifications/resources/updated")
            await anyio.sleep(began + 4.6 - time.monotonic())
            equal(updates(), 1, "updates before the cut")
            carried = carrier.accepted
            assert carrier.cut(), "nothing to cut"
            await anyio.sleep(began + 13 - time.monotonic())
            assert carrier.accepted > carried, "the client never came back"
            equal(updates(), 3, "updates after 13 s, the second one during the cut")
            equal(text_of(await s.call("echo", {"message": "still"})), "Echo: still", "echo")


@step("a call whose connection is cut still gets its result", needs=over_http)
async def resumed_call(_s, cell, wanted):
    async with forwarder(port_of(cell["url"])) as carrier:
        url = cell["url"].replace(f":{port_of(cell['url'])}/", f":{carrier.port}/")
        async with sdk.connect(cell, url) as s:
            await s.wait_asked("roots/list")
            seen, got = Progress(), []

            async def long_call():
                arguments = {"duration": 4, "steps": 8}
                got.append(await s.call("trigger-long-running-operation", arguments, seen))

            async with anyio.create_task_group() as group:
                group.start_soon(long_call)
                await seen.first.wait()
                assert carrier.cut(), "nothing to cut"
            assert "Steps: 8" in text_of(got[0]), got
            numbers = [n for n, _ in seen.seen]
            equal(numbers, sorted(set(numbers)), "progress, each once and in order")


@step("HTTP/2 was used throughout", needs=lambda cell: cell.get("h2", False))
async def http2(s, cell, wanted):
    equal(sorted(set(cell["versions"])), ["HTTP/2"], "versions of all answers")


def port_of(url):
    return int(re.search(r":(\d+)/", url).group(1))


async def reference(cell):
    """What the same SDK gets from the same server over stdio."""
    direct = {**cell, "kind": "stdio", "server": cell["reference"], "env": cell["mark"]}
    async with sdk.connect(direct) as s:
        wanted = {"initialize": s.init, "tools": await s.tools()}
        for name, call in FAITHFUL.items():
            wanted[name] = await answer(s, call)
        # The 1.x stdio client fails when it closes while the server still has something to say.
        await s.wait_note("notifications/message", lambda p: "Roots updated" in str(p["data"]))
        return wanted


if __name__ == "__main__":
    cell = json.loads(os.environ["CELL"])
    sdk = importlib.import_module(cell["sdk"])
    cell["tasks"] = sdk.HAS_TASKS
    if cell.get("h2"):
        cell["versions"] = []

        async def on_response(response):
            cell["versions"].append(response.http_version)

        cell["on_response"] = on_response

    async def main(planned):
        with anyio.fail_after(60):
            wanted = await reference(cell)
        await walk(sdk, cell, planned, wanted)

    anyio.run(main, start(steps, cell))
