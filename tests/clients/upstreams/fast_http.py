"""FastMCP over Streamable HTTP: with sessions and event streams unless told otherwise.

Usage: fast_http.py --port PORT [--path PATH] [--json] [--stateless]
"""

import argparse

import tools

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--path", default="/mcp")
parser.add_argument("--json", action="store_true", help="answer calls with JSON, not with a stream")
parser.add_argument("--stateless", action="store_true", help="no sessions")
options = parser.parse_args()

mcp = tools.build(
    streamable_http_path=options.path, json_response=options.json, stateless_http=options.stateless
)
tools.serve(mcp.streamable_http_app(), options.port)
