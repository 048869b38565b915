"""Ten clients at work while their upstream is killed and comes back: nobody has to reconnect.

Usage: restart.py EDGE_BINARY [--kinds sse,http,json,stateless,ts,ts400] [--check PART] [--directory DIR]

Every client goes round four calls: two that are read-only, tools/list, and one that is unsafe and
leaves a line in a file when it runs. The upstream dies by SIGKILL and is started again on its port
about a second later, twice. One JSON line per check, as in steps.py. Runs in the pinned venv.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import anyio

import sdk1
import wire
from edge import RAISED, Edge, upstream
from session import Refused
from up_steps import announced
from upstream import KINDS, Upstream
from walk import explain, report, text_of
from wire import Connection, answer_to, encode, headers, request

CLIENTS = ["http", "http", "http", "sse", "sse", "sse", "bare", "bare", "bare", "bare"]
KILLS = 2
DOWN = 1
# From the death of the upstream to the error of an unsafe call that it had; promised are 250 ms.
IN_TIME = 1
# Until every client has been round again after the upstream is back.
RECOVER = 20
# What a call may take in all: it waits for the upstream, which is away for a second or two.
PATIENCE = 20
# Errors that the SDK made up because its session is over.
SESSION_OVER = ("Connection closed", "Session terminated")
CHECKS = [
    "no client had to reconnect or saw its session end",
    "every read-only call was answered with a result",
    "no unsafe call ran twice, and none failed without a JSON-RPC error",
    "an unsafe call in flight had its error in time",
    "calls and notifications go on afterwards",
    "SIGTERM: exit 0, nothing left",
]


class Bare:
    """A client without a session: every call is one POST on a connection of its own."""

    def __init__(self, edge, name):
        self.edge, self.name, self.number = edge, name, 0
        self.context = wire.trust(edge.ca)
        self.statuses = Counter()

    async def ask(self, method, params):
        self.number += 1
        message = request(f"{self.name}-{self.number}", method, params)
        connection = await Connection.open(self.edge.port, self.context)
        try:
            connection.send("POST", self.edge.path, headers(self.edge.token), encode(message))
            response = await connection.response()
            self.statuses[response.status] += 1
            answer, _ = await answer_to(response, message["id"])
        finally:
            connection.close()
        assert answer.get("id") == message["id"], f"{response.status} {answer} to {message}"
        if "error" in answer:
            raise Refused(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    async def call(self, name, arguments):
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    async def tools(self):
        return (await self.ask("tools/list", {}))["tools"]


class Crowd:
    def __init__(self, edge, up):
        self.edge, self.up = edge, up
        self.stop, self.calls = anyio.Event(), 0
        self.rounds = Counter()  # full rounds of each client, since the last kill
        self.problems = {check: [] for check in CHECKS}
        self.results, self.errors = set(), {}  # of unsafe calls, by key
        self.in_flight, self.waited = [], []
        self.under_way = {}  # unsafe calls: since when, by key
        self.statuses = Counter()

    def problem(self, number, text):
        self.problems[CHECKS[number]].append(text)

    async def client(self, kind, name):
        try:
            if kind == "bare":
                bare = Bare(self.edge, name)
                await self.work(bare, name)
                self.statuses += bare.statuses
                return
            path = "/sse" if kind == "sse" else self.edge.path
            cell = {"kind": kind, "url": self.edge.base + path, "token": self.edge.token}
            async with sdk1.connect(cell) as s:
                await self.work(s, name)
                try:
                    # Without sessions there is nobody to announce to.
                    if self.up.kind != "stateless":
                        await announced(s, f"to {name}")
                except Exception as error:
                    self.problem(4, f"{name}: {explain(error)}")
                if s.faults:
                    self.problem(0, f"{name}: the transport reported {s.faults}")
        except Exception as error:
            self.problem(0, f"{name}: {explain(error)}")

    async def work(self, s, name):
        number = 0
        while not self.stop.is_set():
            number += 1
            key = f"{name}-{number}"
            since = self.up.killed_at
            await self.read_only(s.call("count_safe", {"key": key, "seconds": 0.1}), f"counted {key}")
            await self.unsafe(s, key)
            await self.read_only(s.tools(), None)
            await self.read_only(s.call("add", {"a": number, "b": 1000}), f"{number + 1000}")
            if since == self.up.killed_at:
                self.rounds[name] += 1

    async def read_only(self, work, wanted):
        self.calls += 1
        began = time.monotonic()
        try:
            with anyio.fail_after(PATIENCE):
                got = await work
        except (Refused, TimeoutError) as error:
            self.over(error)
            self.problem(1, f"{wanted or 'tools/list'}: {error or 'no answer'}")
            # A client that is refused over and over must not fill the report.
            await anyio.sleep(0.2)
            return
        self.waited.append(time.monotonic() - began)
        if wanted and text_of(got) != wanted:
            self.problem(1, f"{got}, not {wanted}")

    def over(self, error):
        if any(text in str(error) for text in SESSION_OVER):
            self.problem(0, str(error))

    async def unsafe(self, s, key):
        self.calls += 1
        began = self.under_way[key] = time.monotonic()
        try:
            with anyio.fail_after(PATIENCE):
                got = await s.call("count_unsafe", {"key": key, "seconds": 0.2})
            self.results.add(key)
            if text_of(got) != f"counted {key}":
                self.problem(2, f"{key}: {got}")
        except Refused as refused:
            self.errors[key] = str(refused)
            died = self.up.killed_at
            if died and began < died:
                self.in_flight.append(time.monotonic() - died)
            self.over(refused)
            await anyio.sleep(0.05)
        except TimeoutError:
            self.problem(2, f"{key}: no answer within {PATIENCE} s")
        finally:
            del self.under_way[key]

    async def somebody_in_flight(self):
        """Waits until an unsafe call is in its midst: it has arrived, and takes a while yet."""
        deadline = time.monotonic() + RECOVER
        while not any(0.05 < time.monotonic() - began < 0.1 for began in self.under_way.values()):
            if time.monotonic() > deadline:
                return
            await anyio.sleep(0.005)

    async def everybody_round(self, at_least=1):
        """Waits until every client has been round since the last kill."""
        deadline = time.monotonic() + RECOVER
        while len([n for n in self.rounds.values() if n >= at_least]) < len(CLIENTS):
            if time.monotonic() > deadline:
                self.problem(4, f"full rounds within {RECOVER} s: {dict(self.rounds)}")
                return
            await anyio.sleep(0.05)

    async def kill_and_start(self):
        await self.somebody_in_flight()
        await asyncio.to_thread(self.up.kill)
        self.rounds.clear()
        await anyio.sleep(DOWN)
        await asyncio.to_thread(self.up.start)

    def count(self):
        ran = Counter(key for tool, key in self.up.ran() if tool == "unsafe")
        for key, times in ran.items():
            if times > 1:
                self.problem(2, f"{key} ran {times} times")
        for key in self.results - set(ran):
            self.problem(2, f"{key} was answered and never ran")


async def storm(edge, up):
    crowd = Crowd(edge, up)
    with anyio.move_on_after(100) as scope:
        async with anyio.create_task_group() as group:
            for number, kind in enumerate(CLIENTS):
                group.start_soon(crowd.client, kind, f"{kind}{number}")
            await crowd.everybody_round(2)
            for _ in range(KILLS):
                await crowd.kill_and_start()
                await crowd.everybody_round(2)
            crowd.stop.set()
    if scope.cancelled_caught:
        crowd.problem(4, "not over in 100 s")
    crowd.count()
    slowest = max(crowd.in_flight, default=0)
    if not crowd.in_flight and not any(crowd.problems.values()):
        crowd.problem(3, "no unsafe call was in flight: nothing was tested")
    if slowest > IN_TIME:
        crowd.problem(3, f"the slowest after {slowest * 1000:.0f} ms")
    details = {
        CHECKS[1]: f"{crowd.calls} calls, the slowest read-only one {max(crowd.waited, default=0):.2f} s",
        CHECKS[2]: f"{len(crowd.results)} results, {len(crowd.errors)} errors: "
        f"{dict(Counter(crowd.errors.values()).most_common(3))}",
        CHECKS[3]: f"{len(crowd.in_flight)} in flight, the slowest error {slowest * 1000:.0f} ms "
        f"after the death",
        CHECKS[4]: f"status of the bare POSTs: {dict(crowd.statuses)}",
    }
    return crowd, details


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--kinds", default="sse,http", help="of the upstream, with commas")
    parser.add_argument("--check", default="", help="only kinds whose name contains this")
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="restart-"))
    directory.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in options.kinds.split(",") if kind in KINDS and options.check in kind]
    print(json.dumps({"plan": [f"{kind}: {check}" for kind in kinds for check in CHECKS]}), flush=True)
    for kind in kinds:
        up = edge = None
        started = time.monotonic()
        try:
            up = Upstream(kind, directory=directory, name=f"{kind}-upstream")
            options_ = [*RAISED, *upstream(up.url)]
            edge = Edge(options.binary, None, *options_, directory=directory, name=f"{kind}-edge")
            edge.wait_ready()
            os.environ["SSL_CERT_FILE"] = str(edge.ca)
            crowd, details = anyio.run(storm, edge, up)
            if problem := edge.stop():
                crowd.problems[CHECKS[5]].append(problem)
            for check, problems in crowd.problems.items():
                text = "\n".join([*problems[:8], *([f"… {len(problems)} in all"] if problems[8:] else [])])
                report(f"{kind}: {check}", not problems, time.monotonic() - started, text or details.get(check, ""))
        except Exception as error:
            for check in CHECKS:
                report(f"{kind}: {check}", False, time.monotonic() - started, explain(error))
        finally:
            if edge:
                edge.kill()
            if up:
                up.kill()


if __name__ == "__main__":
    main()
