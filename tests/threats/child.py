"""A stdio MCP server for the measurements: echoes, sleeps, dies when asked. Standard library only."""

import json
import os
import sys
import threading

lock = threading.Lock()


def say(message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def act(message):
    params = message.get("params", {})
    arguments = params.get("arguments", {})
    match params.get("name"):
        case "die":
            os._exit(7)
        case "sleep":
            threading.Event().wait(arguments["seconds"])
    say({"id": message["id"], "result": {"content": [{"type": "text", "text": "done"}]}})


for line in sys.stdin:
    message = json.loads(line)
    match message.get("method"):
        case "initialize":
            version = message["params"]["protocolVersion"]
            info = {"name": "child", "version": "1"}
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
            say({"id": message["id"], "result": result})
        case "tools/call":
            threading.Thread(target=act, args=(message,), daemon=True).start()
        case "ping" | "tools/list":
            say({"id": message["id"], "result": {"tools": []}})
