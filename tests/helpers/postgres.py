"""A real PostgreSQL server for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest

from lake.store.connection import extension_file


def binaries() -> Path | None:
    """Where the server's programs are: in PATH, or where Debian puts them."""
    found = shutil.which("pg_ctl")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return Path(found).parent if found else installed[-1].parent if installed else None


@dataclass
class Postgres:
    """A server in a folder of its own.

    Attributes
    ----------
    folder
        Its data and its log; PostgreSQL refuses to run as root, so root gives it to the user postgres.
    port
        On 127.0.0.1.
    """

    folder: Path
    port: int
    user: list[str] = field(default_factory=list)

    @property
    def connection(self) -> str:
        """Connection string of its owner."""
        return f"host=127.0.0.1 port={self.port} user=lightlake dbname=postgres"

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of its programs."""
        folder = binaries()
        assert folder is not None
        command = [*self.user, folder / program, "-D", self.folder / "data", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise ChildProcessError(f"{program} failed: {done.stderr.strip()[-300:]}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # Its output goes to a file: else it would keep our pipe open.
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        )
        self.run("pg_ctl", "-s", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: fast ends its sessions in order, immediate is a crash."""
        self.run("pg_ctl", "-s", "-w", "-m", mode, "stop")


@contextmanager
def running() -> Iterator[Postgres]:
    """Make a server and start it; it is gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        if user:
            folder.chmod(0o755)
            shutil.chown(folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = Postgres(folder, port, user)
        server.run("initdb", "-A", "trust", "-U", "lightlake", "-E", "UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Connection string of a new PostgreSQL server; where it is not installed, the tests are skipped."""
    if binaries() is None:
        reason = "no PostgreSQL: pg_ctl is neither in PATH nor in /usr/lib/postgresql/*/bin"
        if "postgres" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    with running() as server:
        yield server.connection


@contextmanager
def administrator(connection: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of the server's owner."""
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as one:
        one.execute(f"LOAD '{extension_file('postgres_scanner')}'")
        one.execute(f"ATTACH '{connection}' AS server (TYPE postgres)")
        yield one


def end_lock_sessions(server: duckdb.DuckDBPyConnection) -> int:
    """End all sessions that hold an advisory lock, as an administrator; return how many."""
    query = (
        "SELECT count(pg_terminate_backend(pid)) AS ended FROM pg_locks "
        "WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
    )
    return int(server.execute("FROM postgres_query('server', ?)", [query]).fetchall()[0][0])
