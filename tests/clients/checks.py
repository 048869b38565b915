"""Runs the checks of a script one after the other, and reports each as a JSON line.

A check may return a text, such as a time that it measured; the suite prints it.
"""

import asyncio
import json
import time

from walk import explain, report

TIMEOUT = 60


class Checks:
    def __init__(self):
        self.all = []

    def check(self, name, *arguments, timeout=TIMEOUT):
        def add(function):
            self.all.append((name, function, arguments, timeout))
            return function

        return add

    def plan(self, only):
        """Those whose name contains this, after their names have been printed."""
        planned = [c for c in self.all if (only or "") in c[0]]
        print(json.dumps({"plan": [c[0] for c in planned]}), flush=True)
        return planned


async def run(name, work, timeout=TIMEOUT):
    started, error, found = time.monotonic(), None, None
    try:
        found = await asyncio.wait_for(work, timeout)
    except TimeoutError:
        error = f"not done within {timeout} s"
    except Exception as failure:
        error = explain(failure)
    report(name, error is None, time.monotonic() - started, error or found or "")
