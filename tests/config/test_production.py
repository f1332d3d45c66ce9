"""Production settings refuse to start without what they need; each case is a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPLETE = {
    "NEARCAST_ENV": "production",
    "NEARCAST_SECRET_KEY": "k3Jm0Wv8sQ1xZr5tYb7uNc2pLf9hDg4aEo6i",
    "NEARCAST_ALLOWED_HOSTS": "nearcast.example",
    "DATABASE_URL": "postgis://nearcast:secret@db.example/nearcast",
    "FIREBASE_CREDENTIALS": "/etc/nearcast/firebase.json",
}
DEMO_SECRET = "demo-secret-for-development-only-never-for-production"


def load_settings(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Load the settings in a process that sees this environment and no other."""
    return subprocess.run(
        [sys.executable, "-c", "from config import settings; print(settings.DEBUG)"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_starts_with_everything_given() -> None:
    loaded = load_settings(COMPLETE)

    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout == "False\n"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"NEARCAST_SECRET_KEY": None}, "NEARCAST_SECRET_KEY"),
        ({"NEARCAST_SECRET_KEY": ""}, "NEARCAST_SECRET_KEY"),
        ({"NEARCAST_SECRET_KEY": "short"}, "NEARCAST_SECRET_KEY"),
        ({"NEARCAST_SECRET_KEY": DEMO_SECRET}, "NEARCAST_SECRET_KEY"),
        ({"NEARCAST_DEBUG": "1"}, "NEARCAST_DEBUG"),
        ({"NEARCAST_ALLOWED_HOSTS": None}, "NEARCAST_ALLOWED_HOSTS"),
        ({"NEARCAST_ALLOWED_HOSTS": "nearcast.example,*"}, "NEARCAST_ALLOWED_HOSTS"),
        ({"DATABASE_URL": None}, "DATABASE_URL"),
        ({"FIREBASE_CREDENTIALS": None}, "FIREBASE_CREDENTIALS"),
        ({"FCM_EMULATOR_URL": "http://127.0.0.1:9099"}, "FCM_EMULATOR_URL"),
        # A misspelt environment must not quietly become a developer's.
        ({"NEARCAST_ENV": "prod"}, "NEARCAST_ENV"),
    ],
)
def test_it_refuses_to_start_and_says_what_is_missing(
    changed: dict[str, str | None], named: str
) -> None:
    environment = {k: v for k, v in (COMPLETE | changed).items() if v is not None}

    loaded = load_settings(environment)

    assert loaded.returncode != 0
    refusal = loaded.stderr.strip().splitlines()[-1]
    assert refusal.startswith("django.core.exceptions.ImproperlyConfigured")
    assert named in refusal


def test_it_names_everything_that_is_missing_at_once() -> None:
    refusal = load_settings({"NEARCAST_ENV": "production"}).stderr.strip().splitlines()[-1]

    for name in sorted(COMPLETE.keys() - {"NEARCAST_ENV"}):
        assert name in refusal


def test_it_never_puts_a_secret_into_the_refusal() -> None:
    refusal = load_settings(COMPLETE | {"NEARCAST_DEBUG": "1"}).stderr

    assert COMPLETE["NEARCAST_SECRET_KEY"] not in refusal
    assert "secret@db" not in refusal
