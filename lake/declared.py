"""What the installed sources bring into a lake: the core knows none of them by name.

Packages above the core declare their sources under the entry point `lightlake.archives`: a function that returns one
`Declaration` for each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points

_logger = logging.getLogger(__name__)
_warned = set[str]()


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What one archive or survey brings.

    Parameters
    ----------
    archive
        Its name.
    bands
        Names of its bands.
    former_names
        Names that it had in earlier versions. Each comes with what else has changed in the rows written then: by table
        and column, the SQL expression of the new value.
    """

    archive: str
    bands: tuple[str, ...] = ()
    former_names: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)


def declarations() -> list[Declaration]:
    """Load what the installed sources declare."""
    return [one for point in entry_points(group="lightlake.archives") for one in point.load()()]


def current_name(name: str, known: Iterable[Declaration] | None = None) -> str:
    """Translate a former name of an archive into its name, with a warning; keep any other.

    Parameters
    ----------
    name
        As the user typed it.
    known
        The declarations; None: load them.
    """
    for one in declarations() if known is None else known:
        if name in one.former_names:
            if name not in _warned:
                _warned.add(name)
                _logger.warning("the archive %s is now called %s: please use the new name", name, one.archive)
            return one.archive
    return name
