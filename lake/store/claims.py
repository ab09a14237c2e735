"""Claims that survive a restart of the database, with a note of who holds each."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lake.errors import LightlakeError
from lake.redact import safe_line
from lake.store.catalog import Catalog
from lake.store.storage import Storage, remove, write_text

if TYPE_CHECKING:
    from upath import UPath

# A holder checks its claim this often, seconds.
KEEP_S = 3.0

# Containers may share a name and a process number.
_PROCESS = uuid.uuid4().hex


@dataclass(frozen=True)
class Holder:
    """The holder of a claim, as it noted itself."""

    what: str
    host: str
    pid: int
    since: str
    process: str = ""
    ending: bool = False

    @classmethod
    def this(cls, what: str, *, ending: bool = False) -> Holder:
        """Describe this process."""
        return cls(what, socket.gethostname(), os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M}", _PROCESS, ending)

    @property
    def is_this(self) -> bool:
        """Say whether the holder is this process."""
        return self.process == _PROCESS

    def __str__(self) -> str:
        return safe_line(f"{self.what}, process {self.pid} on {self.host}, since {self.since} UTC")


def holder_of(storage: Storage, name: str) -> Holder | None:
    """Return the last holder of a claim, who may have ended; None without a note."""
    try:
        return Holder(**json.loads(_note(storage, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def note(storage: Storage, name: str, holder: Holder) -> None:
    """Note who holds a claim. It is only information: a failure is ignored."""
    try:
        write_text(_note(storage, name), json.dumps(asdict(holder)))
    except OSError:
        with suppress(OSError):
            remove(_note(storage, name))  # an old note would name another holder


@contextmanager
def held(catalog: Catalog, name: str, what: str | None = None) -> Iterator[bool]:
    """Hold a claim during a piece of work; yields False if another process holds it.

    A claim in PostgreSQL ends with its connection, such as when the database is restarted. It is then claimed again.

    Parameters
    ----------
    name
        Name of the claim.
    what
        Description of the holder, for the others; None: no note.
    """
    with ExitStack() as claims:
        if not claims.enter_context(catalog.claim(name, strict=what is not None)):
            yield False
            return
        if what is not None:
            note(catalog.storage, name, Holder.this(what))
        done = threading.Event()
        keeper = threading.Thread(target=_keep, args=(catalog, name, what, done), name=f"claim {name}", daemon=True)
        keeper.start()
        try:
            yield True
        finally:
            done.set()
            keeper.join()
            if what is not None and (last := holder_of(catalog.storage, name)) is not None and last.is_this:
                with suppress(OSError):
                    remove(_note(catalog.storage, name))


def is_free(catalog: Catalog, name: str, *, strict: bool = True) -> bool:
    """Say whether a claim is free just now."""
    with catalog.claim(name, strict=strict) as free:
        return free


def _keep(catalog: Catalog, name: str, what: str | None, done: threading.Event) -> None:
    """Claim again whenever the claim is found free before the work is done."""
    with ExitStack() as claims:
        while not done.wait(KEEP_S):
            # The work itself meets the same error of the catalogue.
            with suppress(LightlakeError):
                again: Any = catalog.claim(name, strict=what is not None)
                if again.__enter__():
                    claims.push(again)
                else:
                    again.__exit__(None, None, None)


def _note(storage: Storage, name: str) -> UPath:
    return storage.staging / "claims" / f"{name}.json"
