"""Extract light curves of COS exposures, beside the loops that a user writes with astropy and numpy.

The exposures are generated: a source of constant rate and two background regions on both segments of the FUV detector,
with flags, weights and a gap in the good times. Lightlake opens each file, judges it, bins it by 2 s and writes
Parquet, on two processes. The loop (vs_per_exposure_loop) opens each file, selects the events of each bin by masks,
and writes a FITS table; a second loop (vs_histogram_loop) has numpy's histogram in place of the masks. Each side runs
in fresh processes, in turns, with the files in the page cache; times are without imports. All must have the same
counts. peak_rss_gb is that of a process that extracts one exposure of 10 million events.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import Run, fresh, print_result, print_table

CORES, SEED, STEP_S = 2, 20260913, 2.0
FILES, EVENTS, EXPOSURE_S = 12, 600_000, 1_500.0
QUICK_FILES, QUICK_EVENTS = 4, 150_000
LARGE_EVENTS = 10_500_000  # some fall into the gap
GAP = (700.0, 740.0)
# Location and height of the source's box and of the background regions.
SOURCE, BACKGROUND = (500, 51), ((300, 41), (800, 41))
AIRGLOW = ((1208, 1225), (1298, 1312))
# By segment: first wavelength, Angstrom a pixel, share of the events.
SEGMENTS = {"a": (1_290.0, 0.031, 0.6), "b": (1_135.0, 0.01, 0.4)}
CONFIGURATION = {
    "TELESCOP": "HST",
    "INSTRUME": "COS",
    "DETECTOR": "FUV",
    "TARGNAME": "STAR",
    "OBSTYPE": "SPECTROSCOPIC",
    "OPT_ELEM": "G130M",
    "CENWAVE": 1291,
    "APERTURE": "PSA",
    "FPPOS": 3,
    "PROPOSID": 13902,
}
# Columns of a corrtag file: COS Data Handbook, table 2.11.
FLOATS = ("TIME", "XCORR", "YCORR", "XDOPP", "XFULL", "YFULL", "WAVELENGTH", "EPSILON")
FORMATS = {**dict.fromkeys(FLOATS, "1E"), "RAWX": "1I", "RAWY": "1I", "DQ": "1I", "PHA": "1B"}
ORDER = (
    *("TIME", "RAWX", "RAWY", "XCORR", "YCORR", "XDOPP", "XFULL", "YFULL"),
    *("WAVELENGTH", "EPSILON", "DQ", "PHA"),
)


def write_segment(path: Path, segment: str, n: int, seed: int) -> None:
    """Write a corrtag file of the events of a Poisson source."""
    from astropy.io import fits

    first, per_pixel, _ = SEGMENTS[segment]
    random = np.random.default_rng(seed)
    seconds = np.sort(random.uniform(0.0, EXPOSURE_S, random.poisson(n)).astype(np.float32))
    seconds = seconds[(seconds < GAP[0]) | (seconds > GAP[1])]
    n = len(seconds)
    kind, x = random.uniform(size=n), random.uniform(1_000, 15_000, n)
    background = np.where(random.uniform(size=n) < 0.5, BACKGROUND[0][0], BACKGROUND[1][0])
    y = np.where(kind < 0.6, random.normal(SOURCE[0], 6.0, n), background + random.uniform(-20, 20, n))
    y = np.where(kind > 0.75, random.uniform(0, 1_024, n), y)
    values = {
        "TIME": seconds,
        **dict.fromkeys(("RAWX", "XCORR", "XDOPP", "XFULL"), x),
        **dict.fromkeys(("RAWY", "YCORR", "YFULL"), y),
        "WAVELENGTH": first + per_pixel * x,
        "EPSILON": random.normal(1.0, 0.02, n),
        "DQ": np.where(random.uniform(size=n) < 0.03, 4, 0),
        "PHA": np.full(n, 10),
    }
    primary, letter = fits.PrimaryHDU(), segment.upper()
    primary.header.update(CONFIGURATION | {"SEGMENT": f"FUV{letter}", "ROOTNAME": path.name.split("_")[0]})
    events = fits.BinTableHDU.from_columns(
        [fits.Column(name, FORMATS[name], array=values[name]) for name in ORDER], name="EVENTS"
    )
    boxes = (("SP_LOC", "SP_HGT", SOURCE), ("B_BKG1", "B_HGT1", BACKGROUND[0]), ("B_BKG2", "B_HGT2", BACKGROUND[1]))
    for location, height, at in boxes:
        events.header[f"{location}_{letter}"], events.header[f"{height}_{letter}"] = at
    exposed = EXPOSURE_S - (GAP[1] - GAP[0])
    events.header.update({"EXPSTART": 57_000.0, "EXPTIME": exposed, "EXPFLAG": "NORMAL", "SDQFLAGS": 8 | 4})
    times = fits.BinTableHDU.from_columns(
        [fits.Column("START", "1D", array=[0.0, GAP[1]]), fits.Column("STOP", "1D", array=[GAP[0], EXPOSURE_S])],
        name="GTI",
    )
    fits.HDUList([primary, events, times]).writeto(path)


def write_exposures(folder: Path, files: int, events: int) -> None:
    for number in range(files):
        for place, (segment, (_, _, share)) in enumerate(SEGMENTS.items()):
            path = folder / f"l{number:07d}q_corrtag_{segment}.fits"
            write_segment(path, segment, round(events * share), SEED + 2 * number + place)


def exposures(folder: Path) -> list[list[Path]]:
    return [[path, path.with_name(path.name.replace("_a.", "_b."))] for path in sorted(folder.glob("*_corrtag_a.fits"))]


def loop_masks(times: Any, weights: Any, edges: Any) -> Any:
    """Sum the weights of each bin, as notebooks do."""
    return np.array([weights[(times >= low) & (times < high)].sum() for low, high in pairwise(edges)])


def loop_histogram(times: Any, weights: Any, edges: Any) -> Any:
    return np.histogram(times, bins=edges, weights=weights)[0]


def loop_exposure(paths: list[Path], target: Path, summed: Callable[[Any, Any, Any], Any]) -> float:
    """Extract an exposure with astropy and numpy, and write a FITS table; return the sum of its counts."""
    from astropy.io import fits
    from astropy.table import Table

    opened = []
    for path in paths:
        with fits.open(path) as hdus:
            header = hdus["EVENTS"].header
            opened.append((Table(hdus["EVENTS"].data), header["SDQFLAGS"], header, hdus["GTI"].data["STOP"].max()))
    start = max(table["TIME"].min() for table, *_ in opened)
    end = min(max(table["TIME"].max() for table, *_ in opened), max(stop for *_, stop in opened))
    edges = start + STEP_S * np.arange(int((end - start) / STEP_S) + 1)
    gross, background = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for (table, serious, header, _), letter in zip(opened, "AB", strict=True):
        good = (table["DQ"] & serious) == 0
        good &= (table["WAVELENGTH"] > 915) & (table["WAVELENGTH"] < 1800)
        for low, high in AIRGLOW:
            good &= (table["WAVELENGTH"] < low) | (table["WAVELENGTH"] > high)

        def rows(location: str, height: str, table: Any = table, header: Any = header, letter: str = letter) -> Any:
            middle, half = header[f"{location}_{letter}"], header[f"{height}_{letter}"] / 2
            return (table["YCORR"] >= middle - half) & (table["YCORR"] < middle + half)

        source = table[good & rows("SP_LOC", "SP_HGT")]
        outside = table[good & (rows("B_BKG1", "B_HGT1") | rows("B_BKG2", "B_HGT2"))]
        scale = header[f"SP_HGT_{letter}"] / (header[f"B_HGT1_{letter}"] + header[f"B_HGT2_{letter}"])
        gross += summed(np.asarray(source["TIME"]), np.asarray(source["EPSILON"]), edges)
        background += scale * summed(np.asarray(outside["TIME"]), np.asarray(outside["EPSILON"]), edges)
    curve = Table({"times": edges[:-1], "gross": gross, "background": background, "counts": gross - background})
    curve["net"] = curve["counts"] / STEP_S
    curve["error"] = np.sqrt(gross + background)
    curve["mjd"] = header["EXPSTART"] + curve["times"] / 86_400
    curve.write(target, overwrite=True)
    return float(curve["counts"].sum())


def loop(folder: str, way: str) -> dict[str, Any]:
    """Run the user's loop over all exposures."""
    summed = {"masks": loop_masks, "histogram": loop_histogram}[way]
    found = exposures(Path(folder))
    loop_exposure(found[0], Path(folder, "warm.fits"), summed)  # its imports are not what is measured
    started = time.perf_counter()
    counts = [loop_exposure(paths, Path(folder, f"{way}_{number}.fits"), summed) for number, paths in enumerate(found)]
    return {"seconds": time.perf_counter() - started, "counts": counts}


def extract_exposure(paths: list[Path], target: Path) -> tuple[float, int]:
    """Judge and extract an exposure, and write Parquet; return the sum of its counts, and how many events it has."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tasks.sources.hst_timetag.exposure import open_exposures
    from tasks.sources.hst_timetag.extract import Selection
    from tasks.sources.hst_timetag.products import bin_rows

    with open_exposures(paths) as (opened,):
        opened.check()
        curve = opened.curve(Selection())
        pq.write_table(bin_rows([(opened.exposure_id, curve)], "exposure"), target)
        return pc.sum(curve.table["counts"]).as_py(), sum(table.rows for table in opened.tables)


def _warm(path: Path) -> None:
    """Import all that an extraction does; each process is to have one."""
    extract_exposure([path], path.with_name(f"{os.getpid()}.parquet"))
    time.sleep(0.2)


def lightlake(folder: str) -> dict[str, Any]:
    """Extract all exposures on two processes."""
    found = exposures(Path(folder))
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        list(pool.map(_warm, [found[0][0]] * CORES))
        started = time.perf_counter()
        targets = [Path(folder, f"{number}.parquet") for number in range(len(found))]
        done = list(pool.map(extract_exposure, found, targets))
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "counts": [counts for counts, _ in done], "events": sum(events for _, events in done)}


def large(folder: str) -> float:
    """Extract the exposure of many events."""
    (paths,) = exposures(Path(folder))
    return extract_exposure(paths, Path(folder, "large.parquet"))[1]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_FILES} exposures instead of {FILES}, and smaller")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    files, events, turns = (QUICK_FILES, QUICK_EVENTS, 1) if given.quick else (FILES, EVENTS, given.turns)
    if hasattr(os, "sched_setaffinity"):  # children inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory(prefix="lightlake-hst-") as temporary:
        folder = Path(temporary, "exposures")
        folder.mkdir()
        write_exposures(folder, files, events)
        runs: dict[str, list[Run]] = {"lightlake": [], "histogram": [], "masks": []}
        for _ in range(turns):
            runs["lightlake"].append(fresh(lightlake, str(folder)))
            for way in ("histogram", "masks"):
                runs[way].append(fresh(loop, str(folder), way))
        for side, done in runs.items():
            np.testing.assert_allclose(
                done[0].value["counts"], runs["masks"][0].value["counts"], rtol=2e-4, err_msg=side
            )
        one = Path(temporary, "large")
        one.mkdir()
        write_exposures(one, 1, QUICK_EVENTS * 10 if given.quick else LARGE_EVENTS)
        largest = fresh(large, str(one))
    seconds = {side: median(run.value["seconds"] for run in done) for side, done in runs.items()}
    total = runs["lightlake"][0].value["events"]
    print_table(
        f"{files} exposures, {total:,} events",
        ["side", "seconds", "events/s", "times as long"],
        [(side, taken, total / taken, taken / seconds["lightlake"]) for side, taken in seconds.items()],
    )
    print_table(
        "One exposure",
        ["", "events", "seconds", "peak GB"],
        [("lightlake", largest.value, largest.seconds, largest.peak_rss_mb / 1e3)],
    )
    print_result(
        {
            "vs_per_exposure_loop": seconds["masks"] / seconds["lightlake"],
            "vs_histogram_loop": seconds["histogram"] / seconds["lightlake"],
            "events_per_s": total / seconds["lightlake"],
            "peak_rss_gb": largest.peak_rss_mb / 1e3,
        }
    )


if __name__ == "__main__":
    main()
