"""The demo's keys and log-ins between starts: one private file, ignored by git.

It makes none of them: `load_demo` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings


def path() -> Path:
    """Where the file is: in the checkout's own folder of state."""
    return Path(settings.BASE_DIR) / ".nearcast" / "demo.json"


def read() -> dict[str, Any]:
    """What is known (CONTRACT, "The demo's keys"); nothing where the demo was never loaded."""
    try:
        found: dict[str, Any] = json.loads(path().read_text())
    except FileNotFoundError:
        return {}
    return found


def write(known: dict[str, Any]) -> None:
    """Replace the file in one step; only its owner may read it."""
    draft = path().with_suffix(".new")
    draft.parent.mkdir(exist_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
    draft.replace(path())
