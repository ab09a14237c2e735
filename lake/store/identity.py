"""The id of a lake, which its tree and its catalogue carry. They refuse each other if the ids differ.

Without it, a new catalogue, or one of another lake, would treat every file of the tree as unknown.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection

from lake.errors import CatalogError, ConfigurationError, NoLake
from lake.store.storage import Storage, write_text
from lake.text import counted

# The page that helps with errors from here.
HELP_TOPIC = "how-to/backups"

MARK = "lake.json"
# What an attempt to make a lake may have left in its folder.
_OWN = ("catalog.", "staging")


def new_id() -> str:
    """Make an id for a new lake."""
    return uuid.uuid4().hex


def tree_id(storage: Storage) -> str | None:
    """Read the id of a tree; None if it has none.

    Raises
    ------
    CatalogError
        If there is an id file, but it cannot be read.
    """
    path = storage.root / MARK
    try:
        with storage.reached():
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                return None
        found = json.loads(text)["lake_id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CatalogError(
            f"cannot read the lake's id file {path}: {type(error).__name__}: {error}",
            hint="move the file away, then run: lightlake init",
        ) from error
    return str(found)


def mark_tree(storage: Storage, lake_id: str) -> None:
    """Write the id into the tree."""
    with storage.reached():
        write_text(storage.root / MARK, json.dumps({"lake_id": lake_id}) + "\n")


def has_data(storage: Storage) -> bool:
    """Say whether the tree has any Parquet file."""
    with storage.reached():
        return next(iter((storage.data / "main").rglob("*.parquet")), None) is not None


def check_same(storage: Storage, catalogue: str, own_id: str | None) -> None:
    """Check that a tree and a catalogue belong to the same lake.

    Parameters
    ----------
    storage
        The tree.
    catalogue
        The catalogue's name, for messages.
    own_id
        The catalogue's id.

    Raises
    ------
    CatalogError
        If the ids differ, or the tree has none.
    """
    of_tree = tree_id(storage)
    if of_tree is None:
        raise CatalogError(
            f"the tree at {storage.root} is not marked as that of the catalogue {catalogue}",
            hint="bring the lake's files back there; if they are there, run: lightlake init",
        )
    if own_id != of_tree:
        raise CatalogError(
            f"the catalogue {catalogue} is not that of the tree at {storage.root}",
            hint="set LIGHTLAKE_CATALOG to the lake's own catalogue, or restore that with: lightlake restore",
        )


def no_lake(storage: Storage, catalogue: str, place: str | None = None) -> CatalogError:
    """Return the exception for a missing or empty catalogue: a tree with data lost its own, or there is no lake."""
    if has_data(storage):
        return CatalogError(
            f"the tree at {storage.root} has the data of a lake, but the catalogue {catalogue} has none",
            hint="restore the catalogue with: lightlake restore, or set LIGHTLAKE_CATALOG to the lake's own",
        )
    return NoLake(
        f"there is no lake {place or f'in the catalogue {catalogue}'}",
        hint=f"make one with: lightlake init {storage.root}; or name yours with --lake or LIGHTLAKE_URL",
    )


def check_room(storage: Storage) -> None:
    """Check that a folder for a new lake holds nothing else, but for hidden files.

    Raises
    ------
    ConfigurationError
        If it does: a lake among other files is a mistake, such as a forgotten name of its own folder.
    """
    if not storage.is_local:
        return
    try:
        there = sorted(one.name for one in storage.root.iterdir())
    except OSError:  # there is none yet, or making one there says what is wrong
        return
    others = [name for name in there if not name.startswith(".") and name != "lost+found"]
    if not others or not {MARK, "catalog.sqlite", "data"}.isdisjoint(others):
        return
    others = [name for name in others if not name.startswith(_OWN)]
    if others:
        more = f" and {counted(len(others) - 1, 'other')}" if len(others) > 1 else ""
        raise ConfigurationError(
            f"{storage.root} is no lake, and is not empty: it has {others[0]}{more}",
            hint="give a new folder: lightlake init FOLDER",
        )


def foreign(storage: Storage, catalogue: str) -> CatalogError:
    """Return the exception for a catalogue and a tree that have no file in common."""
    return CatalogError(
        f"the catalogue {catalogue} knows none of the files in the tree at {storage.root}",
        hint="set LIGHTLAKE_CATALOG to the lake's own catalogue, or the URL to its own tree",
    )


def knows_tree(storage: Storage, known: Collection[str]) -> bool:
    """Say whether a catalogue that knows some files has one in common with the tree, or both have none."""
    in_tree = (path.name for path in (storage.data / "main").rglob("*.parquet"))
    if not known:
        return next(in_tree, None) is None
    return any(name in known for name in in_tree)
