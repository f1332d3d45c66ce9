"""How a log line looks; what stands in people's rows is left out of it."""

from __future__ import annotations

import logging
import re

# PostgreSQL's errors say which row was refused and quote the statement, in lines of their own after
# the message, to the end of that error's text. The message names constraint and table, and stays.
_ROW = re.compile(
    r"\n(?:DETAIL|CONTEXT|LINE \d+):.*?(?=\n\nThe above exception|\n\nDuring handling|\Z)",
    re.DOTALL,
)


class Discreet(logging.Formatter):
    """The standard formatter without the rows that database errors quote."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it where there is one."""
        return _ROW.sub("", super().format(record))
