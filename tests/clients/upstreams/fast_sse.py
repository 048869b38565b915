"""FastMCP over SSE, as `FastMCP.run("sse")` serves it, on paths of choice.

Usage: fast_sse.py --port PORT [--sse-path PATH] [--message-path PATH] [--mount PATH] [--health]
"""

import argparse

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount

import tools

PAGE = "<!doctype html><title>fixture</title><h1>The server is running</h1>"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--sse-path", default="/sse")
parser.add_argument("--message-path", default="/messages/")
parser.add_argument("--mount", help="put both beneath this path")
parser.add_argument("--health", action="store_true", help="a page for people at /")
options = parser.parse_args()

mcp = tools.build(sse_path=options.sse_path, message_path=options.message_path)
if options.health:

    @mcp.custom_route("/", methods=["GET"])
    async def health(_request):
        return HTMLResponse(PAGE)


app = mcp.sse_app()
if options.mount:
    app = Starlette(routes=[Mount(options.mount, app=app)])
tools.serve(app, options.port)
