"""Walks one cell with a Python SDK: a session with a fixture upstream of upstreams/.

The cell comes as JSON in CELL, the checks go out as in steps.py. What the same SDK gets from the
fixture without the edge is the measure.
"""

import importlib
import json
import os
import time

import anyio

from walk import ODD_TEXT, Progress, answer, equal, registrar, start, text_of, walk

MESSAGE = "notifications/message"
NAMES = [
    "echo", "add", "slow", "count_unsafe", "count_safe", "ask", "progress", "big", "log", "announce",
    "headers",
]

steps = []
step = registrar(steps)


def call_streams(cell):
    """Whether the upstream can say something on the stream of a call, before its result."""
    return cell["upstream"]["kind"] != "json"


def session_streams(cell):
    """Whether the upstream can say something on the stream of a session."""
    return cell["upstream"]["kind"] != "stateless"


def asks(cell):
    return call_streams(cell) and session_streams(cell)


# What the upstream answers alike at any time, over any transport.
FAITHFUL = {
    "echo": lambda s: s.call("echo", {"text": "hello"}),
    "echo without its argument": lambda s: s.call("echo", {}),
    "add": lambda s: s.call("add", {"a": 2, "b": -4}),
    "add of words": lambda s: s.call("add", {"a": "two", "b": "four"}),
    "an unknown tool": lambda s: s.call("no-such-tool", {}),
    "big": lambda s: s.call("big", {"bytes": 100}),
    "prompts": lambda s: s.prompts(),
    "an unknown prompt": lambda s: s.prompt("no-such-prompt"),
    "resources": lambda s: s.resources(),
}


@step("initialize")
async def initialize(s, cell, wanted):
    equal(s.init, wanted["initialize"], "initialize result against the upstream's own")


@step("tools/list: all of them, as from the upstream itself")
async def tools(s, cell, wanted):
    got = await s.tools()
    equal([t["name"] for t in got], NAMES, "names")
    equal(got, wanted["tools"], "definitions")


@step("same answers as from the upstream itself")
async def faithful(s, cell, wanted):
    for name, call in FAITHFUL.items():
        equal(await answer(s, call), wanted[name], name)


@step("echo of odd text")
async def odd(s, cell, wanted):
    equal(text_of(await s.call("echo", {"text": ODD_TEXT})), f"Echo: {ODD_TEXT}", "text")


@step("600 kB up, 2 MB down")
async def large(s, cell, wanted):
    text = "0123456789abcdef" * 37500
    got = text_of(await s.call("echo", {"text": text}))
    assert got == f"Echo: {text}", f"{len(got)} characters came back"
    got = text_of(await s.call("big", {"bytes": 2000000}))
    equal(len(got), 2000000, "characters")


@step("twenty calls at once, side by side")
async def concurrent(s, cell, wanted):
    async def one(number):
        equal(text_of(await s.call("add", {"a": number, "b": 1000})), f"{number + 1000}", "sum")
        await s.call("slow", {"seconds": 0.3})

    started = time.monotonic()
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)
    took = time.monotonic() - started
    assert took < 4, f"{took:.1f} s: one after the other is 6 s"


@step("an unsafe call runs once")
async def once(s, cell, wanted):
    key = f"once-{time.time_ns()}"
    equal(text_of(await s.call("count_unsafe", {"key": key})), f"counted {key}", "text")
    with open(cell["upstream"]["counts"]) as file:
        equal(file.read().splitlines().count(f"unsafe {key}"), 1, "runs")


@step("progress in order, before the result", needs=call_streams)
async def progress(s, cell, wanted):
    seen = {3: Progress(), 5: Progress()}

    async def one(count):
        await s.call("progress", {"steps": count}, seen[count])
        equal(seen[count].seen, [(n, count) for n in range(1, count + 1)], f"progress of {count}")

    async with anyio.create_task_group() as group:
        group.start_soon(one, 3)
        group.start_soon(one, 5)


@step("a log message of a call", needs=call_streams)
async def logging(s, cell, wanted):
    since = len(s.notes)
    await s.call("log", {"level": "error"})
    await s.wait_note(MESSAGE, lambda p: p == {"level": "error", "data": "logged at error"}, since)


async def announced(s, text):
    """Announces until it is heard: the stream of the session may open only now."""
    deadline = time.monotonic() + 10
    while True:
        since = len(s.notes)
        await s.call("announce", {"text": text})
        try:
            return await s.wait_note(MESSAGE, lambda p: p.get("data") == text, since, 0.5)
        except AssertionError:
            if time.monotonic() > deadline:
                raise


@step("a notification that belongs to no call", needs=session_streams)
async def notification(s, cell, wanted):
    await announced(s, "to whom it may concern")


@step("elicitation, accepted, declined and cancelled", needs=asks)
async def elicitation(s, cell, wanted):
    since = len(s.asked)
    s.elicit = ("accept", {"name": "Ada Lovelace"})
    equal(text_of(await s.call("ask", {"how": "elicit"})), "accept Ada Lovelace", "text")
    asked = await s.wait_asked("elicitation/create", since=since)
    assert "name" in asked["requestedSchema"]["properties"], asked
    for action in ("decline", "cancel"):
        s.elicit = (action, None)
        equal(text_of(await s.call("ask", {"how": "elicit"})), action, "text")


@step("sampling on the stream of the session", needs=session_streams)
async def sampling(s, cell, wanted):
    await announced(s, "before the sampling")
    got = text_of(await s.call("ask", {"how": "sample"}))
    equal(got, "test-model: answer to <who are you>", "text")
    equal((await s.wait_asked("sampling/createMessage"))["maxTokens"], 77, "maxTokens")


@step("ping")
async def ping(s, cell, wanted):
    equal(await s.ping(), {}, "answer")


@step("the upstream gets its own token and never the edge's")
async def headers(s, cell, wanted):
    got = json.loads(text_of(await s.call("headers")))
    token = cell["upstream"]["token"]
    equal(got.get("authorization"), f"Bearer {token}" if token else None, "Authorization")
    assert not cell["edge"] or cell["token"] not in json.dumps(got), "the edge's token went on"


@step("a cancelled call leaves the session usable", needs=call_streams)
async def cancellation(s, cell, wanted):
    seen = Progress()
    with anyio.fail_after(5):
        await s.call_and_cancel("progress", {"steps": 30}, seen, seen.first)
    with anyio.fail_after(5):
        equal(text_of(await s.call("echo", {"text": "after"})), "Echo: after", "echo")
        equal(await s.ping(), {}, "ping")


@step("a second session sees nothing of the first")
async def apart(s, cell, wanted):
    async with sdk.connect(cell) as other:
        if session_streams(cell):
            await announced(other, "mine")
            await announced(s, "heard by the first")
        before = len(other.notes), len(other.asked)
        await s.call("progress", {"steps": 3}, Progress())
        await s.call("log", {"level": "error"})
        if session_streams(cell):
            await announced(s, "not for the second")
            await s.call("ask", {"how": "sample"})
            # Its own stream delivers in order: what was meant for it before would be there.
            await announced(other, "mine again")
        leaked = [n for n in other.notes[before[0] :] if "mine" not in str(n)]
        equal(leaked + other.asked[before[1] :], [], "what the idle session received")
        equal(text_of(await other.call("echo", {"text": "mine"})), "Echo: mine", "echo")


async def reference(cell):
    """What the same SDK gets from the upstream without the edge."""
    upstream = cell["upstream"]
    kind = "sse" if upstream["speaks"] == "sse" else "http"
    direct = {**cell, "kind": kind, "url": upstream["url"], "token": upstream["token"]}
    async with sdk.connect(direct) as s:
        wanted = {"initialize": s.init, "tools": await s.tools()}
        for name, call in FAITHFUL.items():
            wanted[name] = await answer(s, call)
        return wanted


if __name__ == "__main__":
    cell = json.loads(os.environ["CELL"])
    sdk = importlib.import_module(cell["sdk"])

    async def main(planned):
        with anyio.fail_after(60):
            wanted = await reference(cell)
        await walk(sdk, cell, planned, wanted)

    anyio.run(main, start(steps, cell))
