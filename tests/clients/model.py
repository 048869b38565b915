"""A model that always does the same: it calls one tool, and says what the tool said.

It speaks as much of Anthropic's and OpenAI's HTTP as Claude Code and Qwen Code ask for, on
127.0.0.1, so that they carry out a whole turn without an account.
"""

import http.server
import json
import threading

TOOL = "mcp__edge__echo"
ARGUMENTS = json.dumps({"message": "hello"})


def says(name, value):
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"


def anthropic(asked):
    """The events of an answer to /v1/messages: a call, or the text of its result."""
    found = [
        part for message in asked["messages"] if isinstance(message["content"], list)
        for part in message["content"] if part.get("type") == "tool_result"
    ]
    offered = TOOL in [tool["name"] for tool in asked.get("tools", [])]
    if found or not offered:
        text = f"the tool said: {json.dumps(found[-1]['content'])}" if found else "no such tool"
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": text}
        reason = "end_turn"
    else:
        block = {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": {}}
        delta, reason = {"type": "input_json_delta", "partial_json": ARGUMENTS}, "tool_use"
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    ended = {"stop_reason": reason, "stop_sequence": None}
    return [
        says("message_start", {"type": "message_start", "message": message}),
        says("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}),
        says("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}),
        says("content_block_stop", {"type": "content_block_stop", "index": 0}),
        says("message_delta", {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 1}}),
        says("message_stop", {"type": "message_stop"}),
    ]


def openai(asked):
    """The events of an answer to /chat/completions."""
    found = [message for message in asked["messages"] if message["role"] == "tool"]
    offered = TOOL in [tool["function"]["name"] for tool in asked.get("tools", [])]
    if found or not offered:
        text = f"the tool said: {json.dumps(found[-1]['content'])}" if found else "no such tool"
        delta, reason = {"role": "assistant", "content": text}, "stop"
    else:
        called = {"name": TOOL, "arguments": ARGUMENTS}
        call = {"index": 0, "id": "call_1", "type": "function", "function": called}
        delta, reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"

    def chunk(delta, reason):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        whole = {
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"],
            "choices": [choice],
        }
        return f"data: {json.dumps(whole)}\n\n"

    return [chunk(delta, None), chunk({}, reason), "data: [DONE]\n\n"]


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        path = self.path.partition("?")[0]
        self.server.asked.append(asked)
        how = {"/v1/messages": anthropic, "/v1/chat/completions": openai}.get(path)
        if how is None or not asked.get("stream"):
            return self.answer(404, "application/json", b'{"error":{"message":"not here"}}')
        self.answer(200, "text/event-stream", "".join(how(asked)).encode())

    def do_GET(self):
        self.answer(404, "application/json", b'{"error":{"message":"not here"}}')

    do_HEAD = do_GET

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Model:
    """The server, for the time of a `with`."""

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.server.daemon_threads = True
        self.server.asked = []
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def tools(self):
        """Names of the tools that it was offered."""
        names = set()
        for asked in self.server.asked:
            names |= {t.get("name") or t.get("function", {}).get("name") for t in asked.get("tools", [])}
        return sorted(n for n in names if n)
