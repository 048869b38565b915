"""A web service of its own right, with MCP mounted into it beside its other pages.

Usage: plain.py --port PORT [--mcp http|sse]

MCP stands at /mcp/ (the slash belongs to it, as under every mount of FastAPI and Starlette), or
with `--mcp sse` at /mcp/sse.
"""

import argparse
import contextlib
import hashlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

import tools

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--mcp", choices=["http", "sse"], default="http")
options = parser.parse_args()


async def health(_request):
    return JSONResponse({"status": "healthy", "database": "connected", "total_records": 4711})


async def record(request):
    """What was asked for, as it arrived here."""
    found = {
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": request.url.query,
        "headers": dict(request.headers),
    }
    return JSONResponse(found, headers={"X-Record": "yes", "Cache-Control": "max-age=60"})


async def upload(request):
    body = await request.body()
    found = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return JSONResponse(found, status_code=201, headers={"Location": "/records/1"})


async def download(request):
    async def pieces():
        for _ in range(int(request.query_params["pieces"])):
            yield b"y" * 65536

    return StreamingResponse(pieces(), media_type="application/octet-stream")


async def secret(_request):
    return PlainTextResponse("nobody may read this")


mcp = tools.build(streamable_http_path="/")
inner = mcp.streamable_http_app() if options.mcp == "http" else mcp.sse_app()


@contextlib.asynccontextmanager
async def lifespan(_app):
    async with contextlib.AsyncExitStack() as stack:
        if options.mcp == "http":
            await stack.enter_async_context(mcp.session_manager.run())
        yield


routes = [
    Route("/health", health),
    Route("/records/upload", upload, methods=["POST"]),
    Route("/records/download", download),
    Route("/records/{rest:path}", record, methods=["GET", "PUT", "DELETE"]),
    Route("/secret", secret),
    Mount("/mcp", app=inner),
]
tools.serve(Starlette(routes=routes, lifespan=lifespan), options.port)
