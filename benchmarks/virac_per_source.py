"""The side to compare with: extraction of VIRAC tiles source after source, a CSV for each, as published.

``python -m benchmarks.virac_per_source TILES OUT --processes 2`` extracts a folder of tiles. It is what an astronomer
writes with h5py and NumPy: columns, precision and order of rows are those of the published light curves. It differs
from the published extractor in what would make the comparison unfair or the numbers wrong: each array is read once,
``catindexid`` is looked up and not taken for a row number, filters may be padded or text, errors are raised, and files
that are already there are written anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

BANDS = ("Ks", "Z", "Y", "J", "H")
HEADER = (
    "mjd,ks_mag,ks_err,z_mag,z_err,y_mag,y_err,j_mag,j_err,h_mag,h_err,"
    "seeing,exptime,skylevel,ellipticity,chi,ast_res_chisq,detected,filter\n"
)
# Commas before and after the two columns of a band.
BEFORE = {band: "," * (1 + 2 * place) for place, band in enumerate(BANDS)}
AFTER = {band: "," * (2 * (len(BANDS) - place) - 1) for place, band in enumerate(BANDS)}


def extract_tile(tile: Path, out: Path, min_ks: int = 20) -> dict[str, int]:
    """Write ``out/{id[:3]}/{id[3:6]}/{id}.csv`` for sources with more than `min_ks` Ks detections.

    Returns
    -------
    dict
        ``sources`` in the tile, those ``kept``, ``rows``, ``bytes`` and ``files`` written.

    Raises
    ------
    ValueError
        If a pawprint is not in the catalogue, its filter is unknown, or arrays of a source differ in length.
    """
    made: set[Path] = set()
    done = Counter(sources=0, kept=0, rows=0, bytes=0, files=0)
    with h5py.File(tile, "r") as file:
        catalogue = file["catIndex"]
        ids = catalogue["catindexid"][:]
        order = np.argsort(ids)
        ids = ids[order]
        filters = [_text(value) for value in catalogue["filter"][:][order]]
        if unknown := set(filters) - set(BANDS):
            raise ValueError(f"{tile}: unknown filters {sorted(unknown)}")
        is_ks = np.array([name == "Ks" for name in filters], dtype=bool)
        mjd, seeing, exptime, skylevel, ellipticity = (
            catalogue[name][:][order].tolist() for name in ("mjdobs", "seeing", "exptime", "skylevel", "ellipticity")
        )

        series = file["timeSeries"]
        arrays = [series[name] for name in ("hfad_mag", "hfad_emag", "chi", "ast_res_chisq")]
        for number, sourceid in enumerate(file["sourceList/sourceid"][:].tolist()):
            done["sources"] += 1
            found = series["catindexid"][number]
            detected = _rows(ids, found)
            if np.count_nonzero(is_ks[detected]) <= min_ks:
                continue
            covered = series["catindexidcovered"][number]
            missed = _rows(ids, covered[~np.isin(covered, found)])
            values = (array[number].tolist() for array in arrays)

            lines = [HEADER]
            for row, mag, error, chi, chisq in zip(detected.tolist(), *values, strict=True):
                band = filters[row]
                lines.append(
                    f"{mjd[row]:.6f}{BEFORE[band]}{mag:.4f},{error:.4f}{AFTER[band]}{seeing[row]:.3f},"
                    f"{exptime[row]:.2f},{skylevel[row]:.2f},{ellipticity[row]:.4f},{chi:.4f},{chisq:.4f},1,{band}\n"
                )
            lines.extend(
                f"{mjd[row]:.6f},,,,,,,,,,,{seeing[row]:.3f},{exptime[row]:.2f},{skylevel[row]:.2f},"
                f"{ellipticity[row]:.4f},,,0,{filters[row]}\n"
                for row in missed.tolist()
            )
            text = "".join(lines).replace("nan", "")  # an empty string is NaN, and no other text has these letters
            name = str(sourceid)
            folder = out / name[:3] / name[3:6]
            if folder not in made:
                folder.mkdir(parents=True, exist_ok=True)
                made.add(folder)
            (folder / f"{name}.csv").write_text(text, encoding="ascii")
            done.update(kept=1, rows=len(lines) - 1, bytes=len(text), files=1)
    return dict(done)


def extract_folder(tiles: Path, out: Path, processes: int = 1, min_ks: int = 20) -> dict[str, int]:
    """Extract all tiles of a folder in a pool of processes, unordered, and add up what `extract_tile` returns."""
    work = partial(extract_tile, out=out, min_ks=min_ks)
    total: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done in pool.imap_unordered(work, sorted(tiles.glob("n*_*.hdf5")), chunksize=1):
            total.update(done)
    return dict(total)


def _rows(ids: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.intp]:
    """Rows of the sorted `ids` where those wanted are."""
    rows = np.searchsorted(ids, wanted)
    if len(wanted) and (rows.max() >= len(ids) or not np.array_equal(ids[rows], wanted)):
        raise ValueError("a catindexid is not in the catalogue")
    return rows


def _text(value: bytes | str) -> str:
    return (value.decode("ascii") if isinstance(value, bytes) else value).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Extract a folder of VIRAC tiles source after source.")
    parser.add_argument("tiles", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--min-ks", type=int, default=20)
    asked = parser.parse_args()
    started = time.perf_counter()
    done = extract_folder(asked.tiles, asked.out, asked.processes, asked.min_ks)
    print(json.dumps({**done, "seconds": round(time.perf_counter() - started, 3)}))


if __name__ == "__main__":
    main()
