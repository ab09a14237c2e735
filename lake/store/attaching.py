"""SQL that attaches a lake in any DuckDB client."""

from __future__ import annotations

from lake.store.connection import CONSISTENT_SCANS
from lake.store.location import CatalogLocation
from lake.store.s3 import s3_secret
from lake.store.storage import Storage

ATTACHED_FOR_WRITING = (
    "Warning: writes of this client bypass the lake's lock and its commit rule; stop all pulls and make a backup "
    "before, and run lightlake verify afterwards"
)


def attach_snippet(location: CatalogLocation, storage: Storage, *, write: bool = False) -> str:
    """Return the SQL that attaches a lake in a stock DuckDB client.

    Parameters
    ----------
    location, storage
        Of its catalogue and its files.
    write
        Attach it for writing, which bypasses the lake's lock and its commit rule.
    """
    extensions = ["ducklake", "sqlite" if location.kind == "sqlite" else "postgres"]
    if not storage.is_local:
        extensions.append("httpfs")
    lines = [f"INSTALL {name}; LOAD {name};" for name in extensions]
    if not storage.is_local:
        lines.append(s3_secret(storage).replace("OR REPLACE ", "") + ";")
    if location.kind == "sqlite":
        lines.append(f"{CONSISTENT_SCANS};")
    if write:
        lines.insert(0, f"-- {ATTACHED_FOR_WRITING}")
    return "\n".join([*lines, f"{location.attach_statement(storage, read_only=not write)};", "USE lake;"])
