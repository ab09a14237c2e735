"""Stand-in for the IceCube 2008-2018 point-source release (20210126_PS-IC40-IC86_VII.zip).

The file layout is the real one, byte for byte: column widths, decimals, header lines, member names. Numbers
of events are those of arXiv:2101.09836, Table 1; seasons begin and end within a day or so of the real ones.
Events are random: declination, energy and angular error follow the public IC40 file in every season, local
coordinates follow from time and position as they do at the South Pole. The ``irfs`` folder is left out.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ZIP_NAME = "20210126_PS-IC40-IC86_VII.zip"
URL_PATH = f"/data-releases/{ZIP_NAME}"
FOLDER = "icecube_10year_ps"
EVENTS_PER_TARGET = 4
DUPLICATED_SEASON = "IC86_V"


class Season(NamedTuple):
    """A season. `main` is where it proper begins, if a test run of a day came weeks before."""

    name: str
    start: float
    stop: float
    events: int
    main: float | None = None


SEASONS = (
    Season("IC40", 54562.4, 54971.1, 36900),
    Season("IC59", 54971.2, 55347.3, 107011),
    Season("IC79", 55348.3, 55694.4, 93133),
    Season("IC86_I", 55694.4, 56062.4, 136244),
    Season("IC86_II", 56043.4, 56414.4, 112858, 56062.4),
    Season("IC86_III", 56414.4, 56783.5, 122541),
    Season("IC86_IV", 56757.4, 57160.0, 127045, 56783.5),
    Season("IC86_V", 57136.8, 57528.8, 129311, 57160.0),
    Season("IC86_VI", 57528.8, 57891.1, 123657),
    Season("IC86_VII", 57891.1, 58307.9, 145750),
)

_EVENT_HEADER = b"#     MJD[days]  log10(E/GeV)   AngErr[deg]       RA[deg]      Dec[deg]  Azimuth[deg]   Zenith[deg]\n"
_UPTIME_HEADER = b"#  MJD_start[days]  MJD_stop[days]\n"
_EVENT_COLUMNS = ((17, 8), *[(14, 2)] * 2, *[(14, 3)] * 4)
_TICKS = 10**8  # the release gives times to 1e-8 d

_README = """\
This is NOT IceCube data. It is a random stand-in made by the Lightlake sandbox, for demonstrations and tests,
in the format of "IceCube Data for Neutrino Point-Source Searches: Years 2008-2018" (arXiv:2101.09836).

events/<season>_exp.csv   one row an event: MJD (UT1), log10 of the reconstructed muon energy in GeV, angular
                          error, right ascension, declination (J2000), azimuth and zenith; angles in degrees
uptime/<season>_exp.csv   one row a good run: MJD of its start and of its stop

As in the real release, one event of the IC86-2015 season is there twice, and no angular error is below 0.2.
"""

# Events of the public IC40 file per bin of 0.1 in sin(dec), from -1 to 1.
_WEIGHTS = (
    *(1145, 1155, 1120, 1129, 1171, 1093, 1157, 1108, 1061, 1196),
    *(1105, 937, 762, 709, 636, 599, 631, 582, 631, 523),
)
# Quantiles of log10(E/GeV) and AngErr in the same file: a row per sin(dec) in _SIN_DEC, a column per _PROB.
_PROB = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1)
_SIN_DEC = (-0.95, -0.35, -0.25, -0.15, -0.05, 0.05, 0.95)
_ENERGY = (
    (5.73, 5.76, 5.82, 5.89, 6.00, 6.22, 6.43, 6.80, 6.84),
    (5.21, 5.26, 5.34, 5.40, 5.49, 5.70, 5.87, 6.12, 6.30),
    (4.97, 5.03, 5.13, 5.20, 5.30, 5.52, 5.76, 5.92, 5.93),
    (4.21, 4.39, 4.65, 4.80, 4.93, 5.15, 5.37, 5.58, 5.60),
    (2.69, 3.18, 3.44, 3.76, 4.03, 4.46, 4.87, 5.08, 5.42),
    (2.76, 3.09, 3.29, 3.46, 3.71, 4.14, 4.51, 5.31, 5.39),
    (2.59, 2.90, 3.08, 3.23, 3.40, 3.79, 4.06, 4.30, 4.33),
)
_ANGERR = (
    (0.20, 0.24, 0.33, 0.46, 0.72, 1.14, 1.22, 1.27, 1.28),
    (0.20, 0.31, 0.48, 0.72, 0.99, 1.23, 1.27, 1.28, 1.29),
    (0.20, 0.34, 0.51, 0.76, 1.02, 1.21, 1.26, 1.27, 1.28),
    (0.20, 0.31, 0.55, 0.78, 1.01, 1.18, 1.23, 1.25, 1.26),
    (0.20, 0.39, 0.63, 0.88, 1.04, 1.19, 1.74, 2.18, 2.44),
    (0.20, 0.37, 0.57, 0.80, 1.12, 1.80, 2.21, 2.38, 2.42),
    (0.20, 0.33, 0.60, 0.86, 1.27, 2.02, 2.35, 2.57, 2.90),
)


def season_counts(scale: float = 1.0) -> dict[str, int]:
    """Events per season at a scale; at least two, because one season has a duplicate."""
    if not 0 < scale <= 10:
        raise ValueError(f"scale must be above 0 and at most 10, not {scale}")
    return {season.name: max(2, round(season.events * scale)) for season in SEASONS}


def write_release(
    path: Path, *, seed: int = 20210126, scale: float = 1.0, targets: Sequence[tuple[float, float]] = ()
) -> Path:
    """Write the release as one zip; the same arguments give the same bytes.

    Parameters
    ----------
    path
        The zip to write. It appears complete or not at all.
    seed
        Seed of everything random.
    scale
        Factor on the number of events per season.
    targets
        Positions (right ascension, declination, deg). Each gets `EVENTS_PER_TARGET` energetic events whose
        error circle contains it, in place of background events.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for name, content in _members(seed, scale, targets):
                member = zipfile.ZipInfo(f"{FOLDER}/{name}", date_time=(2021, 1, 28, 12, 0, 0))
                member.create_system = 3
                member.external_attr = 0o100644 << 16
                archive.writestr(member, content, zipfile.ZIP_DEFLATED, compresslevel=6)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_folder(
    path: Path, *, seed: int = 20210126, scale: float = 1.0, targets: Sequence[tuple[float, float]] = ()
) -> Path:
    """Write what `write_release` writes, unpacked: ``readme.txt``, ``events/``, ``uptime/`` below `path`."""
    for name, content in _members(seed, scale, targets):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Sequence[tuple[float, float]]) -> str:
    """Make the release under `root` unless it is there, mount it, and return its URL."""
    # Raise "format" when the generated bytes change, so that cached releases are made anew.
    place = np.array(targets, dtype=float).tolist()
    key = {"format": 1, "seed": seed, "scale": float(scale), "targets": place}
    file = root / "icecube" / ZIP_NAME
    sandbox.cached(file, key, lambda: write_release(file, seed=seed, scale=scale, targets=targets))
    sandbox.mount_file(URL_PATH, file)
    return sandbox.url(URL_PATH)


def _members(seed: int, scale: float, targets: Sequence[tuple[float, float]]) -> Iterator[tuple[str, bytes]]:
    counts = season_counts(scale)
    positions = np.asarray(targets, dtype=np.float64).reshape(-1, 2)
    share = np.array([season.events for season in SEASONS], dtype=np.float64)
    where = np.random.default_rng([seed, len(SEASONS)]).choice(
        len(SEASONS), size=(len(positions), EVENTS_PER_TARGET), p=share / share.sum()
    )
    yield "readme.txt", _README.encode()
    for number, season in enumerate(SEASONS):
        rng = np.random.default_rng([seed, number])
        runs = _uptime(season, rng)
        hits = positions[np.nonzero(where == number)[0]]
        events = _events(season, counts[season.name], runs, hits, rng)
        yield f"events/{season.name}_exp.csv", _EVENT_HEADER + _fixed_width(events, _EVENT_COLUMNS)
        yield f"uptime/{season.name}_exp.csv", _UPTIME_HEADER + _fixed_width(runs, [(17, 8)] * 2)


def _uptime(season: Season, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Good runs, in ticks: eight hours each as a rule, seldom shorter, seldom with a long gap between."""
    stretches = [(season.start, season.stop)]
    if season.main is not None:
        stretches = [(season.start, season.start + 1.0), (season.main, season.stop)]
    starts, stops = [], []
    for begin, end in stretches:
        n = int((end - begin) * 8) + 8
        length = np.where(rng.random(n) < 0.85, rng.normal(0.33335, 0.0001, n), rng.uniform(0.007, 0.333, n))
        gap = np.where(rng.random(n) < 0.94, rng.exponential(0.0015, n), rng.uniform(0.01, 0.4, n))
        stop = begin + np.cumsum(length + gap)
        start = stop - length
        keep = start < end - 0.007
        starts.append(np.rint(start[keep] * _TICKS).astype(np.int64))
        stops.append(np.rint(np.minimum(stop[keep], end) * _TICKS).astype(np.int64))
    return np.concatenate(starts), np.concatenate(stops)


def _events(season: Season, n: int, runs: tuple[Ints, Ints], hits: Floats, rng: np.random.Generator) -> list[Ints]:
    """Columns of a season's events file, as integers in units of each column's last decimal."""
    if len(hits) > n // 10:
        raise ValueError(f"{season.name} has too few events for {len(hits)} at targets: raise scale")
    starts, stops = runs
    before = np.concatenate(([0], np.cumsum(stops - starts)))
    live = np.sort(rng.integers(0, before[-1], n))
    run = np.searchsorted(before, live, side="right") - 1
    ticks = starts[run] + live - before[run]
    mjd = ticks / _TICKS

    share = np.concatenate(([0.0], np.cumsum(_WEIGHTS))) / sum(_WEIGHTS)
    sin_dec = np.interp(rng.random(n), share, np.linspace(-1, 1, len(share)))
    dec = np.degrees(np.arcsin(sin_dec))
    energy = _quantile(_ENERGY, sin_dec, rng.random(n))
    angerr = _quantile(_ANGERR, sin_dec, rng.random(n))
    # The detector is a hexagonal grid, so acceptance has six-fold symmetry in azimuth, strongest in IC40.
    uneven = 0.33 if season.name == "IC40" else 0.1
    azimuth = rng.uniform(0, 360, n)
    azimuth -= np.degrees(uneven / 6 * np.sin(np.radians(6 * (azimuth - 15))))
    ra = _sidereal(mjd) + 90 - azimuth

    at = rng.choice(n, size=len(hits), replace=False)
    angerr[at] = rng.uniform(0.2, 0.6, len(at))
    distance, bearing = angerr[at] * rng.uniform(0.05, 0.6, len(at)), rng.uniform(0, 360, len(at))
    ra[at], dec[at] = _offset(hits, distance, bearing)
    energy[at] = _quantile(_ENERGY, np.sin(np.radians(dec[at])), rng.uniform(0.97, 0.999, len(at)))

    azimuth, zenith = _local(mjd, ra, dec)
    columns = [
        ticks,
        *(np.rint(values * 100).astype(np.int64) for values in (energy, angerr)),
        *(np.rint(values * 1000).astype(np.int64) for values in (ra, dec, azimuth, zenith)),
    ]
    for circle in (3, 5):
        columns[circle] %= 360_000
    if season.name == DUPLICATED_SEASON:
        again = rng.choice(np.setdiff1d(np.arange(1, n), at))
        for column in columns:
            column[again] = column[again - 1]
    return columns


def _quantile(table: Sequence[Sequence[float]], sin_dec: Floats, prob: Floats) -> Floats:
    """Inverse cumulative distribution at `prob`, interpolated in sin(dec)."""
    at_dec = np.column_stack([np.interp(sin_dec, _SIN_DEC, column) for column in np.array(table).T])
    right = np.clip(np.searchsorted(_PROB, prob), 1, len(_PROB) - 1)
    edges = np.array(_PROB)
    part = (prob - edges[right - 1]) / (edges[right] - edges[right - 1])
    rows = np.arange(len(prob))
    return np.asarray(at_dec[rows, right - 1] * (1 - part) + at_dec[rows, right] * part)


def _offset(origin: Floats, distance: Floats, bearing: Floats) -> tuple[Floats, Floats]:
    """Right ascension and declination at a distance and bearing from each origin, all in degrees."""
    ra, dec = np.radians(origin.T)
    r, b = np.radians(distance), np.radians(bearing)
    sin_there = np.sin(dec) * np.cos(r) + np.cos(dec) * np.sin(r) * np.cos(b)
    turn = np.arctan2(np.sin(b) * np.sin(r) * np.cos(dec), np.cos(r) - np.sin(dec) * sin_there)
    return np.degrees(ra + turn), np.degrees(np.arcsin(np.clip(sin_there, -1, 1)))


def _sidereal(mjd: Floats) -> Floats:
    """Greenwich mean sidereal time in degrees; good to an arcsecond in this century."""
    return np.asarray((280.46061837 + 360.98564736629 * (mjd - 51544.5)) % 360)


def _local(mjd: Floats, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """Azimuth and zenith at the South Pole of J2000 positions, with precession to first order."""
    years = (mjd - 51544.5) / 365.25
    tan_dec = np.clip(np.tan(np.radians(dec)), -60, 60)
    ra_now = ra + years * (0.012812 + 0.005567 * np.sin(np.radians(ra)) * tan_dec)
    zenith = 90 + dec + years * 0.005567 * np.cos(np.radians(ra))
    return (_sidereal(mjd) + 90 - ra_now) % 360, np.clip(zenith, 0, 180)


def _fixed_width(columns: Sequence[Ints], layout: Sequence[tuple[int, int]]) -> bytes:
    """Lines of right-aligned fixed-point numbers, from integers in units of the last decimal."""
    lines = np.full((sum(width for width, _ in layout) + 1, len(columns[0])), ord(" "), dtype=np.uint8)
    lines[-1] = ord("\n")
    end = 0
    for values, (width, decimals) in zip(columns, layout, strict=True):
        end += width
        rest = np.abs(values)
        negative = values < 0
        for place in range(width):
            row = lines[end - 1 - place]
            if place == decimals:
                row[:] = ord(".")
                continue
            shown = np.full(len(row), True) if place <= decimals + 1 else rest > 0
            if not (shown.any() or negative.any()):
                break
            rest, digit = np.divmod(rest, 10)
            row[shown] = digit[shown] + ord("0")
            row[negative & ~shown] = ord("-")
            negative &= shown
    return lines.T.tobytes()
