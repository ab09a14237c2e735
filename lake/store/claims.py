"""Claims that last: who holds one is written down, and what a restarted database forgot is taken anew."""

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
from typing import Any

from upath import UPath

from lake.errors import LightlakeError
from lake.redact import safe_line
from lake.store.catalog import Catalog
from lake.store.storage import Storage, remove, write_text

# Seconds until a holder looks whether its claim is still held.
KEEP_S = 3.0

# Containers may have the same name, and all the same process number.
_PROCESS = uuid.uuid4().hex


@dataclass(frozen=True)
class Holder:
    """Who holds a claim, as it said itself."""

    what: str
    host: str
    pid: int
    since: str
    process: str = ""
    ending: bool = False

    @classmethod
    def this(cls, what: str, *, ending: bool = False) -> Holder:
        """Return this process."""
        return cls(what, socket.gethostname(), os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M}", _PROCESS, ending)

    @property
    def is_this(self) -> bool:
        """Say whether it is this process."""
        return self.process == _PROCESS

    def __str__(self) -> str:
        return safe_line(f"{self.what}, process {self.pid} on {self.host}, since {self.since} UTC")


def holder_of(storage: Storage, name: str) -> Holder | None:
    """Return who held a claim last; None if nobody has said so. Whether it still does is for the claim to say."""
    try:
        return Holder(**json.loads(_note(storage, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def note(storage: Storage, name: str, holder: Holder) -> None:
    """Write down who holds a claim; it is a courtesy, which nothing else waits for."""
    try:
        write_text(_note(storage, name), json.dumps(asdict(holder)))
    except OSError:
        with suppress(OSError):
            remove(_note(storage, name))  # it would name another


@contextmanager
def held(catalog: Catalog, name: str, what: str | None = None) -> Iterator[bool]:
    """Hold a claim for as long as a piece of work takes; yields whether it was to be had.

    A claim in PostgreSQL ends with its connection, which ends when the database is restarted. This one is then taken
    anew.

    Parameters
    ----------
    name
        Of the claim.
    what
        Who this is, for those who do not get it; None: nobody will ask.
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
    """Say whether nobody holds a claim just now."""
    with catalog.claim(name, strict=strict) as free:
        return free


def _keep(catalog: Catalog, name: str, what: str | None, done: threading.Event) -> None:
    """Take a claim again whenever it is found free, though its work is not done."""
    with ExitStack() as claims:
        while not done.wait(KEEP_S):
            # What the catalogue has against it, whoever works with it finds out.
            with suppress(LightlakeError):
                again: Any = catalog.claim(name, strict=what is not None)
                if again.__enter__():
                    claims.push(again)
                else:
                    again.__exit__(None, None, None)


def _note(storage: Storage, name: str) -> UPath:
    return storage.staging / "claims" / f"{name}.json"
