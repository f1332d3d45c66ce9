"""One table and one JSON file of what the benchmarks saw, and on what machine."""

from __future__ import annotations

import json
import math
import os
import platform
from pathlib import Path
from typing import Any

Row = dict[str, Any]
JSON_PATH = Path(__file__).resolve().parent.parent / ".nearcast" / "bench.json"


def row(
    row: str, case: str, value: float, unit: str, peer: str = "", peer_value: float | None = None
) -> Row:
    """One line of the table; a ratio is ours to theirs, whichever way is better."""
    ratio = value / peer_value if peer_value and math.isfinite(peer_value) else None
    return {
        "row": row,
        "case": case,
        "value": value,
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value if ratio is not None else None,
        "ratio": ratio,
    }


def machine() -> str:
    """Cores, memory, processor and Python, in one line."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return (
        f"{os.cpu_count()} cores, {memory_gb:.0f} GiB, {model}, Python {platform.python_version()},"
        f" load before {os.getloadavg()[0]:.1f}"
    )


def _figure(value: Any) -> str:
    if not isinstance(value, int | float) or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: list[Row]) -> str:
    """Rows as text: what, case, value, beside whom, ratio."""
    lines = [
        (
            row["row"],
            row["case"],
            f"{_figure(row['value'])} {row['unit']}",
            f"{row['peer']} {_figure(row['peer_value'])}" if row["peer"] else "",
            f"× {_figure(row['ratio'])}" if row["ratio"] else "",
        )
        for row in rows
    ]
    widths = [max((len(line[place]) for line in lines), default=0) for place in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def publish(rows: list[Row], *, where: Path = JSON_PATH) -> None:
    """Print the table and keep the rows as JSON."""
    print(f"\n{machine()}\n\n{table(rows)}")
    where.parent.mkdir(exist_ok=True)
    where.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    print(f"\nThe same as JSON: {where.relative_to(where.parent.parent)}")
