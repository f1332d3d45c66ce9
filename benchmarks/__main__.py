"""`make bench`, `make bench-quick`: every benchmark in turn, one table at the end.

A benchmark that cannot run is named with its reason and stops no other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

from benchmarks.report import publish

PARTS = (
    *("matching", "road", "sockets", "promptness", "liveness", "growth"),
    *("evaluation", "push"),
)
QUICK = ("matching", "road", "push")  # what two minutes are enough for; any other can be named


def main() -> int:
    """Run the chosen parts, each in a process of its own: one's caches are not another's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes in all")
    parser.add_argument("parts", nargs="*", default=[], help=", ".join(PARTS))
    chosen = parser.parse_args()
    rows, failed, started = [], 0, time.monotonic()
    parts = chosen.parts or (QUICK if chosen.quick else PARTS)
    done: list[str] = []
    try:
        for part in parts:
            begun = time.monotonic()
            print(f"… {part}", end=" ", flush=True)
            found, error = _run(part, quick=chosen.quick)
            rows += found
            failed += bool(error)
            done.append(part)
            print(f"{time.monotonic() - begun:.0f} s{': ' + error if error else ''}", flush=True)
    except KeyboardInterrupt:  # what was measured until then is worth as much
        print("interrupted", flush=True)
        failed += 1
    publish(rows)
    if left := [part for part in PARTS if part not in done]:
        print(f"Not run: {', '.join(left)}.")
    print(f"Took {time.monotonic() - started:.0f} s in all.")
    return 1 if failed else 0


def _run(part: str, *, quick: bool) -> tuple[list[dict[str, object]], str]:
    """In a child: rows come back through a pipe as JSON."""
    code = (
        "import json,sys;"
        f"rows=__import__('importlib').import_module('benchmarks.{part}').run({quick});"
        "sys.stderr.flush();print('\\n'+json.dumps(rows))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        return [], (done.stderr.strip().splitlines() or ["failed"])[-1]

    rows: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return rows, ""


if __name__ == "__main__":
    sys.exit(main())
