"""Find the positions of names: kept answers first, then SIMBAD in one request for many, then Sesame for each other.

A name that nobody knows, but that is a J2000 designation (``SDSS J015957.64+003310.4``), has the position in it. What
services said is kept in table aliases, so a name is asked for once; names that nobody knows are asked for again.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from lake.commit.aliases import ASKED, BY_SESAME, IDENTIFIER, METHODS, OTHER_NAME, POSITION_IN_NAME
from lake.model.schema import TABLES
from lake.query import Lake
from lake.science.motion import J2000
from lake.settings import Settings
from lake.text import counted, visible
from tasks.samples.cells import plain_text
from tasks.samples.positions import split_positions, to_degrees
from tasks.services import sesame, simbad
from tasks.services.retry import with_retries

# Names of one request to SIMBAD, which takes 200,000, and objects whose other names are asked for at a time.
NAMES, OBJECTS = 10_000, 2_000
# Between requests to Sesame.
PAUSE_S = 0.2
# Longest name that is asked for. SIMBAD's longest are shorter.
LONGEST = 200

# A position whose last printed digit stands for more is none for matching within an arcsecond or a few.
COARSEST_ARCSEC = 4.0
# A position as coarse as this is told.
_ROUGH_ARCSEC = 1.0
_MOST_REMARKS = 20

# J2000 designations: names from B1950 have a B in place of the J, or nothing.
_DESIGNATION = re.compile(r"(?:.*[\s\]-])?[A-Za-z0-9+]*J(\d{6}(?:\.\d*)?)[+-](\d{6}(?:\.\d*)?)", re.ASCII)


@dataclass(frozen=True)
class Resolved:
    """The object that a name stands for.

    Parameters
    ----------
    name
        The name as it was asked for, with single blanks.
    canonical_name, service, method
        As in table aliases.
    ra, dec, pm_ra, pm_dec, ref_epoch, redshift, object_type
        As in table aliases.
    asked_at
        When it was asked for.
    rough_arcsec
        How coarse the position is; None if it is not known, or was not asked for now.
    other_names
        Of the object, as far as they were asked for now.
    """

    name: str
    canonical_name: str
    service: str | None
    method: str
    ra: float
    dec: float
    asked_at: datetime
    pm_ra: float | None = None
    pm_dec: float | None = None
    ref_epoch: float | None = None
    redshift: float | None = None
    object_type: str | None = None
    rough_arcsec: float | None = None
    other_names: Sequence[str] = ()


@dataclass(frozen=True)
class Answers:
    """What some names stand for.

    Parameters
    ----------
    found
        Objects by name, as it was given.
    unknown
        Why a name has none.
    kept
        How many names of `found` the lake knew, without a request.
    """

    found: Mapping[str, Resolved] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    kept: int = 0

    @property
    def remarks(self) -> list[str]:
        """Say where positions are from, and which are coarse."""
        objects = {one.name: one for one in self.found.values()}
        if not objects:
            return []
        counts = Counter(one.service.upper() if one.service else "their names" for one in objects.values())
        of = ", ".join(f"{where} ({n})" for where, n in sorted(counts.items()))
        said = [f"positions are of {of}: ICRS, at epoch 2000.0 where the proper motion is known"]
        if self.kept:
            said.append(f"the lake knew {counted(self.kept, 'name')}, and did not ask again")
        rough = [
            f"the position of {visible(name)} by {one.service or 'its name'} is good to {one.rough_arcsec:.2g} arcsec"
            for name, one in objects.items()
            if one.rough_arcsec is not None and one.rough_arcsec >= _ROUGH_ARCSEC
        ]
        more = [f"... and {len(rough) - _MOST_REMARKS} more"] if len(rough) > _MOST_REMARKS else []
        return [*said, *rough[:_MOST_REMARKS], *more]


def plain(name: str) -> str:
    r"""Return a name as services are asked for it: single blanks, and ASCII signs for printed ones.

    Examples
    --------
    >>> plain(" 3C\u00a0 273 "), plain("PKS 0537\u2212441")
    ('3C 273', 'PKS 0537-441')
    """
    if not name.isascii() or "''" in name:
        name = plain_text(pa.array([name], pa.string()))[0].as_py()
    return " ".join(name.split())


def refusal(name: str) -> str | None:
    r"""Return why a name cannot be asked for; None if it can.

    Examples
    --------
    >>> print(refusal("3C 273"))
    None
    >>> refusal("  "), refusal("M\x1b 87")
    ('no name', 'no name: it holds characters that cannot be seen')
    """
    if not name.strip():
        return "no name"
    if len(name) > LONGEST:
        return f"no name: it has {counted(len(name), 'character')}, more than {LONGEST}"
    # Half a surrogate pair, say, cannot even be sent.
    if visible(name) != name or any(0xFDD0 <= ord(one) <= 0xFDEF or ord(one) & 0xFFFE == 0xFFFE for one in name):
        return "no name: it holds characters that cannot be seen"
    return None


def resolve(
    names: Iterable[str],
    settings: Settings,
    lake: Lake | None = None,
    *,
    again: bool = False,
    sleep: Callable[[float], object] = time.sleep,
) -> Answers:
    """Find the objects that names stand for.

    Parameters
    ----------
    names
        As users write them.
    settings
        Endpoints LIGHTLAKE_ENDPOINTS__SIMBAD and LIGHTLAKE_ENDPOINTS__SESAME, retries, limits of time and size.
    lake
        Where answers are kept; None: nowhere.
    again
        Ask for names whose answers are kept, too.
    sleep
        Waits between requests.

    Raises
    ------
    ArchiveError
        If a service does not answer, after retries: then nothing is known of any name.
    """
    wanted, unknown = dict[str, list[str]](), dict[str, str]()
    for name in names:
        if why := refusal(name):
            unknown[name] = why
        elif name not in (same := wanted.setdefault(plain(name), [])):
            same.append(name)
    found, reasons = dict[str, Resolved](), dict[str, str]()
    if lake is not None and not again:
        found, reasons = kept_answers(lake, wanted)
    kept = len(found)
    asked = [name for name in wanted if name not in found and name not in reasons]
    new, more = _asked(asked, settings, sleep)
    found, reasons = found | new, reasons | more
    return Answers(
        {given: found[name] for name, same in wanted.items() if name in found for given in same},
        unknown | {given: reasons[name] for name, same in wanted.items() if name in reasons for given in same},
        kept,
    )


def alias_rows(objects: Sequence[Resolved]) -> pa.Table:
    """Return the rows of table aliases about some objects, without targets; `row` is the number of the object."""
    columns = [name for name in TABLES["aliases"].names if name != "target_id"]
    own = TABLES["aliases"].cast(
        pa.table(
            {name: [getattr(one, name) for one in objects] for name in columns} | {"target_id": [None] * len(objects)},
            schema=TABLES["aliases"].arrow,
        )
    )
    others = [[name for name in one.other_names if name != one.name] for one in objects]
    # Of many names of many objects, only these are made one by one.
    number = pa.array(np.repeat(np.arange(len(objects)), [len(names) for names in others]), pa.int64())
    rows = own.take(number)
    given = {"name": [name for names in others for name in names], "method": [OTHER_NAME] * len(number)}
    for name, values in given.items():
        rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), pa.array(values, pa.string()))
    numbers = pa.array(range(len(objects)), pa.int64())
    return pa.concat_tables([own.append_column("row", numbers), rows.append_column("row", number)])


def kept_answers(lake: Lake, names: Iterable[str]) -> tuple[dict[str, Resolved], dict[str, str]]:
    """Return the objects of names that the lake keeps, and why a name has none: it came with several objects.

    Parameters
    ----------
    names
        With single blanks.
    """
    wanted = pa.table({"name": pa.array(sorted(set(names)), pa.string())})
    if not wanted.num_rows:
        return {}, {}
    rows = lake.run(
        "SELECT aliases.* FROM aliases SEMI JOIN wanted USING (name) "
        "WHERE ra IS NOT NULL AND dec IS NOT NULL AND list_contains(?, method) ORDER BY ALL",
        [list(METHODS)],
        wanted=wanted,
    ).to_pylist()
    by_name = dict[str, list[Resolved]]()
    for row in rows:
        del row["target_id"]
        by_name.setdefault(row["name"], []).append(Resolved(**row))
    found, reasons = dict[str, Resolved](), dict[str, str]()
    for name, objects in by_name.items():
        chosen = [one for one in objects if one.method in ASKED] or objects
        if len({(one.canonical_name, one.service) for one in chosen}) == 1:
            found[name] = chosen[0]
        else:
            reasons[name] = _several(chosen)
    return found, reasons


def _several(objects: Iterable[Resolved]) -> str:
    names = sorted({f"{one.canonical_name} at {one.ra:.5f} {one.dec:+.5f}" for one in objects})
    return f"a name of {counted(len(names), 'object')}: {', '.join(names)}; give another name, or a position"


def _asked(
    names: Sequence[str], settings: Settings, sleep: Callable[[float], object]
) -> tuple[dict[str, Resolved], dict[str, str]]:
    """Ask services for names; return the objects that they found, and the reasons for names without one."""
    found, reasons, oids = _by_simbad([name for name in names if name.isascii()], settings)
    others = [name for name in names if name not in found and name not in reasons]
    by_sesame, more = _by_sesame(others, settings, sleep)
    # What Sesame has from SIMBAD is taken from there, with all of its digits.
    mains = {one.canonical_name for one in by_sesame.values() if one.service == simbad.SIMBAD}
    known, _, numbers = _by_simbad(sorted(main for main in mains if main.isascii()), settings)
    for name, one in by_sesame.items():
        found[name] = one
        if one.service == simbad.SIMBAD and one.canonical_name in known:
            found[name] = replace(known[one.canonical_name], name=name, method=BY_SESAME)
            oids[name] = numbers[one.canonical_name]
    return _with_other_names(found, oids, settings), reasons | more


def _by_simbad(names: Sequence[str], settings: Settings) -> tuple[dict[str, Resolved], dict[str, str], dict[str, int]]:
    """Ask SIMBAD; return objects, reasons for names of several, and SIMBAD's numbers of the objects."""
    found, reasons, oids = dict[str, Resolved](), dict[str, str](), dict[str, int]()
    for start in range(0, len(names), NAMES):
        part = names[start : start + NAMES]
        rows = with_retries(lambda part=part: simbad.objects_of(part, settings), settings)  # type: ignore[misc]
        now = datetime.now(UTC)
        by_name = dict[str, dict[int, dict[str, Any]]]()
        for row in rows.to_pylist():
            if row["ra"] is not None and row["dec"] is not None and -90.0 <= row["dec"] <= 90.0:
                by_name.setdefault(part[row["number"]], {})[row["oid"]] = row
        for name, objects in by_name.items():
            made = [_of_simbad(name, row, now) for row in objects.values()]
            if len(made) > 1:
                reasons[name] = _several(made)
            else:
                found[name], oids[name] = made[0], next(iter(objects))
    return found, reasons, oids


def _of_simbad(name: str, row: Mapping[str, Any], now: datetime) -> Resolved:
    moves = row["pmra"] is not None and row["pmdec"] is not None
    redshift = row["rvz_redshift"]
    return Resolved(
        name,
        " ".join(row["main_id"].split()),
        simbad.SIMBAD,
        IDENTIFIER,
        row["ra"] % 360.0,
        row["dec"],
        now,
        pm_ra=row["pmra"] if moves else None,
        pm_dec=row["pmdec"] if moves else None,
        ref_epoch=J2000 if moves else None,
        redshift=redshift if redshift is not None and math.isfinite(redshift) and redshift > -1.0 else None,
        object_type=row["otype"],
        rough_arcsec=None if row["coo_err_maj"] is None else row["coo_err_maj"] / 1000.0,
    )


def _by_sesame(
    names: Sequence[str], settings: Settings, sleep: Callable[[float], object]
) -> tuple[dict[str, Resolved], dict[str, str]]:
    """Ask Sesame for each name, one after the other; what nobody knows may have a position in it."""
    found, reasons = dict[str, Resolved](), dict[str, str]()
    for number, name in enumerate(names):
        if number:
            sleep(PAUSE_S)
        try:
            said = with_retries(lambda name=name: sesame.look_up(name, settings), settings)  # type: ignore[misc]
        except sesame.SeveralObjects as error:
            reasons[name] = f"a name of several objects, says Sesame: {error}"
            continue
        why = "SIMBAD, NED and VizieR know no such name"
        if said is not None and said.step_arcsec <= COARSEST_ARCSEC:
            found[name] = _of_sesame(name, said)
            continue
        if said is not None:
            why = f"its position by {said.resolver} is rounded to {said.step_arcsec:.0f} arcsec, too coarse to match"
        inside = position_in(name)
        if inside is None:
            reasons[name] = why
        elif inside.rough_arcsec is not None and inside.rough_arcsec > COARSEST_ARCSEC:
            reasons[name] = f"{why}, and the position in it is rounded to {inside.rough_arcsec:.0f} arcsec"
        else:
            found[name] = inside
    return found, reasons


def _of_sesame(name: str, said: sesame.Object) -> Resolved:
    moves = said.pm_ra is not None and said.pm_dec is not None
    return Resolved(
        name,
        said.main_id or name,
        said.resolver,
        BY_SESAME,
        said.ra,
        said.dec,
        datetime.now(UTC),
        pm_ra=said.pm_ra if moves else None,
        pm_dec=said.pm_dec if moves else None,
        ref_epoch=J2000 if moves else None,
        redshift=said.redshift if said.redshift is None or said.redshift > -1.0 else None,
        object_type=said.object_type,
        rough_arcsec=said.step_arcsec,
    )


def position_in(name: str) -> Resolved | None:
    """Return the position in a name that is a J2000 designation with seconds; None if it is none.

    Examples
    --------
    >>> found = position_in("SDSS J015957.64+003310.4")
    >>> round(found.ra, 5), round(found.dec, 5), round(found.rough_arcsec, 2)
    (29.99017, 0.55289, 0.15)
    >>> print(position_in("PKS B1510-089"), position_in("3C 273"))
    None None
    """
    match = _DESIGNATION.fullmatch(name)
    if match is None:
        return None
    lon, lat = split_positions(pa.array([name], pa.string()))
    ra, _ = to_degrees(lon, what="right ascension", hours=True, limits=(0.0, 360.0))
    dec, _ = to_degrees(lat, what="declination")
    if not (math.isfinite(ra[0]) and math.isfinite(dec[0])):
        return None
    of_ra, of_dec = (10.0 ** -len(part.partition(".")[2]) for part in match.groups())
    rough = max(15.0 * of_ra * math.cos(math.radians(dec[0])), of_dec)
    place = float(ra[0]) % 360.0, float(dec[0])
    return Resolved(name, name, None, POSITION_IN_NAME, *place, datetime.now(UTC), rough_arcsec=round(rough, 6))


def _with_other_names(
    found: Mapping[str, Resolved], oids: Mapping[str, int], settings: Settings
) -> dict[str, Resolved]:
    """Return objects with the other names that SIMBAD has of them."""
    numbers = sorted(set(oids.values()))
    names = dict[int, list[str]]()
    for start in range(0, len(numbers), OBJECTS):
        part = numbers[start : start + OBJECTS]
        names |= with_retries(lambda part=part: simbad.names_of(part, settings), settings)  # type: ignore[misc]
    return {name: replace(one, other_names=names[oids[name]]) if name in oids else one for name, one in found.items()}
