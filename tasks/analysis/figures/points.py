"""What a figure of one target's light curves shows: every measurement is drawn, or counted with the reason why not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from lake.text import counted

# Points of one figure: beyond this a browser becomes slow and the page large.
MOST_POINTS = 20_000

# Bands that repeat a better one: apertures, fluxes with their systematics in them, parts of a net rate.
ASIDE = r"_(?:ap|sap|raw|src|bkg)$"

# A band with fewer measurements is not clipped: its scatter is not known. As in the Fornax collector's figures.
_FEWEST_CLIPPED = 10

# Limits are drawn at so many standard deviations above what was measured.
LIMIT_SIGMA = 3.0

FLUX, ENERGY, EVENT = "mJy", "GeV", ""
# A band without unit, or with a fluence, tells of an event.
_EVENT_UNITS = ("erg.cm**-2",)

RELATIVE = "over its median"


@dataclass(frozen=True)
class Fold:
    """A period in days and a time of phase 0, MJD(TDB) at the barycentre, to fold times by."""

    period_d: float
    epoch_mjd: float


@dataclass(frozen=True)
class Look:
    """How light curves are drawn.

    Parameters
    ----------
    axis
        Fluxes, magnitudes, or fluxes over their median.
    scale
        Of the axis of fluxes. On a logarithmic one, only positive fluxes are drawn.
    clip
        Hide measurements this many standard deviations and more from the mean of their band; their times are marked.
    with_bad
        Draw measurements, too, that their archive advises against.
    bands
        Draw just these; None: all that do not repeat a better one.
    scaled
        Draw rates of electrons and relative fluxes among those in mJy, by a factor that the legend has.
    fold
        Draw phases from -0.5 to 0.5.
    mean_width_d
        Width in days of the window of the running mean.
    """

    axis: Literal["flux", "magnitude", "normalised"] = "flux"
    scale: Literal["linear", "symlog", "log"] = "linear"
    clip: float | None = None
    with_bad: bool = False
    bands: tuple[str, ...] | None = None
    scaled: bool = False
    fold: Fold | None = None
    mean_width_d: float = 30.0


@dataclass
class Points:
    """Measurements as a figure draws them.

    Parameters
    ----------
    frame
        Columns archive, band, series, panel, kind, x, y, err, mjd, unit and exposure_s, a row for each mark.
        Kinds: point, bad, limit, unseen (not detected, no flux: a time alone), event, above and below (hidden).
    drawn, left_out
        Number of measurements by what they are, and by why they are not drawn.
    factors
        Of bands that are scaled.
    """

    frame: pd.DataFrame
    drawn: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    factors: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Return the number of measurements, drawn or not."""
        return self.drawn.total() + self.left_out.total()

    @property
    def panels(self) -> list[str]:
        """Return the panels: fluxes in mJy first, then other units, energies last."""
        found = self.frame.loc[self.frame.panel != EVENT, "panel"].drop_duplicates()
        return sorted(found, key=lambda one: (one != FLUX, one == ENERGY, one))


def points(rows: pa.Table, look: Look) -> Points:
    """Decide how each measurement of a target is drawn.

    Parameters
    ----------
    rows
        Columns archive, band, mjd, bmjd_tdb, flux, flux_err, mag, mag_err, mag_system, unit, detected, good,
        exposure_s, as in view target_lightcurves.
    look
        How.

    Examples
    --------
    >>> one = {"archive": "ztf", "band": "ztf_g", "mjd": 58000.5, "bmjd_tdb": 58000.5, "flux": 0.1, "flux_err": 0.01,
    ...        "mag": None, "mag_err": None, "mag_system": "AB", "unit": "mJy", "detected": True, "good": True,
    ...        "exposure_s": 30.0}
    >>> made = points(pa.Table.from_pylist([one, {**one, "good": False}]), Look())
    >>> made.frame[["panel", "kind", "y", "err"]].values.tolist()
    [['mJy', 'point', 0.1, 0.01]]
    >>> dict(made.left_out)
    {'not good': 1}
    """
    frame = rows.to_pandas()
    for name in ("mjd", "bmjd_tdb", "flux", "flux_err", "mag", "mag_err", "exposure_s"):
        frame[name] = pd.to_numeric(frame[name]).astype(float)
    frame["series"] = frame["band"]
    frame["panel"] = _panels(frame, look)
    frame["y"], frame["err"] = _values(frame, look)
    made = Points(frame)
    _put_aside(made, look)
    _place_in_time(made, look)
    _kinds(made, look)
    if look.scaled and look.axis == "flux":
        _scale(made)
    _off_a_logarithm(made, look)
    if look.clip is not None:
        _clip(made, look.clip)
    _thin(made)
    made.drawn.update(made.frame["kind"].map(_WORDS).tolist())
    return made


GOOD, LIMIT, UNSEEN, EVENTS = "good", "a limit", "not detected and without a limit", "an event"
_CLIPPED = "clipped, its time marked"
_WORDS = {
    "point": GOOD,
    "bad": "not good",
    "limit": LIMIT,
    "unseen": UNSEEN,
    "event": EVENTS,
    "above": _CLIPPED,
    "below": _CLIPPED,
}


def _panels(frame: pd.DataFrame, look: Look) -> pd.Series:
    unit = frame["unit"]
    is_event = unit.isna() | unit.isin(_EVENT_UNITS)
    if look.axis == "magnitude":
        named = frame["mag_system"].fillna("").map(lambda system: f"{system} mag".strip())
        return named.where(~is_event & (unit != ENERGY), np.where(is_event, EVENT, ENERGY))
    if look.axis == "normalised":
        return pd.Series(np.where(is_event, EVENT, np.where(unit == ENERGY, ENERGY, RELATIVE)), frame.index)
    return unit.mask(unit == "", RELATIVE).mask(is_event, EVENT)


def _values(frame: pd.DataFrame, look: Look) -> tuple[pd.Series, pd.Series]:
    if look.axis != "magnitude":
        return frame["flux"].copy(), frame["flux_err"].copy()
    is_energy = frame["panel"] == ENERGY
    return frame["mag"].where(~is_energy, frame["flux"]), frame["mag_err"].where(~is_energy, frame["flux_err"])


def _leave_out(made: Points, which: pd.Series, why: str) -> None:
    if n := int(which.sum()):
        made.left_out[why] += n
        made.frame = made.frame[~which].copy()


def _put_aside(made: Points, look: Look) -> None:
    frame = made.frame
    if look.bands is not None:
        _leave_out(made, ~frame.band.isin(look.bands), "of other bands")
        return
    repeats = frame.band.str.contains(ASIDE, regex=True)
    better = set(frame.archive[~repeats])
    names = sorted(set(frame.band[repeats & frame.archive.isin(better)]))
    _leave_out(made, repeats & frame.archive.isin(better), f"of {counted(len(names), 'band')} that repeat a better one")


def _place_in_time(made: Points, look: Look) -> None:
    frame = made.frame
    if look.fold is None:
        _leave_out(made, frame.mjd.isna(), "without a time")
        made.frame["x"] = made.frame.mjd
        return
    _leave_out(made, frame.bmjd_tdb.isna(), "without a time at the barycentre")
    cycles = (made.frame.bmjd_tdb - look.fold.epoch_mjd) / look.fold.period_d
    made.frame["x"] = cycles - np.floor(cycles + 0.5)


def _kinds(made: Points, look: Look) -> None:
    frame = made.frame
    is_event, has_value = frame.panel == EVENT, frame.y.notna()
    seen, good = frame.detected.fillna(True).astype(bool), frame.good.fillna(False).astype(bool)
    limit = ~seen & has_value & frame.err.notna()
    frame["kind"] = np.select(
        [is_event, limit, ~seen, ~has_value, ~good], ["event", "limit", "unseen", "nothing", "bad"], "point"
    )
    towards = -1 if look.axis == "magnitude" else 1
    frame.loc[limit, "y"] += towards * LIMIT_SIGMA * frame.err[limit]
    missing = "without a magnitude" if look.axis == "magnitude" else "without a flux"
    _leave_out(made, frame.kind == "nothing", missing)
    if not look.with_bad:
        _leave_out(made, made.frame.kind == "bad", "not good")


def _scale(made: Points) -> None:
    """Scale bands in other units to the median of those in mJy."""
    frame = made.frame
    shown = frame[frame.kind.isin(("point", "bad"))]
    medians = shown.groupby(["panel", "band"]).y.median()
    if FLUX not in medians.index.get_level_values(0):
        return
    level = float(medians[FLUX].median())
    for panel, band, median in medians.reset_index().itertuples(index=False):
        if panel in (RELATIVE, "electron.s**-1") and median > 0 and level > 0:
            which, factor = frame.band == band, level / float(median)
            frame.loc[which, ["y", "err"]] *= factor
            frame.loc[which, "panel"] = FLUX
            frame.loc[which, "series"] = f"{band} × {factor:.3g}"
            made.factors[band] = factor


def _off_a_logarithm(made: Points, look: Look) -> None:
    if look.scale == "log" and look.axis != "magnitude":
        frame = made.frame
        _leave_out(made, frame.kind.isin(("point", "bad", "limit")) & (frame.y <= 0), "not positive, on a log axis")


def _clip(made: Points, clip: float) -> None:
    frame = made.frame
    shown = frame.kind.isin(("point", "bad")) & (frame.panel != ENERGY)
    bands = frame[shown].groupby(["archive", "band"]).y
    mean, spread, n = (bands.transform(name) for name in ("mean", "std", "size"))
    spread = spread * np.sqrt((n - 1) / n)  # of the population, as the collector has it
    score = (frame.y[shown] - mean) / spread
    far = (score.abs() >= clip) & (n >= _FEWEST_CLIPPED)
    frame.loc[far[far].index, "kind"] = np.where(score[far] > 0, "above", "below")


def _thin(made: Points) -> None:
    frame = made.frame.sort_values(["archive", "band", "x"], kind="stable")
    of_band = frame.groupby(["archive", "band"])
    made.frame = frame
    step = -(-of_band.x.transform("size") // _share(of_band.size().tolist()))
    left = of_band.cumcount() % step != 0
    thinned = pd.DataFrame({"band": frame.band, "step": step})[left].value_counts().reset_index()
    for band, every, n in thinned.itertuples(index=False):
        made.left_out[f"of {band}: every {_ordinal(int(every))} is drawn"] += int(n)
    made.frame = frame[~left].reset_index(drop=True)


def _share(counts: list[int]) -> int:
    """Return the most points of a band: short light curves stay whole, the others share what is left."""
    left, bands = MOST_POINTS, len(counts)
    for count in sorted(counts):
        if count * bands > left:
            return max(1, left // bands)
        left, bands = left - count, bands - 1
    return max([1, *counts])


def _ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def running_mean(mjd: np.ndarray, y: np.ndarray, err: np.ndarray, width_d: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean in a moving window, weighted by 1 / err**2.

    Parameters
    ----------
    mjd, y, err
        Shape (n,), sorted by time. Measurements without a positive error are not used.
    width_d
        Width of the window. Times are a quarter of it apart.

    Returns
    -------
    tuple
        Times and means, NaN in windows with fewer than two measurements.

    Examples
    --------
    >>> t, mean = running_mean(np.array([0.0, 1, 2]), np.array([1.0, 2, 9]), np.array([1.0, 1, 2]), 8.0)
    >>> t.tolist(), mean.round(3).tolist()
    ([0.0, 2.0], [2.333, 2.333])
    """
    used = np.isfinite(y) & (err > 0)
    mjd, y, weight = mjd[used], y[used], err[used] ** -2.0
    if mjd.size < 2:
        return np.empty(0), np.empty(0)
    times = np.arange(mjd[0], mjd[-1] + width_d / 4, width_d / 4)
    first = np.searchsorted(mjd, times - width_d / 2, side="right")
    last = np.searchsorted(mjd, times + width_d / 2, side="left")
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (weight, weight * y)]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (sums[1][last] - sums[1][first]) / (sums[0][last] - sums[0][first])
    return times, np.where(last - first >= 2, mean, np.nan)
