"""Names that a question may give: samples, archives and bands. One that nobody knows is an error, with near ones.

What a lake has no rows of may be known all the same: to its tables of archives and bands, or to the sources that
are installed, which the layers above tell under the entry point `lightlake.archives`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from lake.errors import ConfigurationError

if TYPE_CHECKING:
    from lake.query import Lake

_MOST_NEAR, _MOST_KNOWN = 3, 20


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> ConfigurationError:
    """Return the error of a name that nobody knows: near ones first, then those that there are.

    Parameters
    ----------
    what
        It should be the name of, such as archive.
    where
        To find it, such as "in the lake".
    """
    there = sorted(set(known))
    folded = {one.lower(): one for one in there}
    near = [folded[one] for one in difflib.get_close_matches(name.lower(), folded, _MOST_NEAR)]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    more = f" and {len(there) - _MOST_KNOWN} more" if len(there) > _MOST_KNOWN else ""
    hint += f"known: {', '.join(there[:_MOST_KNOWN]) or 'none'}{more}"
    return ConfigurationError(f"unknown {what} {name!r}{f' {where}' if where else ''}", hint=hint)


def check_not_blank(what: str, name: str | None) -> None:
    """Refuse a name that is there and empty: it is a slip, such as a variable that is not set, and not "all".

    Raises
    ------
    ConfigurationError
        If it is.
    """
    if name is not None and not name.strip():
        raise ConfigurationError(f"the {what} has no name: {name!r}", hint=f"name the {what}, or leave it out")


def check_sample(lake: Lake, sample: str | None) -> None:
    """See that a lake has a sample, that is a label of it; None is none, and all right.

    Raises
    ------
    ConfigurationError
        If it has not.
    """
    check_not_blank("sample", sample)
    if sample is None or lake.sql("SELECT 1 FROM labels WHERE sample = ? LIMIT 1", [sample]).num_rows:
        return
    known = lake.sql("SELECT DISTINCT sample FROM labels")["sample"].to_pylist()
    raise unknown("sample", sample, known, f"in {lake.storage.root}")


def check_archive(lake: Lake, archive: str | None) -> None:
    """See that a lake has an archive, or that there is one of that name.

    Raises
    ------
    ConfigurationError
        If nobody knows it.
    """
    check_not_blank("archive", archive)
    if archive is None:
        return
    held = lake.sql(
        "SELECT archive FROM archives UNION SELECT archive FROM bands UNION SELECT archive FROM coverage "
        "UNION SELECT archive FROM ledger"
    )["archive"].to_pylist()
    if archive in held:
        return
    installed = _installed()
    if archive not in installed:
        raise unknown("archive", archive, [*held, *installed])


def check_band(lake: Lake, band: str | None, archive: str | None = None) -> None:
    """See that an archive, or any, has a band of that name.

    Raises
    ------
    ConfigurationError
        If nobody knows it.
    """
    check_not_blank("band", band)
    if band is None:
        return
    held = lake.sql(
        "SELECT band FROM bands WHERE $archive IS NULL OR archive = $archive UNION "
        "SELECT band FROM statistics WHERE $archive IS NULL OR archive = $archive",
        {"archive": archive},
    )["band"].to_pylist()
    if band in held:
        return
    installed = [one for name, bands in _installed().items() if archive in (None, name) for one in bands]
    if band not in installed:
        raise unknown("band", band, [*held, *installed], f"of {archive}" if archive else "")


def _installed() -> dict[str, Sequence[str]]:
    """Return the archives and surveys of the layers above, with their bands."""
    known: dict[str, Sequence[str]] = {}
    for point in entry_points(group="lightlake.archives"):
        known |= point.load()()
    return known
