"""How a log line looks; what stands in people's rows is left out of it."""

from __future__ import annotations

import logging
import re

# PostgreSQL's errors say which row was refused: in lines of their own after the message, up to the
# end of that error's text. The message names the constraint and the table, and stays.
_ROW = re.compile(
    r"\n(?:DETAIL|CONTEXT):.*?(?=\n\nThe above exception|\n\nDuring handling|\Z)", re.DOTALL
)


class Discreet(logging.Formatter):
    """The standard formatter without the rows that database errors quote."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it where there is one."""
        return _ROW.sub("", super().format(record))
