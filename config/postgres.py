"""Finds this machine's PostgreSQL, runs its programs as a user it accepts, sizes its settings.

It decides nothing about clusters: `config.cluster` does.  Standard library only.
"""

import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

MIB = 1024 * 1024
GIB = 1024 * MIB


class PostgresError(Exception):
    """PostgreSQL cannot be had or refuses; the message says what to do about it."""


def version_of(binaries: Path) -> int:
    """Return the major version of the PostgreSQL whose programs are in `binaries`."""
    said = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"(\d+)", said)
    if not found:
        raise PostgresError(f"{binaries}/postgres does not say its version: {said!r}")
    return int(found.group(1))


def installed() -> dict[int, Path]:
    """Return the program folder of every PostgreSQL here that also has PostGIS, by version."""
    folders = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        *Path("/usr").glob("pgsql-*/bin"),
        *Path("/opt/homebrew/opt").glob("postgresql@*/bin"),
        *Path("/usr/local/opt").glob("postgresql@*/bin"),
    ]
    on_path = shutil.which("postgres")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    return {
        version_of(folder): folder
        for folder in folders
        if (folder / "initdb").exists() and has_postgis(folder)
    }


def has_postgis(binaries: Path) -> bool:
    """Say whether the server in `binaries` can `CREATE EXTENSION postgis`."""
    version = binaries.parent.name
    shares = [Path("/usr/share/postgresql") / version, *binaries.parent.glob("share/*postgresql*")]
    shares.append(binaries.parent / "share")
    pg_config = binaries / "pg_config"
    if pg_config.exists():
        said = subprocess.run(
            [pg_config, "--sharedir"], capture_output=True, text=True, check=False
        )
        shares.append(Path(said.stdout.strip() or "/nowhere"))
    return any((share / "extension" / "postgis.control").exists() for share in shares)


def programs(data: Path) -> Path:
    """Return the folder of the PostgreSQL programs that fit `data`, or the newest for a new one."""
    available = installed()
    if not available:
        raise PostgresError(
            "no PostgreSQL with PostGIS here; `make run` installs it on Debian and Ubuntu, "
            "on macOS: brew install postgresql@17 postgis"
        )
    try:
        made_by = int((data / "PG_VERSION").read_text())
    except (FileNotFoundError, PermissionError):
        return available[max(available)]
    if made_by not in available:
        raise PostgresError(
            f"{data} was made by PostgreSQL {made_by}, which is no longer installed with PostGIS; "
            f"install it again, or `make clean` to start with an empty database"
        )
    return available[made_by]


def server_user() -> pwd.struct_passwd | None:
    """Return whom the server runs as: nobody else than us, except for root, whom it refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("PostgreSQL does not run as root and there is no user postgres or nobody")


def run(
    *command: str | Path, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one PostgreSQL program as the server's user and return what it said."""
    user = server_user()
    # A PG* variable of the caller would send these programs to somebody else's cluster.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=clean | {"LC_ALL": "C"} | (env or {}),
        start_new_session=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )
    if check and done.returncode != 0:
        raise PostgresError(f"{Path(command[0]).name} failed: {done.stdout.strip()}")
    return done


def memory_bytes() -> int:
    """Return the memory we may use: the machine's, or the container's if that is less."""
    amounts = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            amounts.append(int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return min(amounts)


# What people's rows hold never gets into the log: no statement (Django writes values into its own),
# no parameter, no row that a constraint refused, no error of a statement: whoever sent it is told.
# pg_stat_statements counts slow statements, without their values. Given at every start, since a
# cluster keeps the settings that it was made with.
DISCREET = {
    "log_min_messages": "log",  # beyond an error, in PostgreSQL's order
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",  # the statement below a line, as of one that waits
}


def settings_for(binaries: Path, data: Path) -> dict[str, str]:
    """Return the server settings for this machine.  Durability is never traded for speed."""
    memory = memory_bytes()
    roomy_disk = shutil.disk_usage(data).free > 20 * GIB
    shared_memory = Path("/dev/shm")  # noqa: S108  only its size is read
    settings = {
        "listen_addresses": "''",
        "unix_socket_permissions": "0700" if server_user() is None else "0770",
        "max_connections": "200",
        # A sixth of the memory: workers, browsers and tests want the rest.
        "shared_buffers": f"{max(64, min(memory // 6, 4 * GIB) // MIB)}MB",
        "effective_cache_size": f"{memory // 2 // MIB}MB",
        "maintenance_work_mem": f"{max(64, min(memory // 16, GIB) // MIB)}MB",
        "work_mem": "16MB",
        # An acknowledged fix is on the disk, whatever is killed.
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        # Ingest commits in groups already, waiting for more committers only adds latency.
        "commit_delay": "0",
        "wal_compression": "on",
        "max_wal_size": "4GB" if roomy_disk else "1GB",
        "min_wal_size": "1GB" if roomy_disk else "80MB",
        "wal_buffers": "32MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        # Every statement of the road is short; compiling one costs more than running it.
        "jit": "off",
        "random_page_cost": "1.1",
        "effective_io_concurrency": "200" if sys.platform == "linux" else "0",
        "dynamic_shared_memory_type": "posix",
        # Vacuum early and a little, not late and long. What every fix changes has settings of its
        # own (migration 0009 of devices).
        "autovacuum_naptime": "15s",
        "autovacuum_vacuum_scale_factor": "0.05",
        "autovacuum_analyze_scale_factor": "0.2",
        "autovacuum_vacuum_cost_limit": "1000",
        "track_io_timing": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_lock_waits": "on",
    }
    if shared_memory.exists() and not (
        may_enter(server_user(), shared_memory) and shutil.disk_usage(shared_memory).total >= GIB
    ):
        # A container's 64 MB are too few for parallel index builds.
        settings["dynamic_shared_memory_type"] = "mmap"
    if version_of(binaries) >= 15 and accepts(binaries, data, "wal_compression=lz4"):
        settings["wal_compression"] = "lz4"
    if (binaries.parent / "lib" / "pg_stat_statements.so").exists():
        settings["shared_preload_libraries"] = "pg_stat_statements"
    return settings


def accepts(binaries: Path, data: Path, setting: str) -> bool:
    """Say whether this build of the server knows a setting's value."""
    probe = run(binaries / "postgres", "-D", data, "-c", setting, "-C", "port", check=False)
    return probe.returncode == 0


def may_enter(user: pwd.struct_passwd | None, folder: Path) -> bool:
    """Say whether a user (or we) may work in a folder, which all those above it must allow."""
    probe = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1" && test -w .', "sh", str(folder)],
        check=False,
        cwd="/",
        stderr=subprocess.DEVNULL,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )
    return probe.returncode == 0


def give_to_server(path: Path) -> None:
    """Let the server's user own a file that we wrote as root."""
    user = server_user()
    if user:
        os.chown(path, user.pw_uid, user.pw_gid)
