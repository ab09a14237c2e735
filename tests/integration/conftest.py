"""A PostgreSQL server of our own, and a lake on either kind of catalogue."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import page  # noqa: F401
from helpers.dachs import Dachs, running
from helpers.processes import run  # noqa: F401
from helpers.servers import (  # noqa: F401
    archive_root,
    prefect_on_postgres,
    prefect_server,
    pull_settings,
    rows,
    sandbox,
)
from helpers.tap_tables import TABLES

from lake.catalog import Catalog
from lake.settings import Settings, load_settings
from lake.storage import Storage


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return Path(found).parent if found else installed[-1].parent if installed else None


def _missing(reason: str) -> None:
    if "postgres" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", ""):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Connection string of a new PostgreSQL server."""
    binaries = _binaries()
    if binaries is None:
        _missing("no PostgreSQL: pg_ctl is neither in PATH nor in /usr/lib/postgresql/*/bin")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # PostgreSQL refuses to run as root.
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        if user:
            folder.chmod(0o755)
            shutil.chown(folder, "postgres")

        def run(*command: str | Path) -> None:
            done = subprocess.run([*user, *command], capture_output=True, text=True, cwd=folder)
            if done.returncode:
                _missing(f"PostgreSQL does not start: {done.stderr.strip()[-300:]}")

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = folder / "data"
        run(binaries / "initdb", "-D", data, "-A", "trust", "-U", "lightlake", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        # Its output goes to a file: else it would keep our pipe open.
        run(binaries / "pg_ctl", "-s", "-w", "-D", data, "-l", folder / "log", "-o", options, "start")
        try:
            yield f"host=127.0.0.1 port={port} user=lightlake dbname=postgres"
        finally:
            run(binaries / "pg_ctl", "-s", "-w", "-m", "immediate", "-D", data, "stop")


@pytest.fixture(scope="session")
def dachs() -> Iterator[Dachs]:
    """DaCHS, a real TAP service, with the tables of helpers.tap_tables."""
    with running(TABLES) as service:
        yield service


# On S3, in tests of crashes, with LIGHTLAKE_TEST_FULL only; some of its steps are in test_s3_lake.py.
_SERVED = ("postgres", *(("s3", "s3 postgres") if os.environ.get("LIGHTLAKE_TEST_FULL") else ()))
_PLACES = ["sqlite", *(pytest.param(place, marks=pytest.mark.server) for place in _SERVED)]


@pytest.fixture(params=_PLACES)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a lake on disk or on S3, with its catalogue in SQLite or in PostgreSQL."""
    catalog = f"sqlite:{tmp_path / 'catalog.sqlite'}" if request.param == "s3" else None
    if "postgres" in request.param:
        catalog = f"postgres:{request.getfixturevalue('postgres')} schema=lake_{uuid.uuid4().hex[:12]}"
    url = request.getfixturevalue("s3_lake") if "s3" in request.param else str(tmp_path / "lake")
    return load_settings(url=url, catalog=catalog, lock_timeout_s=60.0)


@pytest.fixture
def anywhere_catalog(anywhere: Settings, request: pytest.FixtureRequest) -> Iterator[Catalog]:
    """The open catalogue of a new lake on either."""
    if anywhere.catalog is None:
        shutil.copytree(request.getfixturevalue("template"), anywhere.url)
    catalog = Catalog(Storage.from_url(anywhere.url), anywhere)
    catalog.create()
    yield catalog
    catalog.close()
