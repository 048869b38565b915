"""An upstream that does everything wrong: what the caller of the edge gets, and when.

Usage: faults.py EDGE_BINARY [--check PART] [--directory DIR]. One JSON line per check, as in
steps.py, with the time from the fault to the answer. Runs in the pinned venv.

Whatever the upstream does, a caller gets a JSON-RPC error with its own id, an unsafe call is never
repeated, /livez answers, and the next call is served as if nothing had been.
"""

import asyncio
import time

import wire
from checks import Checks, parse_options, run
from edge import RAISED, Edge, upstream
from upstream import free_port
from upstreams.faulty import Faulty
from walk import explain, report
from wire import Connection, answer_to, call, encode, headers, initialize, notification

LIMITS = [
    *RAISED, "--call-timeout=1500ms", "--upstream-wait=1s", "--upstream-connect-timeout=500ms",
    "--upstream-head-timeout=1s",
]
# From the fault to the answer. What is promised is far less; the time that is printed counts.
IN_TIME = 2
# Where the edge may wait a second for the upstream and a second for its head before.
PATIENT = 4
# Until a call is served again after the fault.
RECOVER = 5
# What an edge may read of a head before it gives up.
ENOUGH = 8 * 1024 * 1024

CALLED = {
    "streamable": [
        "refuse", "reset", "hang", "die", "end", "short", "rubbish", "HTML 500", "wrong id", "202",
        "endless", "redirect", "401", "gzip",
    ],
    "sse": [
        "refuse", "reset", "hang", "die", "end", "rubbish", "HTML 500", "wrong id", "endless",
        "redirect", "401",
    ],
}
OPENED = {
    "streamable": [
        "refuse", "reset", "hang", "die", "rubbish", "HTML 500", "wrong id", "202", "endless",
        "redirect", "401", "gzip",
    ],
    "sse": [
        "refuse", "reset", "hang", "silent", "foreign", "rubbish", "HTML 500", "endless", "redirect",
        "401", "gzip",
    ],
}
# On the one stream of SSE an answer that nobody waits for is skipped, and the right one counts.
RIGHT_AFTER_ALL = {("sse", "rubbish"), ("sse", "wrong id")}
# Undoing what was not asked for is as good as refusing it, and so is keeping to one's own upstream.
RIGHT_OR_REFUSED = {("streamable", "gzip"), ("sse", "foreign")}
RESULT = "as it should be"

checks = Checks()


class Rig:
    """One edge, one faulty upstream, and a session that lives through all of its faults."""

    def __init__(self, kind):
        self.kind, self.number, self.session = kind, 0, None
        self.faulty = Faulty(kind, free_port())

    async def start(self, binary, directory):
        await self.faulty.start()
        options = [*LIMITS, *upstream(self.faulty.url, self.kind)]
        self.edge = await asyncio.to_thread(
            Edge, binary, None, *options, directory=directory, name=f"{self.kind}-edge"
        )
        self.context = wire.trust(self.edge.ca)
        await asyncio.to_thread(self.edge.wait_ready)

    async def post(self, message, session=None, path="/mcp"):
        """Status, headers and body of a POST, or the answer to its message, and when it came."""
        connection = await Connection.open(self.edge.port, self.context)
        try:
            connection.send("POST", path, headers(self.edge.token, session), encode(message))
            response = await connection.response()
            if response.status == 202:
                return response, None, time.monotonic()
            if "jsonrpc" not in message:
                return response, await response.json(), time.monotonic()
            answer, _ = await answer_to(response, message["id"])
            return response, answer, time.monotonic()
        finally:
            connection.close()

    async def open_session(self):
        response, answer, _ = await self.post(initialize())
        assert response.status == 200 and "result" in answer, (response.status, answer)
        session = response.headers["mcp-session-id"]
        await self.post(notification("notifications/initialized"), session)
        return session

    async def lasting_session(self):
        """The session that lived through the check before; a check that fails does not give it back."""
        session, self.session = self.session, None
        return session or await self.open_session()

    def next_key(self):
        self.number += 1
        return f"key-{self.number}"

    async def still_well(self, session):
        """The edge lives, and both the session and a bare caller are served again."""
        started = time.monotonic()
        assert await asyncio.to_thread(self.edge.probe, "/livez") == (200, b""), "/livez"
        assert time.monotonic() - started < 1, "/livez is late"
        for id, at in (("well", session), ("well-bare", None)):
            deadline = time.monotonic() + RECOVER
            while True:
                _, answer, _ = await self.post(call(id, "echo", {}), at)
                if RESULT in str(answer.get("result")):
                    break
                assert time.monotonic() < deadline, f"after {RECOVER} s, {id}: {answer}"
                await asyncio.sleep(0.05)


def refused(answer, id, what):
    assert isinstance(answer, dict) and "error" in answer, f"{what}: no JSON-RPC error: {answer}"
    assert answer.get("id") == id and type(answer["id"]) is type(id), f"{what}: the id of {answer}"
    assert isinstance(answer["error"].get("code"), int) and answer["error"].get("message"), answer


def judge(rig, mode, answer, id, what):
    if (rig.kind, mode) in RIGHT_AFTER_ALL or (
        (rig.kind, mode) in RIGHT_OR_REFUSED and "result" in answer
    ):
        assert answer.get("id") == id and RESULT in str(answer.get("result")), f"{what}: {answer}"
    else:
        refused(answer, id, what)


async def spoiled(rig, mode, body, session=None, path="/mcp"):
    """Posts what calls the faulty tool; status, answer, and the time since the fault."""
    if mode == "refuse":
        rig.faulty.refuse()
    try:
        response, answer, at = await rig.post(body, session, path)
    finally:
        if mode == "refuse":
            await rig.faulty.start()
    # A client would take the upstream's refusal for one of its own token.
    assert response.status != 401, answer
    took = at - rig.faulty.faulted_at
    assert took < IN_TIME, f"{took:.2f} s after the fault: {answer}"
    return response.status, answer, took


async def called(rig, mode):
    """A call that the upstream spoils, from a session and from nobody in particular."""
    lasting = await rig.lasting_session()
    found = []
    for what, id, session in (("session", "call-7", lasting), ("bare", 8, None)):
        key = rig.next_key()
        body = call(id, "faulty", {"mode": mode, "key": key})
        status, answer, took = await spoiled(rig, mode, body, session)
        found.append(f"{what} {status} {took * 1000:.0f} ms")
        judge(rig, mode, answer, id, what)
        # The Python SDK 1.x takes the status 500 of a call for the end of its session.
        assert session is None or status < 400, f"{what}: status {status}"
        assert rig.faulty.seen[key] <= 1, f"{what}: the unsafe call was made again"
        await rig.still_well(lasting)
    nobody_led_astray(rig)
    rig.session = lasting
    return ", ".join(found)


async def called_plainly(rig, mode):
    """The same through POST call-tool, which speaks in statuses."""
    lasting = await rig.lasting_session()
    key = rig.next_key()
    body = {"name": "faulty", "arguments": {"mode": mode, "key": key}}
    status, answer, took = await spoiled(rig, mode, body, path="/mcp/call-tool")
    assert isinstance(answer, dict) and "jsonrpc" not in answer, answer
    if status == 200:
        assert (rig.kind, mode) in RIGHT_AFTER_ALL | RIGHT_OR_REFUSED, answer
        assert RESULT in str(answer), answer
    else:
        assert (rig.kind, mode) not in RIGHT_AFTER_ALL, (status, answer)
        assert status in (502, 504), (status, answer)
    assert rig.faulty.seen[key] <= 1, "the unsafe call was made again"
    await rig.still_well(lasting)
    nobody_led_astray(rig)
    rig.session = lasting
    return f"{status} {took * 1000:.0f} ms"


async def opened(rig, mode):
    """A session that cannot be opened, because the upstream spoils whatever opens one."""
    if mode == "refuse":
        rig.faulty.refuse()
    else:
        rig.faulty.mode = mode
    sent = time.monotonic()
    try:
        response, answer, at = await rig.post(initialize(id="open-1"))
    finally:
        rig.faulty.mode = None
        if mode == "refuse":
            await rig.faulty.start()
    assert rig.faulty.faulted_at, "the fault never happened"
    took = at - sent
    judge_open(rig, mode, answer)
    assert response.status != 401, "a client would take it for its own token"
    assert took < PATIENT, f"{took:.2f} s"
    session = await rig.open_session()
    await rig.still_well(session)
    nobody_led_astray(rig)
    return f"{response.status} after {took * 1000:.0f} ms"


def judge_open(rig, mode, answer):
    if (rig.kind, mode) in RIGHT_OR_REFUSED and "result" in answer:
        assert answer.get("id") == "open-1", answer
    else:
        refused(answer, "open-1", "initialize")


def nobody_led_astray(rig):
    assert not rig.faulty.elsewhere, "the edge went where the upstream sent it"
    assert rig.faulty.sent < ENOUGH, f"it read {rig.faulty.sent} bytes of a head"


async def repeated(rig):
    """A read-only call whose stream dies is made again, and the caller sees nothing of it.

    The last check, and nobody asks for the tools before: what is read-only the edge has to have
    found out by itself, even though the upstream was away when it looked first.
    """
    for what, session in (("session", await rig.lasting_session()), ("bare", None)):
        key = rig.next_key()
        _, answer, at = await rig.post(call(1, "once", {"key": key}), session)
        assert RESULT in str(answer.get("result")), f"{what}: {answer}"
        assert rig.faulty.seen[key] == 2, f"{what}: called {rig.faulty.seen[key]} times"
    return f"{(at - rig.faulty.faulted_at) * 1000:.0f} ms after the fault"


async def main(options):
    rigs = {kind: Rig(kind) for kind in CALLED}
    for kind, rig in rigs.items():
        for mode in CALLED[kind]:
            checks.check(f"{kind}: {mode}, in a call", rig, mode)(called)
        for mode in CALLED[kind]:
            checks.check(f"{kind}: {mode}, in call-tool", rig, mode)(called_plainly)
        for mode in OPENED[kind]:
            checks.check(f"{kind}: {mode}, at the start of a session", rig, mode)(opened)
        checks.check(f"{kind}: a read-only call is repeated", rig)(repeated)
    planned = checks.plan(options.check)
    ready, stopped = {}, []
    try:
        for name, function, arguments, timeout in planned:
            rig = arguments[0]
            if rig not in ready:
                try:
                    await rig.start(options.binary, options.directory)
                    ready[rig] = None
                except Exception as error:
                    ready[rig] = explain(error)
            if ready[rig]:
                report(name, False, 0, ready[rig])
                continue
            await run(name, function(*arguments), timeout)
    finally:
        for rig in rigs.values():
            if ready.get(rig, "never") is None and (problem := await asyncio.to_thread(rig.edge.stop)):
                stopped.append(problem)
            rig.faulty.stop()
    report("SIGTERM: exit 0, nothing left", not stopped, 0, "\n".join(stopped))


if __name__ == "__main__":
    asyncio.run(main(parse_options(__doc__, "faults")))
