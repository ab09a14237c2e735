"""Make light curves from the PCA's Standard-2 files alone, where HEASoft is absent: a fallback, marked as such.

The rate is counts per second per PCU that is on. The background is in it, and it is not corrected for dead time: it
does not compare with a standard product. A Standard-2 file has, each 16 s, a spectrum of 129 channels for each half
(L, R) of each anode layer of each PCU; they are not split in time, so that a sample counts whole or not at all.

Sources: HEASARC's ABC of XTE on Standard 2 (samples of a bright source may last 2 s,
keyword DELTAT) and on filter files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.errors import ConfigurationError, GranuleRejected
from lake.science.times import DAY_S, met_to_mjd
from lake.text import counted
from tasks.services.fits import Data, Floats, Header, Table, naming, read_tables, unpacked
from tasks.sources.rxte import energies
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.cut import GTI, PCUS, STD2_BIN_S, ChannelCut
from tasks.sources.rxte.fits import Clock, LightCurve, clock, pointing

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Not those that pcaprepobsid makes of it, whose names go on with _dt or _bkg.
_NAME = re.compile(r"FS4a_[0-9a-f]+-[0-9a-f]+(?:\.gz)?")
_SPECTRUM = re.compile(r"X[123][LR]SPECPCU([0-4])")

# Clocks of two files may differ by their corrections, some ms: starts this near are of one sample.
_SAME_S = 0.1
# A filter file has a row each 16 s; what is further from a row than this is not known.
_REACH_S = 1.5 * 16.0


@dataclass(frozen=True)
class _Samples:
    """Samples of Standard 2, in order of time, none twice.

    Parameters
    ----------
    start
        Seconds since MJDREF, with TIMEZERO: shape (samples,).
    counts
        In the chosen channels and layers, NaN if one is missing: shape (samples, PCUs of the cut).
    alive
        Whether a PCU has any counts at all: the same shape; of PCUs whose state the filter file has it is not read.
    """

    start: Floats
    counts: Floats
    alive: Bools

    def __getitem__(self, rows: Any) -> _Samples:
        return _Samples(self.start[rows], self.counts[rows], self.alive[rows])


@dataclass(frozen=True)
class _File:
    """A Standard-2 file."""

    header: Header
    clock: Clock
    samples: _Samples
    undated: int
    odd: int


@dataclass(frozen=True)
class _Filter:
    """A filter file: times of its rows, s since MJDREF; which are good time; PCUs' states, by number."""

    clock: Clock
    at: Floats
    good: Bools
    states: Mapping[int, Floats]


def is_standard2(file_name: str) -> bool:
    """Say whether a file of the archive's folder pca is a Standard-2 file, packed by gzip or not.

    Parameters
    ----------
    file_name
        Such as FS4a_15699510-1569a540.gz; folders before it do not matter.
    """
    return _NAME.fullmatch(PurePosixPath(file_name).name) is not None


def light_curve(std2: Mapping[str, Data], cut: ChannelCut, epoch: int, filter_file: Data | None = None) -> LightCurve:
    """Compute the rate in a cut of channels, per PCU that is on, with background, without dead-time correction.

    Channels are whole Standard-2 channels: a cut that ends within one has all of it, and a remark. A PCU is on in a
    sample if all rows of the filter file about the sample say so; without a filter file, if it has any counts. A bin
    is kept without a rate if it has no sample that is good: within the default good time throughout, with a chosen PCU
    on, and none turned on or off. The error is that of Poisson, the root of the counts; there is none where there are
    no counts, for which the root would be an error of 0, and weigh infinitely in any fit: `counts` says it all.

    Parameters
    ----------
    std2
        The Standard-2 files of one observation by their names; samples that several have are taken once.
    cut
        What to count; its method is standard2, its gti the default.
    epoch
        Gain epoch of the observation, 1 to 5, of which channels follow from energies.
    filter_file
        Filter file of the observation; None: no good times are applied, which is said.

    Returns
    -------
    LightCurve
        Times are starts of bins (timepixr 0). A bin longer than a sample begins a whole number of bins after the first
        sample; `fracexp` is the part of it that counts, `counts` are of all PCUs that are on. Where there are no
        samples there are no bins.

    Raises
    ------
    ConfigurationError
        If the cut is of another method, or has an expression for the good times that is not the default.
    GranuleRejected
        If there is no file, one is broken, lacks what was chosen, or contradicts another, or if the channels of this
        epoch do not reach the energies.
    OSError
        If a file cannot be read.
    """
    if cut.method != "standard2" or "".join(cut.gti.split()) != "".join(GTI.split()):
        raise ConfigurationError(
            f"Standard 2 alone does not give {cut.band} by method {cut.method} and gti {cut.gti}",
            hint="method heasoft evaluates expressions; method standard2 has the default gti only",
        )
    if not std2:
        raise GranuleRejected("there is no Standard-2 file")
    try:
        asked = cut.channels(epoch)
    except ValueError as error:
        raise GranuleRejected(str(error)) from error
    lowest, highest = energies.std2_channel(asked).tolist()
    part = slice(lowest, highest + 1)

    names = sorted(std2)
    rows = None if filter_file is None else _read_filter(filter_file)
    blind = [pcu for pcu in cut.pcus if rows is None or pcu not in rows.states]
    files = [_read(name, std2[name], cut, part, blind) for name in names]
    first = files[0]
    for name, one in zip(names, files, strict=True):
        if one.clock.bin_s != first.clock.bin_s:
            lengths = f"{one.clock.bin_s:g} s long, those of {names[0]} {first.clock.bin_s:g} s"
            raise GranuleRejected(f"{name}: its samples are {lengths}")
        if len({known.header.text("OBS_ID") for known in (one, first)} - {""}) > 1:
            raise GranuleRejected(f"{name}: it is of another observation than {names[0]}")
    samples, overlapping = _joined(files, names)
    remarks = list(dict.fromkeys(remark for one in files for remark in one.clock.remarks))
    remarks += [f"{counted(n, 'sample')} without TIME left out"] if (n := sum(one.undated for one in files)) else []
    remarks += [f"impossible counts taken for missing: {n}"] if (n := sum(one.odd for one in files)) else []
    remarks += (
        [f"{counted(overlapping, 'sample that overlaps', 'samples that overlap')} others left out"]
        if overlapping
        else []
    )
    summed = _absolute(part)
    if summed != asked:
        remarks.append(f"channels {asked} lie within whole Standard-2 channels, {summed} are counted")

    sample_s = first.clock.bin_s
    used, more_remarks = _used(samples, sample_s, cut, rows, first.clock)
    binned = _binned(samples, used, sample_s, cut.bin_s)
    mjd = met_to_mjd(binned["seconds"] + cut.bin_s / 2, *first.clock.mjdref)
    epochs = np.unique(rxte.gain_epoch(met_to_mjd(samples.start, *first.clock.mjdref))).tolist()
    if others := [one for one in epochs if one != epoch]:
        remarks.append(f"samples of gain epochs {others} have the channels of epoch {epoch}")
    ends = [float(met_to_mjd(end, *first.clock.mjdref)) for end in samples.start[[0, -1]] + [0, sample_s]]
    ra, dec = pointing(first.header)
    return LightCurve(
        product=cut,
        seconds=binned["seconds"],
        mjd=mjd,
        rate=binned["rate"],
        error=binned["error"],
        counts=binned["counts"],
        fracexp=binned["fracexp"],
        bin_s=cut.bin_s,
        timepixr=0.0,
        mjdref=first.clock.mjdref,
        mjd_start=ends[0],
        mjd_stop=ends[1],
        barytime_s=None,
        ra=ra,
        dec=dec,
        pcus=tuple(cut.pcus[place] for place in np.flatnonzero(used.any(axis=0)).tolist()),
        channels=summed,
        ontime_s=float(np.count_nonzero(used.any(axis=1)) * sample_s),
        details={
            "method": "standard2",
            "background": "included",
            "deadtime": "not corrected",
            "per": "pcu",
            "error": "Poisson, none where there are no counts",
            "pcus": list(cut.pcus),
            "layers": list(cut.layers),
            "channels": list(summed),
            "channels_asked": list(asked),
            "std2_channels": [part.start, part.stop - 1],
            "gti": None if rows is None else GTI,
            "filter_file": rows is not None,
            "pcus_on_by": {str(pcu): "counts" if pcu in blind else "filter file" for pcu in cut.pcus},
            "files": names,
            "object": first.header.text("OBJECT"),
            "timezero_s": first.clock.timezero_s,
            "timepixr": first.clock.timepixr,
            "bin_s": cut.bin_s,
            "sample_s": sample_s,
            "assumed": sorted({name for one in files for name in one.clock.assumed}),
        },
        remarks=(*remarks, *more_remarks),
    )


def _absolute(part: slice) -> tuple[int, int]:
    """Return the first and last absolute channel of Standard-2 channels."""
    inside = np.flatnonzero(
        np.isin(energies.std2_channel(np.arange(energies.ABSOLUTE_CHANNELS)), np.arange(energies.STD2_CHANNELS)[part])
    )
    return int(inside[0]), int(inside[-1])


def _read(name: str, data: Data, cut: ChannelCut, part: slice, blind: Sequence[int]) -> _File:
    """Read a Standard-2 file: the counts of a cut, and of PCUs that are `blind`, whether there are any."""
    with naming(name):
        tables = list(read_tables(unpacked(data)))
        fits = [one for one in tables if "TIME" in one.names and any(map(_SPECTRUM.fullmatch, one.names))]
        if not fits:
            seen = "; ".join(", ".join(one.names) for one in tables) or "no table at all"
            raise GranuleRejected(f"it has no table of TIME and spectra of Standard 2, but {seen}")
        table = fits[0]
        times = clock(table.header, STD2_BIN_S)
        if table.header.number("DELTAT") not in (None, times.bin_s):
            raise GranuleRejected(f"TIMEDEL is {times.bin_s:g}, but DELTAT {table.header.number('DELTAT'):g}")
        chosen = {pcu: [f"X{layer}{side}SPECPCU{pcu}" for layer in cut.layers for side in "LR"] for pcu in cut.pcus}
        if absent := [one for columns in chosen.values() for one in columns if one not in table.widths]:
            raise GranuleRejected(f"it lacks {', '.join(absent)}, which the cut takes")
        spectra = [one for one in table.widths if (found := _SPECTRUM.fullmatch(one)) and int(found[1]) in cut.pcus]
        for one in spectra:
            if table.widths[one] != energies.STD2_CHANNELS:
                raise GranuleRejected(
                    f"{one} has {counted(table.widths[one], 'channel')}, not {energies.STD2_CHANNELS}"
                )
        if table.widths.get("TIME") != 1:
            raise GranuleRejected("its column TIME is no number")
        start = table.column("TIME") + (times.timezero_s - times.timepixr * times.bin_s)
        read = {one: _counts(table, one, part) for columns in chosen.values() for one in columns}
        counts = np.stack([sum(read[one][0] for one in columns) for columns in chosen.values()], axis=1)
        alive = np.zeros(counts.shape, np.bool_)
        for at, pcu in enumerate(cut.pcus):
            for one in (one for one in spectra if pcu in blind and one.endswith(str(pcu))):
                alive[:, at] |= (table.column(one) > 0).any(axis=1)
        dated = _dated(start, times)
        rxte.gain_epoch(met_to_mjd(start[dated], *times.mjdref))
        odd = sum(n for _, n in read.values())
        return _File(table.header, times, _Samples(start, counts, alive)[dated], int((~dated).sum()), odd)


def _dated(seconds: Floats, times: Clock) -> Bools:
    """Say which times are possible; if none is, the clock is wrong, and all times that are there stay."""
    known = np.isfinite(seconds)
    possible = known & rxte.is_of_mission(met_to_mjd(np.where(known, seconds, np.nan), *times.mjdref))
    return possible if possible.any() else known


def _counts(table: Table, name: str, part: slice) -> tuple[Floats, int]:
    """Return a spectrum's counts, NaN for impossible ones, and how many these are; GranuleRejected if all are."""
    values = table.column(name, part)
    if (odd := (values < 0) | np.isinf(values)).all() and odd.any():
        raise GranuleRejected(f"{name} has {values[odd][0]:g} counts")
    return np.where(odd, np.nan, values).sum(axis=1), int(odd.sum())


def _joined(files: Sequence[_File], names: Sequence[str]) -> tuple[_Samples, int]:
    """Merge the samples of all files in order, each once, and count those that partly overlap others."""
    ref, sample_s = files[0].clock.mjdref, files[0].clock.bin_s
    every = _Samples(
        np.concatenate([one.samples.start + _apart_s(one.clock.mjdref, ref) for one in files]),
        np.concatenate([one.samples.counts for one in files]),
        np.concatenate([one.samples.alive for one in files]),
    )
    if not every.start.size:
        raise GranuleRejected(f"{', '.join(names)}: no samples")
    order = np.argsort(every.start, kind="stable")
    every = every[order]
    if (np.diff(every.start) > sample_s - _SAME_S).all():
        return every, 0
    whose = np.repeat(np.arange(len(files)), [len(one.samples.start) for one in files])[order]
    kept, overlapping, starts = [0], 0, every.start.tolist()
    for at in range(1, len(starts)):
        last = kept[-1]
        if starts[at] - starts[last] > sample_s - _SAME_S:
            kept.append(at)
        elif starts[at] - starts[last] > _SAME_S:
            overlapping += 1
        elif not np.array_equal(every.counts[at], every.counts[last], equal_nan=True):
            message = f"the sample at {starts[at]:.3f} s comes twice, and differs"
            raise GranuleRejected(f"{names[whose[at]]}: {message} (the other is of {names[whose[last]]})")
    return every[kept], overlapping


def _apart_s(mjdref: tuple[float, float], other: tuple[float, float]) -> float:
    return ((mjdref[0] - other[0]) + (mjdref[1] - other[1])) * DAY_S


def _read_filter(data: Data) -> _Filter:
    """Read a filter file: the default good time, and which PCUs are on."""
    with naming("filter file" if isinstance(data, bytes) else data.name):
        wanted = {"TIME", "ELV", "OFFSET", "NUM_PCU_ON"}
        tables = list(read_tables(unpacked(data)))
        fits = [one for one in tables if wanted <= set(one.names)]
        if not fits:
            seen = "; ".join(", ".join(one.names) for one in tables) or "no table at all"
            raise GranuleRejected(f"it has no table of {', '.join(sorted(wanted))}, but {seen}")
        table = fits[0]
        single = {name for name, width in table.widths.items() if width == 1}
        if not wanted <= single:
            raise GranuleRejected(f"{', '.join(sorted(wanted - single))} are no numbers")
        times = clock(table.header, STD2_BIN_S)
        at = table.column("TIME") + times.timezero_s
        at = np.where(_dated(at, times), at, np.nan)
        order = np.argsort(at, kind="stable")[: np.isfinite(at).sum()]
        if not order.size:
            raise GranuleRejected("it has no rows")
        elv, offset, on = (table.column(name)[order] for name in ("ELV", "OFFSET", "NUM_PCU_ON"))
        # A comparison with NaN is false: what is null is not good.
        good = (elv > 4) & (offset < 0.1) & (on > 0) & (on < 6)
        states = {pcu: table.column(f"PCU{pcu}_ON")[order] for pcu in PCUS if f"PCU{pcu}_ON" in single}
        return _Filter(times, at[order], good, states)


def _used(
    samples: _Samples, sample_s: float, cut: ChannelCut, rows: _Filter | None, time: Clock
) -> tuple[Bools, list[str]]:
    """Return which PCUs' counts are used in each sample, shape (samples, PCUs of the cut), and remarks."""
    on, off = samples.alive.copy(), ~samples.alive
    outside = np.zeros(len(on), np.bool_)
    if rows is not None:
        at = rows.at + _apart_s(rows.clock.mjdref, time.mjdref)
        first = np.searchsorted(at, samples.start + _SAME_S, side="right") - 1
        last = np.searchsorted(at, samples.start + sample_s - _SAME_S, side="left")
        first, last = np.maximum(first, 0), np.minimum(last, len(at) - 1)

        def throughout(what: Bools) -> Bools:
            wrong = np.append(0, np.cumsum(~what))
            return np.asarray(wrong[last + 1] == wrong[first])

        near = np.abs(samples.start - at[first]) < _REACH_S
        near &= np.abs(at[last] - samples.start - sample_s) < _REACH_S
        outside = ~(near & throughout(rows.good))
        for place, pcu in enumerate(cut.pcus):
            if pcu in rows.states:
                on[:, place], off[:, place] = (throughout(rows.states[pcu] == state) for state in (1, 0))
    turned = ~(on | off).all(axis=1)
    # Of a PCU that is off, neither counts nor their absence matter.
    uncounted = (on & np.isnan(samples.counts)).any(axis=1)
    reasons = {
        "lie outside the good times": outside,
        "have a PCU turned on or off, or of unknown state": turned,
        "have no chosen PCU on": ~on.any(axis=1),
        "lack counts": uncounted,
    }
    bad, remarks = np.zeros(len(on), np.bool_), []
    for words, which in reasons.items():
        if n := int((which & ~bad).sum()):
            remarks.append(f"{n} of {counted(len(on), 'sample')} {words}")
        bad |= which
    if rows is None:
        remarks.append("no filter file: no good times applied, a PCU is taken to be on where it has counts")
    elif unknown := [pcu for pcu in cut.pcus if pcu not in rows.states]:
        remarks.append(f"the filter file lacks the states of PCUs {unknown}: taken to be on where they have counts")
    return on & ~bad[:, None], remarks


def _binned(samples: _Samples, used: Bools, sample_s: float, bin_s: float) -> dict[str, Floats]:
    """Bin samples: return starts of bins, s, and their rate, error, counts and fracexp, NaN where there is no rate."""
    per_bin = round(bin_s / sample_s)
    if not per_bin or abs(per_bin * sample_s - bin_s) > 1e-6 * sample_s:
        raise GranuleRejected(f"bins of {bin_s:g} s are no whole number of samples of {sample_s:g} s")
    which, seconds = np.arange(len(samples.start)), samples.start
    if per_bin > 1:
        # By the middle, lest jitter of the clock moves a sample into the bin before.
        since = np.floor((samples.start - samples.start[0] + sample_s / 2) / bin_s)
        numbers, which = np.unique(since, return_inverse=True)
        seconds = samples.start[0] + numbers * bin_s

    def summed(values: Any) -> Floats:
        return np.asarray(np.bincount(which, values, len(seconds)), np.float64)

    counts = summed(np.where(used, samples.counts, 0).sum(axis=1))
    pcu_s = summed(used.sum(axis=1)) * sample_s
    pcu_s[pcu_s == 0] = np.nan
    return {
        "seconds": seconds,
        "rate": counts / pcu_s,
        "error": np.sqrt(np.where(counts > 0, counts, np.nan)) / pcu_s,
        "counts": np.where(np.isnan(pcu_s), np.nan, counts),
        "fracexp": np.minimum(summed(used.any(axis=1)) * sample_s / bin_s, 1.0),
    }
