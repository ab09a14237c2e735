"""A PostgreSQL server of our own, and a lake on either kind of catalogue."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import page  # noqa: F401
from helpers.dachs import Dachs, running
from helpers.postgres import postgres  # noqa: F401
from helpers.processes import run  # noqa: F401
from helpers.proxy import Proxy, proxy
from helpers.servers import (  # noqa: F401
    archive_root,
    own_prefect,
    prefect_on_postgres,
    prefect_server,
    pull_settings,
    rows,
    sandbox,
    send_what_is_left,
)
from helpers.tap_tables import TABLES

from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage


@pytest.fixture(autouse=True)
def _events_go_to_the_server_of_the_test(request: pytest.FixtureRequest) -> None:
    """Begin with a new sender of events: Prefect's client has one, which stays with the server that it saw first."""
    if request.node.get_closest_marker("prefect") or request.node.get_closest_marker("server"):
        send_what_is_left()


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


@pytest.fixture
def faulty(postgres: str) -> Iterator[Proxy]:  # noqa: F811
    """A proxy before PostgreSQL."""
    place = dict(part.split("=", 1) for part in postgres.split())
    with proxy(place["host"], int(place["port"])) as one:
        yield one


@pytest.fixture
def through(faulty: Proxy, postgres: str, tmp_path: Path) -> Settings:  # noqa: F811
    """Settings of a new lake whose catalogue is reached through the proxy."""
    place = dict(part.split("=", 1) for part in postgres.split())
    where = f"host=127.0.0.1 port={faulty.port} user={place['user']} dbname={place['dbname']}"
    return load_settings(
        url=str(tmp_path / "lake"), catalog=f"postgres:{where} schema=lake_{uuid.uuid4().hex[:12]}", lock_timeout_s=30.0
    )


@pytest.fixture
def new(through: Settings) -> Iterator[Catalog]:
    """Its open catalogue."""
    catalog = Catalog(Storage.from_url(through.url), through)
    catalog.create()
    yield catalog
    catalog.close()
