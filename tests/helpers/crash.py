"""What child processes do in the tests of crashes: commit, and die at a named step or be killed."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import lake.commit.commit
import lake.commit.intents
import lake.commit.transaction
import lake.upkeep.renaming
from helpers.granules import Version, committed, staged
from lake.commit.commit import commit
from lake.commit.staging import Manifest
from lake.errors import CatalogError
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage, path_of
from lake.upkeep.compaction import compact

# Every step of a commit, in order; a number is how often it happens before the end comes.
STEPS = (
    "after BEGIN 1",
    "before intent 1",
    "after intent 1",
    "after publish 1",
    "after publish 3",
    "after publish 5",
    "after delete 1",
    "after ledger 1",
    "after add_file 1",
    "after add_file 5",
    "after files 1",
    "before COMMIT 1",
    "after COMMIT 1",
    "before unlink 1",
    "before discard 1",
)


def child(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a process that has everything imported but shares nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.crash"])
    # Else its environment would be that of the first test that has started one.
    process = context.Process(target=_in_environment, args=(dict(os.environ), target, arguments), daemon=True)
    process.start()
    return process


def _in_environment(environment: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def opened(settings: Settings) -> Catalog:
    """Open the lake of some settings."""
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.open()
    return catalog


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Deadly:
    """A cursor that ends the process at a statement."""

    def __init__(self, cursor: Any, passes: Callable[[str], None]) -> None:
        self._cursor, self._passes = cursor, passes

    def execute(self, sql: str, *arguments: Any) -> Any:
        words = {"DELETE": "delete", "INSERT": "insert", "BEGIN": "BEGIN", "COMMIT": "COMMIT"}
        word = words.get(sql.split(" ", 1)[0], "other")
        self._passes(f"before {word}")
        result = self._cursor.execute(sql, *arguments)
        self._passes(f"after {word}")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def commit_and_die(settings: Settings, folder: str, step: str) -> None:
    """Commit a staged granule and end with SIGKILL at a step."""
    name, _, times = step.rpartition(" ")
    left = {name: int(times)}

    def passes(where: str) -> None:
        if where in left:
            left[where] -= 1
            if left[where] == 0:
                _die()

    def deadly(owner: Any, attribute: str, label: str, only: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(owner, attribute)

        def wrapped(*arguments: Any) -> Any:
            if not only(*arguments):
                return original(*arguments)
            passes(f"before {label}")
            result = original(*arguments)
            passes(f"after {label}")
            return result

        setattr(owner, attribute, wrapped)

    deadly(lake.commit.intents.Intent, "write", "intent")
    deadly(lake.commit.transaction, "publish", "publish")
    deadly(lake.commit.transaction, "add_file", "add_file")
    deadly(lake.commit.transaction, "record_files", "files")
    deadly(lake.commit.commit.ledger, "record", "ledger")
    deadly(lake.commit.transaction, "remove", "unlink", lambda path: path.suffix == ".json")
    deadly(lake.commit.commit, "remove_folder", "discard")
    catalog = opened(settings)
    original = catalog.cursor
    catalog.cursor = lambda: _Deadly(original(), passes)  # type: ignore[method-assign, assignment, return-value]
    manifest = Manifest.read(path_of(folder))
    assert manifest is not None
    commit(catalog, manifest)


def migrate_and_die(settings: Settings, step: str) -> None:
    """Make or migrate a lake, and end with SIGKILL at a statement: ``before BEGIN``, ``after COMMIT``, or its number.

    Numbers count from the beginning of the transaction that migrates.
    """
    word, _, number = step.partition(" statement ")
    done = 0

    def passes(where: str) -> None:
        nonlocal done
        begun = done or where == "after BEGIN"
        done += begun and where.startswith(word)
        if where == step or (number and done == int(number) + 1):
            _die()

    catalog = Catalog(Storage.from_url(settings.url), settings)
    original = catalog.cursor
    catalog.cursor = lambda: _Deadly(original(), passes)  # type: ignore[method-assign, assignment, return-value]
    catalog.create()


def rename_and_die(settings: Settings, step: str) -> None:
    """Rename archives and end with SIGKILL at a statement, such as ``before insert 3``, or ``before compact``."""
    name, _, times = step.rpartition(" ")
    left = int(times) if times.isdigit() else 0

    def passes(where: str) -> None:
        nonlocal left
        left -= where == name
        if where == name and left == 0:
            _die()

    catalog = opened(settings)
    original = catalog.cursor
    catalog.cursor = lambda: _Deadly(original(), passes)  # type: ignore[method-assign, assignment, return-value]
    if step == "before compact":
        lake.upkeep.renaming.compact = lambda catalog: _die()  # type: ignore[assignment, misc, return-value]
    lake.upkeep.renaming.rename_archives(catalog)


def change_targets_and_die(settings: Settings, change: Callable[..., object], step: str, *arguments: str) -> None:
    """Remove or rename a target and end with SIGKILL at a statement, such as ``after delete 2``."""
    name, _, times = step.rpartition(" ")
    left = int(times)

    def passes(where: str) -> None:
        nonlocal left
        left -= where == name
        if left == 0:
            _die()

    catalog = opened(settings)
    original = catalog.cursor
    catalog.cursor = lambda: _Deadly(original(), passes)  # type: ignore[method-assign, assignment, return-value]
    change(catalog, *arguments)


def work(
    settings: Settings,
    granules: Iterable[tuple[str, Mapping[int, Version]]],
    again: int = 0,
    compact_every: int = 0,
    ready: Connection | None = None,
) -> None:
    """Commit granules one after the other, those of the ledger excepted; compact now and then.

    A message through `ready` says that the lake is open and the first commit about to begin.
    """
    catalog = opened(settings)
    cursor = catalog.cursor()
    started = {(row[0], row[1].second) for row in cursor.execute("SELECT granule, started_at FROM ledger").fetchall()}
    cursor.close()
    if ready is not None:
        ready.send(True)
    for number, (granule, sources) in enumerate(granules):
        if (granule, again) in started:
            continue
        committed(catalog, sources, granule, again=again)
        if compact_every and number % compact_every == compact_every - 1:
            compact(catalog)
    catalog.close()


def fill_the_disk(settings: Settings) -> None:
    """Stage and commit while no file may grow, then try again while they may."""
    catalog = opened(settings)
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, no_limit[1]))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit(100)
    try:
        staged(catalog, range(5, 15), "g1")
        raise AssertionError("staging on a full disk did not fail")
    except OSError:
        limit(no_limit[0])
    manifest = staged(catalog, {**dict.fromkeys(range(5, 15), 1), 7: 2}, "g1")
    limit(600)
    try:
        commit(catalog, manifest)
        raise AssertionError("committing on a full disk did not fail")
    except (CatalogError, OSError):
        pass
    limit(no_limit[0])
    assert commit(catalog, manifest).replaced == 1
