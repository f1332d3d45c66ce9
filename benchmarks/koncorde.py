"""Koncorde beside us: Kuzzle's engine, in process, matching only, stateless.

From npm, kept in an ignored folder. Its geometry is compiled at installation, which needs a C++
compiler; where that or npm is missing, so is the peer, by name.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

HOME = Path(__file__).resolve().parent.parent / ".nearcast" / "bench" / "koncorde"
VERSION = "4.7.0"
INSTALL_S = 900
RUN_S = 1_800
_DRIVER = """
const Module = require("module"), fs = require("fs");
const load = Module._load;
// Regular expressions play no part here, and re2 takes minutes to compile.
Module._load = function (name, ...rest) {
  return name === "re2" ? RegExp : load.call(this, name, ...rest);
};
const { Koncorde } = require("koncorde");
const doubles = (path) => new Float64Array(new Uint8Array(fs.readFileSync(path)).buffer);
const [folder, seconds] = process.argv.slice(2);
const corners = doubles(folder + "/corners"), sizes = doubles(folder + "/sizes");
const fixes = doubles(folder + "/fixes"), engine = new Koncorde();
let at = 0, begun = Date.now();
for (const size of sizes) {
  const points = [];
  for (const end = at + size; at < end; at++) points.push([corners[2 * at], corners[2 * at + 1]]);
  engine.register({ geoPolygon: { at: { points } } });
}
const registered = (Date.now() - begun) / 1000;
let tested = 0, matches = 0, spent = 0;
begun = process.cpuUsage();
while (spent < seconds * 1000) {
  for (let turn = 0; turn < 100; turn++, tested++) {
    const fix = 2 * (tested % (fixes.length / 2));
    matches += engine.test({ at: { lat: fixes[fix], lon: fixes[fix + 1] } }).length;
  }
  spent = process.cpuUsage(begun).user / 1000;
}
console.log(JSON.stringify({ registered, rate: tested / spent * 1000, hits: matches / tested }));
"""


def installed(*, install: bool) -> str | None:
    """Make it ready; answers why it is missing, or None."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "no npm"
    if (HOME / "ready").exists():
        return None
    if not install:
        return "not installed yet; the full run does so"
    HOME.mkdir(parents=True, exist_ok=True)
    (HOME / "package.json").write_text('{"private": true}')
    for words in (
        ("install", "--ignore-scripts", f"koncorde@{VERSION}"),
        ("rebuild", "boost-geospatial-index", "kuzzle-espresso-logic-minimizer"),
    ):
        command = [npm, "--no-audit", "--no-fund", *words]
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=INSTALL_S)
        if done.returncode:
            return f"npm {words[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
    (HOME / "driver.js").write_text(_DRIVER)
    (HOME / "ready").touch()
    return None


def measure(
    shapes: NDArray[Any], lat: NDArray[np.float64], lng: NDArray[np.float64], *, seconds: float
) -> dict[str, float]:
    """Fixes a second, seconds to register, matches a fix."""
    xy, owner = shapely.get_coordinates(shapely.get_exterior_ring(shapes), return_index=True)
    with tempfile.TemporaryDirectory() as folder:
        xy[:, ::-1].astype("<f8").tofile(f"{folder}/corners")
        np.bincount(owner).astype("<f8").tofile(f"{folder}/sizes")
        np.column_stack((lat, lng)).astype("<f8").tofile(f"{folder}/fixes")
        done = subprocess.run(
            ["node", "--max-old-space-size=12000", "driver.js", folder, str(seconds)],
            cwd=HOME,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found
