"""The Python SDK 2.x behind the few calls that steps.py makes."""

import os
import warnings
from contextlib import asynccontextmanager

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from session import Recorder, Refused, dump

# Subscriptions, logging and roots are deprecated since 2026-07-28, and are what we test.
warnings.simplefilter("ignore")
HAS_TASKS = False


@asynccontextmanager
async def transport(cell, url):
    headers = {"Authorization": f"Bearer {cell['token']}"} if cell["token"] else {}
    if cell["kind"] == "stdio":
        command, *args = cell["server"]
        parameters = StdioServerParameters(command=command, args=args, env=cell.get("env"))
        with open(os.devnull, "w") as quiet:
            async with stdio_client(parameters, errlog=quiet) as pair:
                yield pair
    elif cell["kind"] == "sse":
        async with sse_client(url, headers=headers) as pair:
            yield pair
    else:
        timeout = httpx2.Timeout(30, read=300)
        async with httpx2.AsyncClient(headers=headers, timeout=timeout) as http:
            async with streamable_http_client(url, http_client=http) as pair:
                yield pair


@asynccontextmanager
async def connect(cell, url=None):
    session = Session()
    async with Client(
        transport(cell, url or cell["url"]),
        mode=cell.get("mode") or "auto",
        read_timeout_seconds=60,
        sampling_callback=session.on_sampling,
        elicitation_callback=session.on_elicitation,
        list_roots_callback=session.on_roots,
        message_handler=session.on_message,
    ) as session.raw:
        session.init = dump(session.raw.session.initialize_result) or {
            "protocolVersion": session.raw.protocol_version
        }
        yield session


class Session(Recorder):
    async def on_message(self, message):
        if isinstance(message, Exception):
            self.faults.append(repr(message))
        elif hasattr(message, "method"):
            self.note(message.method, dump(message.params))

    async def on_sampling(self, _context, params):
        self.asked.append(("sampling/createMessage", dump(params)))
        answer = await self.sample(dump(params))
        if answer is None:
            return types.ErrorData(code=-1, message="the user declined")
        content = types.TextContent(type="text", text=answer)
        return types.CreateMessageResult(role="assistant", content=content, model="test-model")

    async def on_elicitation(self, _context, params):
        self.asked.append(("elicitation/create", dump(params)))
        action, content = self.elicit
        return types.ElicitResult(action=action, content=content)

    async def on_roots(self, _context):
        self.asked.append(("roots/list", {}))
        return types.ListRootsResult(roots=[types.Root(uri=u, name=n) for u, n in self.roots])

    async def ask(self, awaitable):
        try:
            return dump(await awaitable)
        except MCPError as refused:
            raise Refused(refused.code, refused.message, refused.data) from None

    async def call(self, name, arguments=None, progress=None):
        return await self.ask(self.raw.call_tool(name, arguments or {}, progress_callback=progress))

    async def call_and_cancel(self, name, arguments, progress, when):
        """Calls, waits for the event `when`, then cancels: this SDK tells the server itself."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.call, name, arguments, progress)
            await when.wait()
            group.cancel_scope.cancel()

    async def tools(self):
        return await pages(self.ask, self.raw.list_tools, "tools")

    async def prompts(self):
        return await pages(self.ask, self.raw.list_prompts, "prompts")

    async def resources(self):
        return await pages(self.ask, self.raw.list_resources, "resources")

    async def templates(self):
        return await pages(self.ask, self.raw.list_resource_templates, "resourceTemplates")

    async def read(self, uri):
        return await self.ask(self.raw.read_resource(uri))

    async def subscribe(self, uri):
        return await self.ask(self.raw.subscribe_resource(uri))

    async def unsubscribe(self, uri):
        return await self.ask(self.raw.unsubscribe_resource(uri))

    async def prompt(self, name, arguments=None):
        return await self.ask(self.raw.get_prompt(name, arguments))

    async def complete_prompt(self, name, argument, value, context=None):
        reference = types.PromptReference(type="ref/prompt", name=name)
        argument = {"name": argument, "value": value}
        return await self.ask(self.raw.complete(reference, argument, context))

    async def complete_resource(self, uri, argument, value):
        reference = types.ResourceTemplateReference(type="ref/resource", uri=uri)
        return await self.ask(self.raw.complete(reference, {"name": argument, "value": value}))

    async def ping(self):
        return await self.ask(self.raw.send_ping())

    async def set_level(self, level):
        return await self.ask(self.raw.set_logging_level(level))

    async def roots_changed(self):
        await self.raw.send_roots_list_changed()


async def pages(ask, listing, key):
    found, cursor = [], None
    while True:
        page = await ask(listing(cursor=cursor))
        found += page[key]
        cursor = page.get("nextCursor")
        if not cursor:
            return found
