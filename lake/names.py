"""Check names of targets, samples, archives and bands; an unknown one is an error that suggests similar names.

A name without rows in the lake may still be known: from the lake's tables of archives and bands, or from the installed
archives under the entry point `lightlake.archives`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lake.errors import ConfigurationError
from lake.model.declared import current_name, declarations
from lake.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from lake.query import Lake

_MOST_NEAR, _MOST_KNOWN = 3, 20

# As archives are matched by default.
_SAME_ARCSEC = 1.0


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> ConfigurationError:
    """Return the error of an unknown name, with similar names first, then the known ones.

    Parameters
    ----------
    what
        The kind of name, such as archive.
    name
        The unknown name.
    known
        All known names.
    where
        Where it is unknown, such as "in the lake".

    Examples
    --------
    >>> print(unknown("archive", "giaa", ["gaia", "ztf"]))
    unknown archive 'giaa' (did you mean gaia? known: gaia, ztf)
    """
    there = sorted(set(known))
    folded = {one.lower(): one for one in there}
    near = [folded[one] for one in difflib.get_close_matches(name.lower(), folded, _MOST_NEAR)]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    more = f" and {len(there) - _MOST_KNOWN} more" if len(there) > _MOST_KNOWN else ""
    hint += f"known: {', '.join(there[:_MOST_KNOWN]) or 'none'}{more}"
    return ConfigurationError(f"unknown {what} {name!r}{f' {where}' if where else ''}", hint=hint)


def check_not_blank(what: str, name: str | None) -> None:
    """Refuse an empty name, which is a mistake such as an unset variable, and does not mean "all".

    Raises
    ------
    ConfigurationError
        If the name is blank.
    """
    if name is not None and not name.strip():
        raise ConfigurationError(f"the {what} has no name: {name!r}", hint=f"name the {what}, or leave it out")


def check_sample(lake: Lake, sample: str | None) -> None:
    """Check that a lake has a sample; None passes.

    Raises
    ------
    ConfigurationError
        If the sample is unknown or blank.
    """
    check_not_blank("sample", sample)
    if sample is None or lake.sql("SELECT 1 FROM labels WHERE sample = ? LIMIT 1", [sample]).num_rows:
        return
    known = lake.sql("SELECT DISTINCT sample FROM labels")["sample"].to_pylist()
    raise unknown("sample", sample, known, f"in {lake.storage.root}")


def target_named(name: str, ask: Callable[[str, list[str]], pa.Table]) -> int:
    """Return the id of the target with a name, its main name, one from a list, or one that a name service gave it.

    An exact match comes before one that differs in upper and lower case. A number that is no name may be an id.

    Parameters
    ----------
    ask
        Runs SQL with parameters in the lake.

    Raises
    ------
    ConfigurationError
        If no target has that name, or several have; the message has similar names, or ids and positions.
    """
    found = find_target(name, ask)
    if found is not None:
        return found
    raise no_target(name, ask)


def find_target(name: str, ask: Callable[[str, list[str]], pa.Table]) -> int | None:
    """Return the id of the target with a name as `target_named` does; None if there is none.

    Raises
    ------
    ConfigurationError
        If several targets have that name.
    """
    # Exact first: DuckLake can skip files for that, but not for a function of the name.
    conditions = ["name = ?", "lower(name) = lower(?)"]
    chosen = [f"SELECT target_id FROM target_names WHERE {condition}" for condition in conditions]
    if name.isascii() and name.isdecimal():
        chosen.append("SELECT target_id FROM targets WHERE target_id = try_cast(? AS BIGINT)")
    # A name that was looked up before its object was a target.
    chosen.append(
        "SELECT targets.target_id FROM aliases JOIN targets ON targets.dec BETWEEN aliases.dec - 3e-4 "
        "AND aliases.dec + 3e-4 AND separation_arcsec(aliases.ra, aliases.dec, targets.ra, targets.dec) <= "
        f"{_SAME_ARCSEC} WHERE aliases.name = ? AND aliases.target_id IS NULL"
    )
    for one in chosen:
        rows = ask(
            f"SELECT target_id, ra, dec FROM targets WHERE target_id IN ({one}) ORDER BY ALL", [name]
        ).to_pylist()
        if len(rows) == 1:
            return int(rows[0]["target_id"])
        if rows:
            ids = [f"{row['target_id']} (at {row['ra']:.6f} {row['dec']:+.6f})" for row in rows[:_MOST_KNOWN]]
            more = f" and {len(rows) - _MOST_KNOWN} more" if len(rows) > _MOST_KNOWN else ""
            raise ConfigurationError(
                f"{counted(len(rows), 'target is', 'targets are')} named {name!r}",
                hint=f"give an id: {', '.join(ids)}{more}",
            )
    single = " ".join(name.split())
    return find_target(single, ask) if single not in (name, "") else None


def no_target(name: str, ask: Callable[[str, list[str]], pa.Table], why: str = "") -> ConfigurationError:
    """Return the error of a name that no target has, with similar names.

    Parameters
    ----------
    why
        What name services say.
    """
    # Not those that services gave: there may be millions.
    query = "SELECT name FROM targets WHERE name IS NOT NULL UNION SELECT name FROM labels WHERE name IS NOT NULL"
    near = ", ".join(difflib.get_close_matches(name, ask(query, [])["name"].to_pylist(), _MOST_NEAR))
    return ConfigurationError(
        f"no target is named {name!r}{why and f', and {why}'}",
        hint=f"did you mean {near}?" if near else "see them with: lightlake sql 'FROM targets'",
    )


def target_id_of(target: Any, radius_arcsec: float, ask: Callable[[str, list[Any]], pa.Table]) -> int:
    """Find the id of a target given by name, id or SkyCoord.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    if isinstance(target, str):
        return target_named(target, ask)
    if hasattr(target, "icrs"):
        ra, dec = float(target.icrs.ra.deg), float(target.icrs.dec.deg)
        rows = ask("SELECT target_id FROM targets_in_cone(?, ?, ?) LIMIT 1", [ra, dec, radius_arcsec])
        if rows.num_rows:
            return int(rows["target_id"][0].as_py())
        raise ConfigurationError(
            f"no target within {radius_arcsec:g} arcsec of {ra:.6f} {dec:+.6f}",
            hint="use cone(), or a larger radius_arcsec",
        )
    if ask("SELECT 1 FROM targets WHERE target_id = ?", [int(target)]).num_rows:
        return int(target)
    raise ConfigurationError(f"no target has the id {target}", hint="see them with: lightlake sql 'FROM targets'")


def check_archive(lake: Lake, archive: str | None) -> None:
    """Check that an archive is in the lake or installed; None passes.

    Raises
    ------
    ConfigurationError
        If the archive is unknown or blank.
    """
    check_not_blank("archive", archive)
    if archive is None:
        return
    held = _held(lake)
    if archive in held:
        return
    installed = [one.archive for one in declarations()]
    if archive not in installed:
        raise unknown("archive", archive, [*held, *installed])


def current_archive(lake: Lake, archive: str | None) -> str | None:
    """Translate a former name of an archive that the lake has no rows of; keep any other."""
    return archive if archive is None or archive in _held(lake) else current_name(archive)


def _held(lake: Lake) -> list[str]:
    held: list[str] = lake.sql(
        "SELECT archive FROM archives UNION SELECT archive FROM bands UNION SELECT archive FROM coverage "
        "UNION SELECT archive FROM ledger"
    )["archive"].to_pylist()
    return held


def check_band(lake: Lake, band: str | None, archive: str | None = None) -> None:
    """Check that an archive, or any archive, has a band; None passes.

    Raises
    ------
    ConfigurationError
        If the band is unknown or blank.
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
    installed = [name for one in declarations() if archive in (None, one.archive) for name in one.bands]
    if band not in installed:
        raise unknown("band", band, [*held, *installed], f"of {archive}" if archive else "")
