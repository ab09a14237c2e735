"""Fixtures that all tests share. Nothing here reads the user's environment or home."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import profiles
from helpers.names import services  # noqa: F401
from helpers.s3 import S3, running

from lake.query import Lake
from lake.settings import Settings, load_settings
from lake.settings import settings as cached_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

# Where bytecode is not kept, each of the hundreds of processes that tests start would compile all that it imports.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

# Shells start what runs in the background deaf to Ctrl-C, and its child processes, too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Fill = Callable[[Catalog], None]

# Files that take longest, much of it waiting: begun last, they would keep one process busy and the others idle.
_LONG = (
    "test_tutorials",
    "test_pages",
    "test_slurm",
    "test_virac_flow",
    "test_lost_answers",
    "test_tap_lake",
    "test_workers",
    "test_killed_service",
    "test_prefect_server",
    "test_demo",
    "test_ui",
    "test_hst",
    "test_flows",
    "test_service",
    "test_new_release",
    "test_kill",
    "test_lost_connections",
    "test_hst_kill",
    "test_engine",
    "test_run_by_file",
    "test_rxte_flow",
    "test_rxte_run",
    "test_restore",
    "test_target_changes",
    "test_cli",
    "test_maintenance",
    "test_pull",
    "test_rxte_pull",
    "test_commits",
    "test_names_command",
    "test_one_line",
    "test_commit",
    "test_virac_run",
    "test_real_files",
)

# Fixtures that start something, and the markers of tests that have them.
_STARTS = {"prefect_server": ("prefect",), "page": ("browser", "server"), "slurm": ("cluster", "server")}

profiles.settings.load_profile("few")  # pytest's own --hypothesis-profile comes after


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; then those of most tests, as xdist does by itself."""
    for item in items:
        for fixture in _STARTS.keys() & item.fixturenames:  # type: ignore[attr-defined]
            for marker in _STARTS[fixture]:
                item.add_marker(marker)
    counts = Counter(item.path for item in items)
    order = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: (order.get(item.path.stem, len(order)), -counts[item.path], str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """Spare each commit of a test the hundredth of a second for each file: nobody pulls the plug here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real archive data: LIGHTLAKE_TEST_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("LIGHTLAKE_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real archive data at {folder}; set LIGHTLAKE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """Folder of small inputs that go wrong: LIGHTLAKE_TEST_CASES, or shared/cases beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "cases"
    data = os.environ.get("LIGHTLAKE_TEST_DATA")
    if data and not beside.is_dir():
        beside = Path(data).parent / "cases"
    folder = Path(os.environ.get("LIGHTLAKE_TEST_CASES") or beside)
    if not folder.is_dir():
        pytest.skip(f"no odd inputs at {folder}; set LIGHTLAKE_TEST_CASES")
    return folder


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LIGHTLAKE_") and not name.startswith("LIGHTLAKE_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    # Several test processes share two cores, and lakes of tests are small: more threads only cost.
    monkeypatch.setenv("LIGHTLAKE_DUCKDB_THREADS", "1")
    cached_settings.cache_clear()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real S3 server."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def s3_bucket(s3: S3) -> str:
    """One bucket for all lakes: the server makes seven volumes for each."""
    return s3.bucket("lakes")


@pytest.fixture
def lake_place(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Where the lake of a test lives: on disk, or with LIGHTLAKE_TEST_LAKE=s3 on S3, its catalogue on disk.

    Flows and commands read of the catalogue in their environment.
    """
    if os.environ.get("LIGHTLAKE_TEST_LAKE") != "s3":
        return {"url": str(tmp_path / "lake")}
    catalog = f"sqlite:{tmp_path / 'catalog.sqlite'}"
    monkeypatch.setenv("LIGHTLAKE_CATALOG", catalog)
    return {"url": request.getfixturevalue("s3_lake"), "catalog": catalog}


@pytest.fixture
def s3_lake(s3: S3, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a lake to be, with the environment that reaches it."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_bucket}/{uuid.uuid4().hex[:12]}/lake"


@pytest.fixture
def on_disk() -> None:
    """What only holds of a lake on disk."""
    if os.environ.get("LIGHTLAKE_TEST_LAKE") == "s3":
        pytest.skip("of a lake on disk")


@pytest.fixture
def settings(tmp_path: Path, lake_place: dict[str, Any]) -> Settings:
    """Settings of a test: nothing of the user's, and short waits."""
    return load_settings(**lake_place, cache_dir=tmp_path / "cache", lock_timeout_s=30.0)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new lake, made once; a test gets a copy, as a lake may be moved."""
    root = tmp_path_factory.mktemp("template") / "lake"
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    catalog.create()
    catalog.close()
    return root


def _is_copied(catalog: Catalog) -> bool:
    """Say whether the catalogue lies in the tree of its lake, and was copied with it."""
    return catalog.storage.is_local and catalog.settings.catalog is None


@pytest.fixture
def catalog(template: Path, settings: Settings) -> Iterator[Catalog]:
    """The catalogue of an empty lake; attaching it takes longer than copying it, and not every test does."""
    catalog = Catalog(Storage.from_url(settings.url), settings)
    if catalog.storage.is_local:
        shutil.copytree(template, settings.url)
    if not _is_copied(catalog):
        catalog.create()
    yield catalog
    catalog.close()


@pytest.fixture(scope="session")
def _filled() -> dict[Fill, Path]:
    return {}


@pytest.fixture
def prepared(
    catalog: Catalog, template: Path, tmp_path_factory: pytest.TempPathFactory, _filled: dict[Fill, Path]
) -> Callable[[Fill], Catalog]:
    """Fill the lake of a test as a function does; it runs once, and later tests get a copy of what it made."""

    def prepare(fill: Fill) -> Catalog:
        root = Path(str(catalog.storage.root))
        if not _is_copied(catalog):
            fill(catalog)
            return catalog
        if fill not in _filled:
            made = tmp_path_factory.mktemp("filled") / "lake"
            shutil.copytree(template, made)
            first = Catalog(Storage(made), load_settings(url=str(made)))
            fill(first)
            first.close()
            _filled[fill] = made
        shutil.rmtree(root)
        shutil.copytree(_filled[fill], root)
        return catalog

    return prepare


@pytest.fixture
def lake(catalog: Catalog, settings: Settings) -> Iterator[Lake]:
    """The same lake, open for questions and for commits."""
    with Lake(settings.url, settings, writable=True) as lake:
        yield lake
