"""The tools that every Python fixture offers, and what the tests ask of a fixture besides.

Two variables tell a fixture more: UPSTREAM_COUNTS is the file in which the counting tools leave a
line per run, and UPSTREAM_TOKEN, if it is there, is what every request has to bring.
"""

import asyncio
import json
import os
from collections import Counter

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent, ToolAnnotations
from pydantic import BaseModel

READ_ONLY = ToolAnnotations(readOnlyHint=True)
WATCH = "/_watch"


class Answer(BaseModel):
    name: str


def count(tool, key):
    """One line in one write: what ran is on disk even when the process is killed next."""
    file = os.open(os.environ["UPSTREAM_COUNTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{tool} {key}\n".encode())
    os.close(file)


def build(**settings):
    mcp = FastMCP("fixture", instructions="A server of the test suite.", log_level="ERROR", **settings)
    tasks = []

    @mcp.tool(annotations=READ_ONLY)
    def echo(text: str) -> str:
        return f"Echo: {text}"

    @mcp.tool(annotations=READ_ONLY)
    def add(a: int, b: int) -> int:
        return a + b

    @mcp.tool(annotations=READ_ONLY)
    async def slow(seconds: float) -> str:
        await anyio.sleep(seconds)
        return f"slept {seconds:g} s"

    @mcp.tool()
    async def count_unsafe(key: str, seconds: float = 0) -> str:
        """Leaves its mark first and takes its time then."""
        count("unsafe", key)
        await anyio.sleep(seconds)
        return f"counted {key}"

    @mcp.tool(annotations=READ_ONLY)
    async def count_safe(key: str, seconds: float = 0) -> str:
        count("safe", key)
        await anyio.sleep(seconds)
        return f"counted {key}"

    @mcp.tool()
    async def ask(ctx: Context, how: str = "elicit") -> str:
        """Elicits on the stream of the call, samples on the stream of the session."""
        if how == "elicit":
            found = await ctx.elicit("What is your name?", Answer)
            return found.action + (f" {found.data.name}" if found.action == "accept" else "")
        prompt = SamplingMessage(role="user", content=TextContent(type="text", text="who are you"))
        found = await ctx.session.create_message([prompt], max_tokens=77)
        return f"{found.model}: {found.content.text}"

    @mcp.tool(annotations=READ_ONLY)
    async def progress(ctx: Context, steps: int) -> str:
        for number in range(1, steps + 1):
            await anyio.sleep(0.1)
            await ctx.report_progress(number, steps)
        return f"{steps} steps"

    @mcp.tool(annotations=READ_ONLY)
    def big(bytes: int) -> list[TextContent]:
        return [TextContent(type="text", text="x" * bytes)]

    @mcp.tool()
    async def log(ctx: Context, level: str) -> str:
        """A log message on the stream of the call."""
        await ctx.log(level, f"logged at {level}")
        return "logged"

    @mcp.tool()
    async def announce(ctx: Context, text: str, after: float = 0) -> str:
        """A log message on the stream of the session; with `after` that long after the answer."""

        async def send():
            await anyio.sleep(after)
            await ctx.session.send_log_message("warning", text)

        if after:
            tasks.append(asyncio.create_task(send()))
        else:
            await send()
        return "announced"

    @mcp.tool(annotations=READ_ONLY)
    def headers(ctx: Context) -> list[TextContent]:
        """The HTTP headers that this very call came with."""
        found = dict(ctx.request_context.request.headers)
        return [TextContent(type="text", text=json.dumps(found))]

    return mcp


class Watch:
    """Keeps the door, and counts requests and open event streams for the tests at WATCH."""

    def __init__(self, app):
        self.app, self.requests, self.streams = app, Counter(), 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"] == WATCH:
            found = {"streams": self.streams, "requests": self.requests}
            return await answer(send, 200, found)
        self.requests[scope["method"]] += 1
        token = os.environ.get("UPSTREAM_TOKEN")
        if token and dict(scope["headers"]).get(b"authorization") != f"Bearer {token}".encode():
            return await answer(send, 401, {"error": "the upstream wants its own token"})
        is_open = False

        async def watched_send(message):
            nonlocal is_open
            if message["type"] == "http.response.start" and scope["method"] == "GET":
                kind = dict(message["headers"]).get(b"content-type", b"")
                is_open = kind.startswith(b"text/event-stream")
                self.streams += is_open
            await send(message)

        # FastMCP's SSE endpoint goes on for a while after its client has left.
        async def watched_receive():
            nonlocal is_open
            message = await receive()
            if message["type"] == "http.disconnect":
                self.streams -= is_open
                is_open = False
            return message

        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            self.streams -= is_open


async def answer(send, status, found):
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(found).encode()})


def serve(app, port):
    """Serves until a signal; open streams do not hold it up."""
    uvicorn.run(
        Watch(app), host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1
    )
