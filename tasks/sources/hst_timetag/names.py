"""Give the names of HST's targets, which proposers choose, one canonical name an object: SIMBAD's main identifier.

Proposers write hyphens for blanks and add visits and epochs. Spellings without these are tried in a fixed order, and
the first that SIMBAD knows counts. A hyphen that may be the sign of a declination stays. Answers are rows of table
aliases with methods of their own, so that no name is asked for twice, and none is taken for the object of a target.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from lake.settings import Settings
from tasks.services.simbad import SIMBAD, main_ids_of
from tasks.sources.hst_timetag.find import CALIBRATION

# Names of one request.
NAMES = 1_000

METHODS = ("name", "without_suffix", "with_blanks", "rule", "raw", "moving_target", "calibration")
"""How a name was found: see `Decision`. Rows of table aliases with other methods are not of HST's names."""

OWN = "method IN ('" + "', '".join(METHODS) + "')"
"""The condition on rows of table aliases that are of HST's names."""

ALIASES = pa.schema(
    [
        ("name", pa.string()),
        ("canonical_name", pa.string()),
        ("service", pa.string()),
        ("method", pa.string()),
        ("asked_at", pa.timestamp("us", tz="UTC")),
    ]
)

# Catalogues whose designations begin with a number or a right ascension: a hyphen after their name is no sign.
_UNSIGNED = (
    "2MASS",
    "AV",
    "AZV",
    "EC",
    "ESO",
    "GD",
    "GJ",
    "HD",
    "HE",
    "HIP",
    "HR",
    "HS",
    "IC",
    "IRAS",
    "LB",
    "LHS",
    "LTT",
    "MRK",
    "NGC",
    "PG",
    "PHL",
    "PKS",
    "QSO",
    "RX",
    "SBS",
    "SDSS",
    "TON",
    "TYC",
    "UGC",
    "WD",
)
_AFTER_CATALOGUE = re.compile(rf"({'|'.join(_UNSIGNED)})-(?=[A-Z]?\d)")
# Variable stars: V471-TAU.
_AFTER_VARIABLE = re.compile(r"(V\d{3,5})-(?=[A-Z]{3}$)")
# Catalogues by zones of declination: only a hyphen before the sign itself is none.
_AFTER_ZONED = re.compile(r"(SK|BD|CD|CPD|MCG|[34]C)-(?=[+-]\d)")
# In these what follows the zone is a number within it.
_IN_ZONE = re.compile(r"((?:SK|BD|CD|CPD)[+-]\d+)-(?=\d)")
_SUFFIX = re.compile(r"-(?:(?:VISIT|EPOCH)-?\d+[A-Z]?|UPDATED?)$")
# Of moving targets, what is not the body or the place on it: instruments, repetitions.
_MOVING_SUFFIX = re.compile(r"-(?:STIS|COS|FIRST|SECOND|THIRD|FOURTH|(?<=NORTH-)\d+|(?<=SOUTH-)\d+)$")


@dataclass(frozen=True)
class Decision:
    """What a name stands for.

    Parameters
    ----------
    canonical_name
        Main identifier of the object, with single blanks; or the name itself.
    method
        How it was found. SIMBAD knows the ``name`` as it is, ``without_suffix`` (visit, epoch, update), or also
        ``with_blanks`` for hyphens. It does not: by ``rule``, without suffix and hyphen, or ``raw``, as it is.
        Not asked for: ``moving_target``, ``calibration``.
    """

    canonical_name: str
    method: str

    @property
    def is_asked(self) -> bool:
        """Say whether a service is asked for such a name."""
        return self.method not in ("moving_target", "calibration")


def spellings(name: str) -> list[tuple[str, str]]:
    """Return how a name may be spelt in SIMBAD, first the one that counts most, each with the method it stands for.

    Examples
    --------
    >>> spellings("V471-TAU-VISIT6")
    [('V471-TAU-VISIT6', 'name'), ('V471-TAU', 'without_suffix'), ('V471 TAU', 'with_blanks')]
    >>> spellings("SK-71-45")
    [('SK-71-45', 'name'), ('SK-71 45', 'with_blanks')]
    """
    short = _without(_SUFFIX, name)
    blanks = _IN_ZONE.sub(r"\1 ", _replaced(short, by=" "))
    # Words of letters: AD-LEO, ALPHA-CEN.
    blanks = re.sub(r"(?<=[A-Z0-9])-(?=[A-Z]{2,}(?:-|$))", " ", blanks)
    found: dict[str, str] = {}
    for spelling, method in ((name, "name"), (short, "without_suffix"), (blanks, "with_blanks")):
        found.setdefault(spelling, method)
    return list(found.items())


def by_rule(name: str) -> str:
    """Return a name without what proposers add: visit, epoch or update, and the hyphen after a catalogue's name.

    Examples
    --------
    >>> by_rule("NGC-6833-EPOCH2"), by_rule("2MASS-J0437-52"), by_rule("4C--01.61"), by_rule("SK-71-45")
    ('NGC6833', '2MASSJ0437-52', '4C-01.61', 'SK-71-45')
    """
    return _replaced(_without(_SUFFIX, name), by="")


def decide(name: str, main_ids: Mapping[str, str], *, is_moving: bool = False) -> Decision:
    """Decide what a name stands for.

    Parameters
    ----------
    name
        TARGNAME.
    main_ids
        SIMBAD's main identifier of each of the `spellings` that it knows.
    is_moving
        A body of the solar system goes by its name alone.

    Examples
    --------
    >>> decide("NGC-6833", {"NGC 6833": "NGC  6833"})
    Decision(canonical_name='NGC 6833', method='with_blanks')
    >>> decide("JUPITER-NORTH-3", {}, is_moving=True)
    Decision(canonical_name='JUPITER-NORTH', method='moving_target')
    """
    if name in CALIBRATION:
        return Decision(name, "calibration")
    if is_moving:
        return Decision(_without(_MOVING_SUFFIX, _without(_SUFFIX, name)), "moving_target")
    for spelling, method in spellings(name):
        if main_id := " ".join(main_ids.get(spelling, "").split()):
            return Decision(main_id, method)
    cleaned = by_rule(name)
    return Decision(cleaned, "raw" if cleaned == name else "rule")


def resolve(exposures: pa.Table, aliases: pa.Table, settings: Settings, *, now: datetime | None = None) -> pa.Table:
    """Return rows of table aliases for the names of targets that it does not have yet.

    Parameters
    ----------
    exposures
        Columns target_name and is_moving.
    aliases
        Names that are known, in a column `name`: those are not asked for.
    settings
        Endpoint LIGHTLAKE_ENDPOINTS__SIMBAD, if it is not to be the public service, and limits of time and size.
    now
        Time of the rows.

    Returns
    -------
    pa.Table
        Rows of `ALIASES`, by name. Those that SIMBAD does not know are among them; `service` is NULL if none was asked.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    """
    known = set(aliases["name"].to_pylist())
    moves: dict[str, bool] = {}
    for name, is_moving in zip(exposures["target_name"].to_pylist(), exposures["is_moving"].to_pylist(), strict=True):
        if name is not None and name not in known:
            moves[name] = moves.get(name, False) or bool(is_moving)
    asked = [name for name in sorted(moves) if decide(name, {}, is_moving=moves[name]).is_asked]
    main_ids = ask_simbad(dict.fromkeys(spelling for name in asked for spelling, _ in spellings(name)), settings)
    now = now or datetime.now(UTC)
    rows = []
    for name in sorted(moves):
        decision = decide(name, main_ids, is_moving=moves[name])
        service = SIMBAD if decision.is_asked else None
        rows.append(
            {
                "name": name,
                "canonical_name": decision.canonical_name,
                "service": service,
                "method": decision.method,
                "asked_at": now,
            }
        )
    return pa.Table.from_pylist(rows, ALIASES)


def ask_simbad(names: Iterable[str], settings: Settings) -> dict[str, str]:
    """Return SIMBAD's main identifiers of the names that it knows; one of several objects is of none.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    TruncatedAnswer
        If the answer is not all.
    """
    asked, found = list(names), dict[str, str]()
    for start in range(0, len(asked), NAMES):
        found |= main_ids_of(asked[start : start + NAMES], settings)
    return found


def _replaced(name: str, *, by: str) -> str:
    """Return a name with something else for the hyphen after its catalogue, which must not be a sign."""
    for pattern in (_AFTER_CATALOGUE, _AFTER_VARIABLE, _AFTER_ZONED):
        if match := pattern.match(name):
            # Before a sign nothing is needed.
            return f"{match[1]}{'' if pattern is _AFTER_ZONED else by}{name[match.end() :]}"
    return name


def _without(pattern: re.Pattern[str], name: str) -> str:
    """Return a name without suffixes of a kind, however many it has."""
    while (shorter := pattern.sub("", name)) not in (name, ""):
        name = shorter
    return name
