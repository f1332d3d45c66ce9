"""The README's tour, run as it stands: whoever copies it gets what it promises."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from brands.models import KeyKind
from devices.models import Transition
from notifications.models import Delivery, Feedback
from tests.factories import make_brand, make_key
from tests.live_server import ROOT, LiveWeb
from tests.processes import emulator, workers

pytest_plugins = ("tests.live_server",)

LIMIT_S = 90


@pytest.mark.django_db(transaction=True)
def test_it_is_true(live_web: LiveWeb, tmp_path: Path) -> None:
    [tour] = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    brand = make_brand()
    with (
        emulator() as fcm,
        workers("evaluate", "deliver", emulator_url=fcm.url),
    ):
        (tmp_path / ".nearcast").mkdir()
        (tmp_path / ".nearcast" / "demo.json").write_text(
            json.dumps(
                {
                    "base_url": live_web.base_url,
                    "app_key": make_key(brand, KeyKind.PUBLISHABLE),
                    "server_key": make_key(brand),
                    "emulator_url": fcm.url,
                }
            )
        )
        said = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", tour],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    assert said.returncode == 0, said.stderr
    assert "Come in to The tour shop." in said.stdout
    assert '"verdict":"send"' in said.stdout.replace(" ", "")
    assert Transition.objects.get().kind == "entered"
    assert Feedback.objects.get(delivery=Delivery.objects.get()).event == "opened"
