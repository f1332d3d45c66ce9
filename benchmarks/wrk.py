"""wrk with the scripts that make it a crowd of phones or a brand's gateway; it judges no figure."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.populate import Phone

# Every phone walks up to some 200 m between fixes. The clock is the system's: milliseconds.
_CROWD = """
local ffi = require("ffi")
ffi.cdef[[typedef struct { long s; long us; } timeval; int gettimeofday(timeval *, void *);]]
local now = ffi.new("timeval")
local ids, tokens, lats, lngs, n = {}, {}, {}, {}, 0
local each = %(each)d
function init(args)
  for line in io.lines("%(phones)s") do
    local id, token, lat, lng = line:match("(%%S+) (%%S+) (%%S+) (%%S+)")
    n = n + 1
    ids[n], tokens[n], lats[n], lngs[n] = id, token, tonumber(lat), tonumber(lng)
  end
  math.randomseed(os.time())
  at = math.random(n)
end
local function ms()
  ffi.C.gettimeofday(now, nil)
  return tonumber(now.s) * 1000 + math.floor(tonumber(now.us) / 1000)
end
local function walk(i)
  lats[i] = lats[i] + (math.random() - 0.5) * 0.004
  lngs[i] = lngs[i] + (math.random() - 0.5) * 0.004
end
"""
_PHONES = """
function request()
  at = at % n + 1
  local fixes, now_ms = {}, ms()
  for i = 1, each do
    walk(at)
    fixes[i] = string.format('{"lat":%.6f,"lng":%.6f,"recorded_at":%.0f,"accuracy_m":8}',
      lats[at], lngs[at], now_ms - (each - i) * 10)
  end
  local body = each == 1 and fixes[1] or '{"locations":[' .. table.concat(fixes, ",") .. "]}"
  return wrk.format("POST", "/v1/locations", {
    ["Authorization"] = "Bearer " .. tokens[at], ["Content-Type"] = "application/json"}, body)
end
"""
_GATEWAY = """
function request()
  local lines, now_ms = {}, ms()
  for i = 1, each do
    at = at %% n + 1
    walk(at)
    lines[i] = string.format('{"device_id":%%s,"lat":%%.6f,"lng":%%.6f,"recorded_at":%%.0f}',
      ids[at], lats[at], lngs[at], now_ms)
  end
  return wrk.format("POST", "/v1/gateway/locations", {
    ["Authorization"] = "Bearer %(secret)s", ["Content-Type"] = "application/x-ndjson"},
    table.concat(lines, "\\n"))
end
"""


# The system deals connections out to the workers by chance: of four, all go to one of two workers
# one time in eight, and the other stands idle; of eight, one time in 128.
CALLS_AT_ONCE = 8


class Seen(dict[str, float]):
    """`rate`: requests a second; `bad`: answers that were not 2xx."""


@contextmanager
def listed(phones: Sequence[Phone]) -> Iterator[Path]:
    """The phones in a file that the scripts read."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines("{} {} {:.6f} {:.6f}\n".format(*phone) for phone in phones)
        file.flush()
        yield Path(file.name)


def crowd(phones: Path, *, each: int = 1) -> str:
    """The part of a script that knows the phones: `at`, `n`, `lats`, `lngs`, `walk`, `each`."""
    return _CROWD % {"phones": phones, "each": each}


def phones(host: str, file: Path, *, each: int, seconds: float, connections: int) -> Seen:
    """`each` fixes of one phone a POST."""
    return run(host, crowd(file, each=each) + _PHONES, seconds, connections)


def gateway(
    host: str, file: Path, *, secret: str, each: int, seconds: float, calls: int = CALLS_AT_ONCE
) -> Seen:
    """`each` fixes of as many devices a call, and so many calls at once."""
    script = crowd(file, each=each) + _GATEWAY % {"secret": secret}
    return run(host, script, seconds, calls)


def run(host: str, script: str, seconds: float, connections: int) -> Seen:
    """Let wrk run a script for so long."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        printed = subprocess.run(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s"),
                *("-s", file.name, f"http://{host}/"),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert found, printed
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    return Seen(rate=float(found[1]), bad=float(bad[1]) if bad else 0.0)
