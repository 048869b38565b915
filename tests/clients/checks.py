"""Runs the checks of a script one after the other, and reports each as a JSON line.

A check may return a text, such as a time that it measured; the suite prints it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from walk import explain, report

TIMEOUT = 60


def parse_options(description, name):
    """What the script was started with; `directory` is there, and its own."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--check", default="")
    parser.add_argument("--directory", type=Path, default=None)
    found = parser.parse_args()
    found.directory = found.directory or Path(tempfile.mkdtemp(prefix=f"{name}-"))
    found.directory.mkdir(parents=True, exist_ok=True)
    return found


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
