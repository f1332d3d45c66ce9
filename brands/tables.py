"""Rows as a CSV file that somebody opens in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any

from django.http import HttpResponse


def csv_answer(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> HttpResponse:
    """An answer that is downloaded as `name`.csv."""
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    writer = csv.writer(answer)
    writer.writerow(columns)
    writer.writerows(map(_harmless, rows))
    return answer


def _harmless(row: Sequence[Any]) -> list[Any]:
    """A spreadsheet runs what begins like a formula; these cells were written by strangers."""
    return [
        f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t"} else cell
        for cell in row
    ]
