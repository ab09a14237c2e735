"""Check names of targets, samples, archives and bands; an unknown one is an error that suggests similar names.

A name without rows in the lake may still be known: from the lake's tables of archives and bands, or from the installed
archives under the entry point `lightlake.archives`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lake.errors import ConfigurationError
from lake.model.declared import current_name, declarations
from lake.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from lake.query import Lake

# The page that helps with errors from here.
HELP_TOPIC = "how-to/target-lists"

_MOST_NEAR, _MOST_KNOWN = 3, 20

# As archives are matched by default.
_SAME_ARCSEC = 1.0

# A position is a right ascension and a declination.
_PAIR = 2


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
    if "\0" in name:  # which no name in a lake has, and no SQL
        return None
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
    """Find the id of a target given by name, id, SkyCoord or (ra, dec).

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    if isinstance(target, str):
        return target_named(target, ask)
    if (position := position_of(target)) is not None:
        ra, dec = position
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


def position_of(target: Any) -> tuple[float, float] | None:
    """Return right ascension and declination, ICRS degrees, of a SkyCoord or of a pair of numbers; None of others.

    Raises
    ------
    ConfigurationError
        If a pair of numbers is no position.

    Examples
    --------
    >>> position_of((10.0, -30)), position_of("3C 273")
    ((10.0, -30.0), None)
    """
    if hasattr(target, "icrs"):
        return float(target.icrs.ra.deg), float(target.icrs.dec.deg)
    if isinstance(target, str) or not hasattr(target, "__len__") or len(target) != _PAIR:
        return None
    try:
        ra, dec = (float(value) for value in target)
    except (TypeError, ValueError):
        return None
    if not (0 <= ra <= 360 and -90 <= dec <= 90):
        raise ConfigurationError(
            f"({ra:g}, {dec:g}) is no position", hint="give (ra, dec) in degrees; ids of several targets as a list"
        )
    return ra, dec


def is_one_target(target: Any) -> bool:
    """Say whether something stands for one target: a name, an id, a SkyCoord of one position, or a tuple (ra, dec).

    Examples
    --------
    >>> is_one_target("3C 273"), is_one_target((10.0, -30.0)), is_one_target(["3C 273", (10.0, -30.0)])
    (True, True, False)
    """
    if hasattr(target, "icrs"):
        return bool(getattr(target, "isscalar", True))
    if isinstance(target, tuple):
        return len(target) == _PAIR and not any(isinstance(one, str) or hasattr(one, "__len__") for one in target)
    return isinstance(target, str) or not hasattr(target, "__iter__") or getattr(target, "ndim", 1) == 0


def listed_targets(targets: Any) -> list[Any]:
    """Return several targets as a list; a SkyCoord of several positions as pairs of degrees."""
    if hasattr(targets, "icrs"):
        return list(zip(targets.icrs.ra.deg.tolist(), targets.icrs.dec.deg.tolist(), strict=True))
    return list(targets.to_pylist() if hasattr(targets, "to_pylist") else targets)


def target_ids_of(targets: Sequence[Any], radius_arcsec: float, ask: Callable[..., pa.Table]) -> list[int]:
    """Find the ids of many targets, given as in `target_id_of`, by a few queries: each once, in their order.

    Parameters
    ----------
    ask
        Runs SQL with parameters in the lake.

    Raises
    ------
    ConfigurationError
        If one of them is no target, or several targets have a name; all of them are counted.
    """
    found, missing = dict[int, int](), list[str]()
    names, ids, places = dict[str, list[int]](), list[int](), list[int]()
    for number, one in enumerate(targets):
        if isinstance(one, str):
            names.setdefault(one, []).append(number)
        else:
            (ids if position_of(one) is None else places).append(number)
    for name, target_id in _ids_by_name(list(names), ask, missing).items():
        found |= dict.fromkeys(names[name], target_id)
    if ids:
        wanted = {number: int(targets[number]) for number in ids}
        query = "SELECT target_id FROM targets WHERE target_id IN (SELECT unnest(?::BIGINT[]))"
        known = set(ask(query, [list(wanted.values())])["target_id"].to_pylist())
        found |= {number: one for number, one in wanted.items() if one in known}
        missing += [str(one) for one in wanted.values() if one not in known]
    if places:
        positions = {number: position_of(targets[number]) or (0.0, 0.0) for number in places}
        near = _ids_by_place(positions, radius_arcsec, ask)
        found |= near
        missing += [f"{ra:.6f} {dec:+.6f}" for number, (ra, dec) in positions.items() if number not in near]
    if missing:
        more = f" and {len(missing) - _MOST_NEAR} more" if len(missing) > _MOST_NEAR else ""
        shown = f"{', '.join(missing[:_MOST_NEAR])}{more}"
        raise ConfigurationError(
            f"not in the lake, {len(missing)} of {counted(len(targets), 'target')}: {shown}",
            hint="leave them out, or see what there is with: lightlake sql 'FROM targets'",
        )
    return list(dict.fromkeys(found[number] for number in range(len(targets))))


def _ids_by_name(names: list[str], ask: Callable[..., pa.Table], missing: list[str]) -> dict[str, int]:
    """Return the ids of those names that one target has; what no target has is added to `missing`."""
    found: dict[str, int] = {}
    # As `find_target` does, exact first; it is left with what is rare, or an error.
    for condition in ("target_names.name = wanted.name", "lower(target_names.name) = lower(wanted.name)"):
        left = [name for name in names if name not in found and "\0" not in name]
        if left:
            rows = ask(
                "SELECT wanted.name, list(DISTINCT target_id) AS ids FROM (SELECT unnest(?::VARCHAR[]) AS name) AS "
                f"wanted JOIN target_names ON {condition} SEMI JOIN targets USING (target_id) GROUP BY ALL",
                [left],
            ).to_pylist()
            found |= {row["name"]: row["ids"][0] for row in rows if len(row["ids"]) == 1}
            clashing = [row["name"] for row in rows if len(row["ids"]) > 1]
            if clashing:
                target_named(clashing[0], ask)  # raises, with the ids
    for name in names:
        if name not in found:
            target_id = find_target(name, ask) if len(missing) < _MOST_KNOWN else None
            if target_id is None:
                missing.append(repr(name))
            else:
                found[name] = target_id
    return found


def _ids_by_place(
    positions: dict[int, tuple[float, float]], radius_arcsec: float, ask: Callable[..., pa.Table]
) -> dict[int, int]:
    """Return the nearest target of each position that has one."""
    ra, dec = zip(*positions.values(), strict=True)
    rows = ask(
        "SELECT number, arg_min(target_id, distance) AS target_id FROM (SELECT wanted.number, target_id, "
        "separation_arcsec(wanted.ra, wanted.dec, targets.ra, targets.dec) AS distance FROM "
        "(SELECT unnest($numbers::BIGINT[]) AS number, unnest($ra::DOUBLE[]) AS ra, unnest($dec::DOUBLE[]) AS dec) "
        "AS wanted JOIN targets ON targets.dec BETWEEN wanted.dec - $radius / 3600 - 1e-9 "
        "AND wanted.dec + $radius / 3600 + 1e-9) WHERE distance <= $radius GROUP BY number",
        {"numbers": list(positions), "ra": list(ra), "dec": list(dec), "radius": radius_arcsec},
    )
    return dict(zip(rows["number"].to_pylist(), rows["target_id"].to_pylist(), strict=True))


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
