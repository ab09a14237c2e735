"""What an archive is called in run files of the Fornax collector's scale-up helper, and what its keys there mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

WORKERS = "LIGHTLAKE_WORKERS says how many tasks run at the same time"
DEG = 3600.0


@dataclass(frozen=True)
class Key:
    """A key of the helper.

    Parameters
    ----------
    parameter
        The archive's parameter that it is; None: it has no meaning for a pull.
    factor
        Multiplies its value.
    note
        What to know, or to do instead, if it is no parameter; {value} stands for what was given.
    """

    parameter: str | None = None
    factor: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Collector:
    """An archive in the helper's words.

    Parameters
    ----------
    name
        Its name there, in small letters; several archives may have one.
    keys
        Its keys; one inside another has a dot: catalog_error_radii.fermigtrig.
    is_core
        It belongs to the group `core`.
    is_asked
        Its name there means it without any key, too.
    """

    name: str
    keys: Mapping[str, Key] = field(default_factory=dict)
    is_core: bool = False
    is_asked: bool = True
