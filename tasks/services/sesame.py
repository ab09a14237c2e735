"""Ask Sesame, the name resolver of CDS: SIMBAD, then NED, then VizieR, of which the first that knows the name answers.

The answer is text. ``%J`` has the position, as many digits as the resolver prints: VizieR may give steps of 36 arcsec.
A page that is no such text, whatever its HTTP status, is a failure of the service, and never "unknown".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from urllib.parse import quote

from astropy.constants import c as speed_of_light

from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.http import Session, excerpt

SESAME, SESAME_ENDPOINT = "sesame", "https://cds.unistra.fr/cgi-bin/nph-sesame"

RESOLVERS = {"S": "simbad", "N": "ned", "V": "vizier"}
"""Databases that Sesame asks, by the letters of a request."""

_LIGHT_KM_S = float(speed_of_light.to_value("km/s"))
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_POSITION = re.compile(rf"%J\s+({_NUMBER})\s+({_NUMBER})(?:\s|$)")
_MOTION = re.compile(rf"%P\s+({_NUMBER})\s+({_NUMBER})(?:\s|$)")
_VELOCITY = re.compile(rf"%V\s+(\S+)\s+({_NUMBER})(?:\s+({_NUMBER}))?(?:\s|$)", re.IGNORECASE)
_NOTHING = re.compile(r"nothing found|not found|unknown", re.IGNORECASE)
_SEVERAL = re.compile(r"multiple|ambiguous", re.IGNORECASE)


@dataclass(frozen=True)
class Object:
    """What Sesame says of a name.

    Parameters
    ----------
    resolver
        Which database answered: a value of `RESOLVERS`.
    main_id
        Its name for the object, with single blanks; None if it says none.
    ra, dec
        ICRS degrees.
    step_arcsec
        What the last printed digit of a coordinate stands for.
    pm_ra, pm_dec
        Proper motion, mas/yr, from epoch 2000.0.
    redshift, object_type
        If it says them.
    """

    resolver: str
    main_id: str | None
    ra: float
    dec: float
    step_arcsec: float
    pm_ra: float | None = None
    pm_dec: float | None = None
    redshift: float | None = None
    object_type: str | None = None


class SeveralObjects(Exception):
    """The name is of several objects, and Sesame does not choose."""


def look_up(name: str, settings: Settings) -> Object | None:
    """Ask for one name, in one request.

    Parameters
    ----------
    name
        As users write it.
    settings
        Endpoint LIGHTLAKE_ENDPOINTS__SESAME, if it is not to be the public service, and limits of time and size.

    Returns
    -------
    Object or None
        None if no database knows the name.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should, or if a database that it asks is away.
    SeveralObjects
        If the name is of several.
    """
    url = settings.endpoints.get(SESAME, SESAME_ENDPOINT).rstrip("/")
    with Session(SESAME, url, settings.timeout_s, settings.task_timeout_s) as session:
        body = session.get(f"{url}/{''.join(RESOLVERS)}?{quote(name, safe='')}").content
    try:
        return read_answer(body.decode("utf-8", "replace"))
    except ValueError as error:
        message = f"the answer is none of Sesame, or part of one: {excerpt(body) or error}"
        raise ArchiveError(message, archive=SESAME, endpoint=url, transient=True) from error
    except _Away as error:
        raise ArchiveError(f"it could not ask all: {error}", archive=SESAME, endpoint=url, transient=True) from error


class _Away(Exception):
    """A database did not answer Sesame."""


def read_answer(text: str) -> Object | None:
    r"""Read Sesame's text about one name.

    Raises
    ------
    ValueError
        If it is no such text, or not whole.
    SeveralObjects
        If the name is of several.

    Examples
    --------
    >>> print(read_answer("# NGC 1\t#Q2\n#! *** Nothing found ***\n#====Done (2024-Jan-01,00:00:00z)====\n"))
    None
    >>> found = read_answer("# M 1\t#Q2\n#=V=VizieR (local):  1\n%J 83.63 +22.01 = 05:34.5 +22:01\n#====Done ()====\n")
    >>> found.resolver, found.ra, round(found.step_arcsec)
    ('vizier', 83.63, 36)
    """
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    if not lines or not lines[0].startswith("#") or not any(line.startswith("#====Done") for line in lines):
        raise ValueError("it has no beginning or no end")
    resolver, main_id, kind, place, motion, velocity = None, None, None, None, None, None
    problems = []
    for line in lines[1:]:
        if match := re.match(r"#=~?([A-Z])", line):
            # Whatever an earlier database says without a position does not count.
            if place is not None:
                break
            resolver, main_id, kind, motion, velocity = RESOLVERS.get(match[1]), None, None, None, None
        elif line.startswith("#!"):
            problems.append(line[2:].strip())
        elif line.startswith("%I.0 "):
            main_id = " ".join(re.sub(r"\{(.*?)\}", r"\1", line[5:]).split("=")[0].split()) or None
        elif line.startswith("%C.0 "):
            kind = line[5:].strip() or None
        elif line.startswith("%J ") and place is None:
            place = _POSITION.match(line)
            if place is None:
                raise ValueError("it has a position that is none")
        elif line.startswith("%P "):
            motion = _MOTION.match(line)
        elif line[:3].upper() == "%V ":
            velocity = _VELOCITY.match(line)
    if place is None:
        if any(_SEVERAL.search(line) for line in problems):
            raise SeveralObjects("; ".join(problems))
        if away := [line for line in problems if not _NOTHING.search(line)]:
            raise _Away("; ".join(away))
        return None
    ra, dec = float(place[1]), float(place[2])
    if resolver is None or not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise ValueError("it has a position without a database, or outside the sky")
    return Object(
        resolver,
        main_id,
        ra % 360.0,
        dec,
        # The finer of both: a trailing zero may be missing from one.
        3600.0 * min(_step(place[1]), _step(place[2])),
        float(motion[1]) if motion else None,
        float(motion[2]) if motion else None,
        _redshift(velocity) if velocity else None,
        kind,
    )


def _step(number: str) -> float:
    """Return what the last digit of a number as it is printed stands for."""
    decimals = number.partition(".")[2]
    return math.pow(10.0, -len(decimals)) if "e" not in number.lower() else 1.0


def _redshift(velocity: re.Match[str]) -> float:
    """Return the redshift of ``%V v 7449.8`` (km/s), or of ``%V z 1593 0.005327``."""
    if velocity[3] is not None:
        return float(velocity[3])
    return float(velocity[2]) / (_LIGHT_KM_S if velocity[1].lower() == "v" else 1.0)
