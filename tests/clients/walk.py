"""Walks the steps of a cell through one session after another, and reports each as a JSON line."""

import json
import os
import traceback

import anyio

from session import Refused

STEP_TIMEOUT = 30
# A process writes U+2028, NEL and CR LF into JSON as they are; each is a line end to somebody.
ODD_TEXT = "naïve \u2028 line \u2029 para \u0085 nel \r\n crlf \n\n data: x \u0000 \U0001f980 \ufeff end"
CLOSES = "the session closes cleanly"


def registrar(steps):
    """A decorator that adds its function to `steps`, with the cells that it is for."""

    def step(name, needs=lambda cell: True):
        def register(function):
            steps.append((name, function, needs))
            return function

        return register

    return step


def start(steps, cell):
    """The steps that the cell needs, after their names have been printed."""
    only = cell.get("only")
    planned = [s for s in steps if s[2](cell) and (not only or only in s[0])]
    print(json.dumps({"plan": [name for name, _, _ in planned] + [CLOSES]}), flush=True)
    return planned


async def walk(sdk, cell, planned, wanted):
    left, closed = list(planned), None
    while left:
        before, healthy = len(left), True
        try:
            # A session in which a check failed is given up; the next check starts on a fresh one.
            async with sdk.connect(cell) as s:
                while left and healthy:
                    name, function, _ = left.pop(0)
                    healthy = await run(name, function, s, cell, wanted)
        except Exception as error:
            closed = explain(error) if healthy else None
            if len(left) == before:
                reasons = [f"no session: {closed}"] + ["no session"] * len(left)
                for (name, _, _), reason in zip(left, reasons):
                    report(name, False, 0, reason)
                break
    report(CLOSES, closed is None, 0, closed or "")


async def run(name, function, s, cell, wanted):
    started = anyio.current_time()
    try:
        with anyio.fail_after(STEP_TIMEOUT):
            await function(s, cell, wanted)
        error = f"the transport reported {s.faults}" if s.faults else None
    except Exception as failure:
        error = explain(failure)
    except anyio.get_cancelled_exc_class():
        took = anyio.current_time() - started
        report(name, False, took, f"the transport failed, see: {CLOSES}")
        raise
    report(name, error is None, anyio.current_time() - started, error or "")
    return error is None


def report(name, ok, seconds, detail=""):
    line = {"check": name, "ok": ok, "seconds": round(seconds, 2), "detail": detail}
    print(json.dumps(line), flush=True)


def explain(error):
    """The innermost reason of whatever nest of task groups it came out of."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AssertionError) and error.args:
        return str(error)
    where = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(where[-4:]))
    return f"{type(error).__name__}: {error} ({places})"


def text_of(result, index=0):
    return result["content"][index]["text"]


def equal(got, wanted, what):
    assert got == wanted, f"{what}: got {shorten(got)}, wanted {shorten(wanted)}"


def shorten(value):
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) < 1500 else text[:1500] + "…"


async def answer(session, call):
    try:
        return {"result": await call(session)}
    except Refused as refused:
        return {"error": [refused.code, refused.message, refused.data]}


class Progress:
    def __init__(self):
        self.seen = []
        self.first = anyio.Event()

    async def __call__(self, progress, total, message=None):
        self.seen.append((progress, total))
        self.first.set()
