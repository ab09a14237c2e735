"""Find the frames that a file declares: in keywords, in columns, in names of columns."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lake.errors import ConfigurationError
from tasks.samples.cells import to_text
from tasks.samples.column_names import GALACTIC, SYSTEMS
from tasks.samples.positions import frame_of

_YEAR = re.compile(r"(?P<letter>[BbJj]?)\s*(?P<year>[12]\d{3}(?:\.\d*)?)")
# Years that are equinoxes; no catalogue was observed in one of them only.
_STANDARD = (1855.0, 1875.0, 1900.0, 1925.0, 1950.0, 1975.0, 2000.0)
_EQUATORIAL = re.compile(r"icrs|fk[45](?:\s+[BJ]?\d{4}(?:\.0)?)?", re.IGNORECASE)
_NEW_WORDS = re.compile(r"ICRS|J2000|\b2000(?:\.0)?\b|FK5", re.IGNORECASE)
# B1950 and equinox 1950.0, but not the pulsar B1937+21.
_OLD_YEAR = re.compile(
    r"\b(?:[BJ]\s?(1855|1875|19[0257][05])|[Ee](?:quinox|q)\w*\W{1,3}(?:of\s+)?[BJ]?(1[89]\d\d))(\.\d+)?\b(?!\s?[-+−–]\d)"
)
_WORDS = {"gal": "galactic", "j2000": "icrs", "eq": "icrs", "equatorial": "icrs", "fk5/j2000": "fk5"}


@dataclass(frozen=True)
class Frame:
    """A frame that a file declares.

    Parameters
    ----------
    title
        Its name in the file.
    get
        Makes the astropy frame without data. It fails for systems that are not of the sky.
    epoch
        Its epoch, Julian year.
    """

    title: str
    get: Callable[[], Any]
    epoch: float | None = None

    def is_like(self, other: Any) -> bool:
        """Return whether it is the same as another within 0.03 arcsec; False if it is no frame of the sky."""
        try:
            return same(self.get(), other)
        except ConfigurationError:
            return False


def same(one: Any, other: Any) -> bool:
    """Return whether two frames are the same within 0.03 arcsec, as ICRS and FK5 of J2000 are."""

    def kind(frame: Any) -> tuple[str, float]:
        if frame.name == "icrs":
            return "fk5", 2000.0
        equinox = getattr(frame, "equinox", None)
        return frame.name, round(float(equinox.jyear), 2) if equinox is not None else 0.0

    return kind(one) == kind(other)


def frame_in_name(plain_name: str, ucd: str) -> Any:
    """Get the frame that the name of a longitude column implies, or None."""
    if ucd.lower().startswith(("pos.galactic", "pos_gal")) or any(
        plain_name == name for group in GALACTIC for name, _ in group
    ):
        return frame_of("galactic")
    if "1950" in plain_name:
        return frame_of("fk4 B1950")
    # J2000 in a name means ICRS: FK5 of J2000 is the same to 0.03 arcsec.
    return frame_of("icrs") if "2000" in plain_name or "icrs" in plain_name else None


def frame_in_words(text: str, *, is_of_position: bool = False) -> tuple[Any, str] | None:
    """Get the old frame that a description or comment mentions, and the word that does.

    In the description of a position, a bare 1950 is an equinox, too. None if no old frame is mentioned, or J2000 or
    ICRS is in the same line: then the line tells the history of the positions.
    """
    for line in text.split("\n"):
        if _NEW_WORDS.search(line):
            continue
        if found := _OLD_YEAR.search(line):
            letter = "J" if "J" in found[0] else "B"
            return frame_by("", letter + (found[1] or found[2]) + (found[3] or "")), found[0]
        if is_of_position and (found := re.search(r"\b(?:1855|1875|1900|1950)(?:\.0)?\b", line)):
            return frame_by("", f"B{found[0]}"), found[0]
        if found := re.search(r"\bFK4\b", line, re.IGNORECASE):
            return frame_of("fk4"), found[0]
    return None


def frame_by(system: str, equinox: str) -> Any:
    """Get the frame of a system and an equinox, either of which may be empty; None if both are.

    Raises
    ------
    ConfigurationError
        If they are no frame.
    """
    system, equinox = system.strip(), equinox.strip()
    if _YEAR.fullmatch(system) and not equinox:
        system, equinox = "", system
    if not system and not equinox:
        return None
    if equinox.lower() in ("icrs", "fk5", "fk4") and not system:
        system, equinox = equinox, ""
    year = _YEAR.fullmatch(equinox)
    if equinox and year is None:
        raise ConfigurationError(f"'{equinox}' is not an equinox", hint="equinoxes are as J2000 or B1950")
    if system or year is None:
        return frame_of(_WORDS.get(system.lower(), system), equinox or None)
    # As the FITS standard says for this case, except for J2000, which means ICRS as it does in names.
    old = year["letter"].upper() == "B" or (not year["letter"] and float(year["year"]) < 1984.0)
    if not old and float(year["year"]) == 2000.0:
        return frame_of("icrs")
    return frame_of("fk4" if old else "fk5", ("B" if old else "J") + year["year"])


def frames_in(keywords: Mapping[str, Any]) -> tuple[Frame, ...]:
    """Get the frame that the keywords of a header declare, as in FITS: RADESYS, EQUINOX, EPOCH."""
    values = {str(key).strip().upper(): str(value).strip().strip("'\"") for key, value in keywords.items()}
    # Other keywords may be frames of something else: spacecraft, velocities.
    other = next((values[key] for key in map(str.upper, SYSTEMS) if _EQUATORIAL.fullmatch(values.get(key, ""))), "")
    system = values.get("RADESYS") or values.get("RADECSYS") or other
    equinox, epoch = values.get("EQUINOX") or "", values.get("EPOCH") or ""
    found = _YEAR.fullmatch(epoch)
    if not equinox and found:
        year = float(found["year"])
        if year in _STANDARD and not system.lower().startswith("icrs"):
            equinox = epoch  # the old name of EQUINOX
        elif system:
            return (Frame(system, functools.partial(frame_by, system, ""), year if year != 2000.0 else None),)
        else:
            return (Frame(f"EPOCH {epoch}", functools.partial(_unclear, epoch)),)
    if not system and not equinox:
        return ()
    return (Frame(f"{system} {equinox}".strip(), functools.partial(frame_by, system, equinox)),)


def _unclear(epoch: str) -> Any:
    raise ConfigurationError(
        f"EPOCH = {epoch} may be the equinox of the positions or their time", hint="say what their frame is with frame"
    )


def frames_of_rows(systems: pa.Array | None, equinoxes: pa.Array | None, n: int) -> tuple[list[Any], dict[int, str]]:
    """Get each row's frame from its columns, None where they are empty; and the reason for each row with no frame."""
    words: list[list[Any]] = [[""] * n if c is None else to_text(c).to_pylist() for c in (systems, equinoxes)]
    known: dict[tuple[str, str], Any] = {}
    frames: list[Any] = []
    wrong: dict[int, str] = {}
    for row, (system, equinox) in enumerate(zip(*words, strict=True)):
        key = (system or "", equinox or "")
        if key not in known:
            try:
                known[key] = frame_by(*key)
            except ConfigurationError as error:
                known[key] = str(error).partition(" (")[0]
        if isinstance(known[key], str):
            wrong[row] = known[key]
        frames.append(None if isinstance(known[key], str) else known[key])
    return frames, wrong


def groups_of(frames: list[Any], default: Any) -> Iterable[tuple[Any, Any]]:
    """Yield each frame with its rows."""
    by_id: dict[int, tuple[Any, list[int]]] = {}
    for row, frame in enumerate(frames):
        chosen = default if frame is None else frame
        by_id.setdefault(id(chosen), (chosen, []))[1].append(row)
    for frame, rows in by_id.values():
        yield frame, np.array(rows)
