"""GAVO DaCHS on a PostgreSQL of its own: a real TAP service that stands in for Gaia's archive and HEASARC's.

On Debian: apt-get install --no-install-recommends python3-gavo postgresql-15-pgsphere postgresql-15-q3c
postgresql-contrib. Not `gavodachs2-server`, which wants a system-wide PostgreSQL that runs.
"""

from __future__ import annotations

import grp
import io
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self
from xml.sax.saxutils import quoteattr

import httpx
import pyarrow as pa
import pyarrow.csv
import pytest

_TYPES = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.large_string(): "text",
}
# An integer column with NULLs needs a number that stands for NULL in a VOTable.
_NULLS = {"smallint": -(2**15), "integer": -(2**31), "bigint": -(2**63)}
_UCDS = {"ra": "pos.eq.ra;meta.main", "dec": "pos.eq.dec;meta.main"}

_SETTINGS = """\
[general]
rootDir: {folder}/root
gavoGroup: {group}
group: {group}
tempDir: {folder}/root/tmp
cacheDir: {folder}/root/cache
[web]
serverURL: http://127.0.0.1:{port}
bindAddress: 127.0.0.1
serverPort: {port}
user: {user}
sitename: Stand-in
maxSyncUploadSize: 20000000
[ivoa]
authority: stand-in.invalid
[async]
defaultMAXREC: 100000
[db]
indexWorkMem: 64
"""
# A server of a test may lose its data with the machine, and one session needs few of its connections.
_POSTGRES = (
    "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c max_connections=40 "
    "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
)


def _postgres_binaries() -> Path | None:
    """Where the newest PostgreSQL with both of DaCHS's extensions is."""
    for binaries in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        extensions = Path("/usr/share/postgresql") / binaries.parent.name / "extension"
        wanted = [extensions / "q3c.control", extensions / "pg_sphere.control", binaries / "pg_ctl"]
        if all(path.exists() for path in wanted):
            return binaries
    return None


def installed() -> str | None:
    """What is missing to run DaCHS here; None if nothing is."""
    if shutil.which("dachs") is None:
        return "no DaCHS: the command dachs is not in PATH (Debian: python3-gavo)"
    if _postgres_binaries() is None:
        return "no PostgreSQL with q3c and pgsphere (Debian: postgresql-15-q3c postgresql-15-pgsphere)"
    return None


@dataclass
class Dachs:
    """A running DaCHS.

    Attributes
    ----------
    folder
        Where it keeps everything; removed by whoever made it.
    port
        The port of its web server on 127.0.0.1.
    database_port
        The port of its PostgreSQL on 127.0.0.1, superuser `postgres`, database `gavo`, no password.
    timings
        Seconds that each step of the start took.
    """

    folder: Path
    port: int
    database_port: int
    timings: dict[str, float] = field(default_factory=dict)
    _server: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    @classmethod
    def start(cls, folder: Path, tables: Mapping[str, pa.Table]) -> Self:
        """Make a new one under a folder that everybody can reach, and serve these tables.

        Parameters
        ----------
        folder
            An empty folder; its path must be short, for it holds a socket.
        tables
            Rows by the name that queries use: "gaiadr3.gaia_source", or "fermigtrig" without a schema.
        """
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            dachs = cls(folder, one.getsockname()[1], other.getsockname()[1])
        try:
            dachs._timed("initdb", dachs._start_database)
            dachs._timed("init", dachs._initialise)
            dachs._timed("import", dachs._define, tables)
            dachs._timed("copy", dachs._fill, tables)
            dachs._timed("serve", dachs._serve)
        except BaseException:
            dachs.stop()
            raise
        return dachs

    @property
    def url(self) -> str:
        """Base URL of the TAP service."""
        return f"http://127.0.0.1:{self.port}/tap"

    @property
    def log(self) -> str:
        """The end of what the server has to say."""
        paths = [self.folder / "server.log", self.folder / "root" / "logs" / "dcErrors"]
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in paths if path.exists())

    def sql(self, statement: str, rows: bytes | None = None) -> str:
        """Let psql run a statement as superuser; its rows as lines of |-separated values."""
        psql = self._binaries / "psql"
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "gavo")
        return self._run(psql, *options, "-c", statement, stdin=rows)

    def stop(self) -> None:
        """End the server, its jobs and its database."""
        if self._server is not None:
            # Each job in the UWS is a child in a session of its own, which outlives the server.
            jobs = _children(self._server.pid)
            self._server.terminate()
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            for pid in jobs:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._server = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if (self.folder / "data" / "postmaster.pid").exists():
            self._pg_ctl("-m", "immediate", "stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _timed(self, name: str, step: Any, *arguments: object) -> None:
        began = time.monotonic()
        step(*arguments)
        self.timings[name] = round(time.monotonic() - began, 2)

    @property
    def _binaries(self) -> Path:
        found = _postgres_binaries()
        if found is None:
            raise RuntimeError(installed())
        return found

    @property
    def _account(self) -> pwd.struct_passwd:
        # PostgreSQL refuses to run as root.
        return pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())

    def _as_account(self, *command: str | Path) -> list[str]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        return [*user, *map(str, command)]

    @property
    def _environment(self) -> dict[str, str]:
        # Nothing of ours, above all no PYTHONPATH: DaCHS runs on the system's Python.
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "GAVOSETTINGS": str(self.folder / "gavo.rc"),
            "GAVOCUSTOM": str(self.folder / "none"),
            "PGHOST": str(self.folder),
            "PGPORT": str(self.database_port),
        }

    def _run(self, *command: str | Path, stdin: bytes | None = None) -> str:
        # Files, not pipes: a daemon that the command leaves behind would keep a pipe open.
        with tempfile.TemporaryFile() as out:
            done = subprocess.run(
                self._as_account(*command),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment,
                check=False,
            )
            out.seek(0)
            said = out.read().decode(errors="replace").strip()
        if done.returncode:
            raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {said[-2000:]}")
        return said

    def _pg_ctl(self, *arguments: str) -> None:
        self._run(self._binaries / "pg_ctl", "-s", "-w", "-D", self.folder / "data", *arguments)

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _start_database(self) -> None:
        self.folder.chmod(0o755)
        self._own(self.folder)
        common = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self._run(self._binaries / "initdb", "-D", self.folder / "data", *common)
        options = _POSTGRES.format(port=self.database_port, folder=self.folder)
        self._pg_ctl("-l", str(self.folder / "postgres.log"), "-o", options, "start")

    def _initialise(self) -> None:
        account = self._account
        values = {"folder": self.folder, "port": self.port, "user": account.pw_name}
        settings = self.folder / "gavo.rc"
        settings.write_text(_SETTINGS.format(**values, group=grp.getgrgid(account.pw_gid).gr_name))
        self._own(settings)
        self._run(self._binaries / "createdb", "-U", "postgres", "--template", "template0", "gavo")
        self._run("dachs", "init", "-d", f"host=127.0.0.1 port={self.database_port} dbname=gavo user=postgres")

    def _define(self, tables: Mapping[str, pa.Table]) -> None:
        """One resource descriptor a schema: DaCHS makes the tables, empty and with their indices."""
        schemas: dict[str, dict[str, pa.Table]] = {}
        for name, table in tables.items():
            schema, bare = _split(name)
            schemas.setdefault(schema, {})[bare] = table
        for schema, content in schemas.items():
            folder = self.folder / "root" / "inputs" / schema
            folder.mkdir()
            (folder / "q.rd").write_text(_descriptor(schema, content))
            for path in (folder, folder / "q.rd"):
                self._own(path)
            self._run("dachs", "imp", folder / "q.rd")

    def _fill(self, tables: Mapping[str, pa.Table]) -> None:
        """Rows go straight into PostgreSQL: DaCHS's own reader takes minutes for 100,000s of them."""
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="all_valid")
        for name, table in tables.items():
            # A NULL is an empty value without quotes, as in PostgreSQL.
            text = io.BytesIO()
            pyarrow.csv.write_csv(table, text, options)
            columns = ", ".join(f'"{column}"' for column in table.column_names)
            schema, bare = _split(name)
            self.sql(f"COPY {schema}.{bare} ({columns}) FROM STDIN WITH (FORMAT csv)", text.getvalue())
        self.sql("ANALYZE")

    def _serve(self) -> None:
        self._log = (self.folder / "server.log").open("wb")
        self._server = subprocess.Popen(
            self._as_account("dachs", "serve", "start", "--foreground"),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self._environment,
        )
        patience = time.monotonic() + 60
        while time.monotonic() < patience:
            if self._server.poll() is not None:
                raise RuntimeError(f"DaCHS died with {self._server.returncode}: {self.log}")
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/availability", timeout=20).is_success:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"DaCHS does not answer after 60 s: {self.log}")


def _split(name: str) -> tuple[str, str]:
    # Tables in PostgreSQL's schema `public` answer to their bare name, as all do at HEASARC.
    schema, _, bare = name.rpartition(".")
    return schema or "public", bare


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    return []


def _descriptor(schema: str, tables: Mapping[str, pa.Table]) -> str:
    parts = [
        f'<resource schema="{schema}" resdir="{schema}">',
        f'<meta name="title">Stand-in for {schema}</meta>',
        '<meta name="creationDate">2026-01-01T00:00:00Z</meta>',
        f'<meta name="description">Made-up rows of {schema}.</meta>',
        '<meta name="subject">catalogs</meta>',
        '<meta name="creator">Tests</meta>',
    ]
    for name, table in tables.items():
        indexed = ' mixin="//scs#q3cindex"' if {"ra", "dec"} <= set(table.column_names) else ""
        parts.append(f'<table id="{name}" onDisk="True" adql="True"{indexed}>')
        parts += [_column(one, table[one.name].null_count > 0) for one in table.schema]
        parts.append("</table>")
    parts += ['<data id="import">', *(f'<make table="{name}"/>' for name in tables), "</data>", "</resource>"]
    return "\n".join(parts)


def _column(column: pa.Field, has_nulls: bool) -> str:
    kind = _TYPES[column.type]
    text = f'<column name={quoteattr(column.name)} type="{kind}" ucd="{_UCDS.get(column.name, "")}"'
    if kind not in _NULLS:
        return text + "/>"
    if not has_nulls:
        return text + ' required="True"/>'
    return f'{text}><values nullLiteral="{_NULLS[kind]}"/></column>'


@contextmanager
def running(tables: Mapping[str, pa.Table]) -> Iterator[Dachs]:
    """What a session fixture yields: DaCHS with these tables; where it is not installed, the tests are skipped."""
    if reason := installed():
        if "dachs" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not in pytest's own folders: other users cannot reach those, and their paths are long for a socket.
    with tempfile.TemporaryDirectory(prefix="dachs") as name, Dachs.start(Path(name), tables) as dachs:
        yield dachs
