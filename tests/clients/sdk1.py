"""The Python SDK 1.x behind the few calls that steps.py makes."""

import os
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import httpx
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

from session import Recorder, Refused, dump

HAS_TASKS = True


class H2First(ssl.SSLContext):
    """httpx lists http/1.1 first; this one asks for HTTP/2 as curl and browsers do."""

    def set_alpn_protocols(self, protocols):
        super().set_alpn_protocols(["h2", "http/1.1"])


@asynccontextmanager
async def streams(cell, url):
    headers = {"Authorization": f"Bearer {cell['token']}"} if cell["token"] else {}
    if cell["kind"] == "stdio":
        command, *args = cell["server"]
        parameters = StdioServerParameters(command=command, args=args, env=cell.get("env"))
        with open(os.devnull, "w") as quiet:
            async with stdio_client(parameters, errlog=quiet) as (read, write):
                yield read, write
    elif cell["kind"] == "sse":
        async with sse_client(url, headers=headers) as (read, write):
            yield read, write
    else:
        verify = True
        if cell.get("h2"):
            verify = H2First(ssl.PROTOCOL_TLS_CLIENT)
            verify.load_verify_locations(os.environ["SSL_CERT_FILE"])
        timeout = httpx.Timeout(30, read=300)
        async with httpx.AsyncClient(
            headers=headers, timeout=timeout, http2=bool(cell.get("h2")), verify=verify
        ) as http:
            http.event_hooks["response"] = [cell["on_response"]] if "on_response" in cell else []
            async with streamable_http_client(url, http_client=http) as (read, write, _):
                yield read, write


@asynccontextmanager
async def connect(cell, url=None):
    async with streams(cell, url or cell["url"]) as (read, write):
        session = Session()
        async with ClientSession(
            read,
            write,
            read_timeout_seconds=timedelta(seconds=60),
            sampling_callback=session.on_sampling,
            elicitation_callback=session.on_elicitation,
            list_roots_callback=session.on_roots,
            message_handler=session.on_message,
        ) as session.raw:
            session.init = dump(await session.raw.initialize())
            yield session


class Session(Recorder):
    async def on_message(self, message):
        if isinstance(message, Exception):
            # FastMCP answers what was cancelled, and this SDK no longer knows what it asked.
            if "Request cancelled" not in repr(message):
                self.faults.append(repr(message))
        elif isinstance(message, types.ServerNotification):
            self.note(message.root.method, dump(message.root.params))

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
        except McpError as refused:
            error = refused.error
            raise Refused(error.code, error.message, error.data) from None

    async def call(self, name, arguments=None, progress=None):
        return await self.ask(self.raw.call_tool(name, arguments or {}, progress_callback=progress))

    async def call_and_cancel(self, name, arguments, progress, when):
        """Calls, waits for the event `when`, then cancels as this SDK's users must: by hand."""
        request_id = self.raw._request_id
        async with anyio.create_task_group() as group:
            group.start_soon(self.call, name, arguments, progress)
            await when.wait()
            params = types.CancelledNotificationParams(requestId=request_id, reason="enough")
            note = types.CancelledNotification(params=params)
            await self.raw.send_notification(types.ClientNotification(note))
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
        return await self.ask(self.raw.read_resource(AnyUrl(uri)))

    async def subscribe(self, uri):
        return await self.ask(self.raw.subscribe_resource(AnyUrl(uri)))

    async def unsubscribe(self, uri):
        return await self.ask(self.raw.unsubscribe_resource(AnyUrl(uri)))

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

    async def task(self, name, arguments):
        """A task-augmented call of 2025-11-25: create, poll to the end, fetch the result."""
        tasks = self.raw.experimental
        created = await self.ask(tasks.call_tool_as_task(name, arguments))
        task_id = created["task"]["taskId"]
        states = []
        async for status in tasks.poll_task(task_id):
            states.append(status.status)
            if status.status == "input_required":
                break
        result = await self.ask(tasks.get_task_result(task_id, types.CallToolResult))
        return created, states, result


async def pages(ask, listing, key):
    found, cursor = [], None
    while True:
        params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
        page = await ask(listing(params=params))
        found += page[key]
        cursor = page.get("nextCursor")
        if not cursor:
            return found
