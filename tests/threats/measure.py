"""Measures what the edge promises to hold, row by row: `row | figure | must hold | held`.

Usage: measure.py [--only PART] [BINARY]. Each row starts an edge of its own, on loopback, and is
bounded in time. What is compared with other servers stands in the benchmark, not here.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))

from edge import Edge  # noqa: E402

import backend  # noqa: E402
import door  # noqa: E402
import floods  # noqa: E402
import logs  # noqa: E402
import messages  # noqa: E402
import strangers  # noqa: E402
import streams  # noqa: E402

ROWS = [*door.ROWS, *floods.ROWS, *messages.ROWS, *strangers.ROWS, *streams.ROWS, *backend.ROWS, *logs.ROWS]


async def measured(row, binary, directory):
    """The figures of one row: (what, figure, must hold, held)."""
    directory.mkdir()
    start = lambda *options, command=None, **more: Edge(  # noqa: E731
        binary, command, *options, directory=directory, **more
    )
    async with asyncio.timeout(300):
        return await row(start, binary)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("binary", nargs="?", default=HERE.parents[1] / "target/release/mcp-edge")
    options = parser.parse_args()
    short = 0
    door.raise_descriptors()
    print("| row | figure | must hold | held |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for row in ROWS:
            if options.only not in row.__name__:
                continue
            begun = time.monotonic()
            directory_of_row = Path(directory) / row.__name__
            figures = asyncio.run(measured(row, Path(options.binary).resolve(), directory_of_row))
            for what, figure, must, held in figures:
                short += not held
                print(f"| {what} | {figure} | {must} | {'yes' if held else '**no**'} |", flush=True)
            print(f"  {row.__name__}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
