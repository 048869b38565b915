"""What both Python SDK adapters record of a session and how their client side answers."""

import time

import anyio


class Refused(Exception):
    """A JSON-RPC error, whichever SDK raised it."""

    def __init__(self, code, message, data=None):
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.data = code, message, data


def dump(model):
    if model is None or isinstance(model, dict):
        return model
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


class Recorder:
    def __init__(self):
        self.notes = []  # (method, params) of every notification, in order
        self.asked = []  # (method, params) of every request the server made
        self.faults = []  # what the transport reported as broken
        self.roots = [("file:///suite/one", "One"), ("file:///suite/two", "Two")]
        self.elicit = ("accept", {"name": "Ada"})
        self.sample = answer_prompt

    def note(self, method, params):
        self.notes.append((method, params or {}))

    async def wait_note(self, method, matches=lambda params: True, since=0, timeout=10):
        return await self._wait(self.notes, method, matches, since, timeout)

    async def wait_asked(self, method, matches=lambda params: True, since=0, timeout=10):
        return await self._wait(self.asked, method, matches, since, timeout)

    async def _wait(self, log, method, matches, since, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for name, params in log[since:]:
                if name == method and matches(params):
                    return params
            await anyio.sleep(0.02)
        raise AssertionError(f"no {method} within {timeout} s; got {log[since:]}")


async def answer_prompt(params):
    return f"answer to <{params['messages'][0]['content']['text']}>"
