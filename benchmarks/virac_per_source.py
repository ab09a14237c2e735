"""Extract VIRAC tiles source after source into CSV files, as published, for comparison.

``python -m benchmarks.virac_per_source TILES OUT --processes 2`` extracts a folder of tiles. This is what an astronomer
writes with h5py and NumPy, and what the published extractor does: a record array for each source, a line for each
record. Columns, precision and order of rows are those of the published light curves. It differs from that extractor
where the numbers would be wrong: ``catindexid`` is looked up and not used as a row number, filters may be padded or
text, errors are raised, and existing files are replaced.
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

# Numeric columns of a CSV and their formats; an empty string is NaN.
MEASURED = {f"{band.lower()}_{what}": ".4f" for band in BANDS for what in ("mag", "err")}
OF_PAWPRINT = {"seeing": ".3f", "exptime": ".2f", "skylevel": ".2f", "ellipticity": ".4f"}
FORMATS = {"mjd": ".6f", **MEASURED, **OF_PAWPRINT, "chi": ".4f", "ast_res_chisq": ".4f"}
RECORD = [(name, "f8") for name in FORMATS] + [("detected", "i1"), ("filter", "U2")]
HEADER = ",".join(name for name, _ in RECORD) + "\n"


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
    done = Counter(sources=0, kept=0, rows=0, bytes=0, files=0)
    with h5py.File(tile, "r") as file:
        order = np.argsort(file["catIndex/catindexid"][:])
        catalogue = {
            name: file["catIndex"][name][:][order] for name in ("catindexid", "mjdobs", "filter", *OF_PAWPRINT)
        }
        catalogue["filter"] = np.array([_text(value) for value in catalogue["filter"]], dtype="U16")
        if unknown := set(catalogue["filter"].tolist()) - set(BANDS):
            raise ValueError(f"{tile}: unknown filters {sorted(unknown)}")

        for number, sourceid in enumerate(file["sourceList/sourceid"][:].tolist()):
            done["sources"] += 1
            rows = _rows(catalogue["catindexid"], file["timeSeries/catindexid"][number])
            if np.count_nonzero(catalogue["filter"][rows] == "Ks") <= min_ks:
                continue
            records = light_curve(file["timeSeries"], number, catalogue)
            lines = [HEADER]
            for record in records:
                numbers = [f"{record[name]:{form}}".replace("nan", "") for name, form in FORMATS.items()]
                lines.append(",".join([*numbers, str(record["detected"]), str(record["filter"])]) + "\n")
            text = "".join(lines)
            name = str(sourceid)
            folder = out / name[:3] / name[3:6]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.csv").write_text(text, encoding="ascii")
            done.update(kept=1, rows=len(records), bytes=len(text), files=1)
    return dict(done)


def light_curve(series: Any, number: int, catalogue: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the records of a source: detections in the order of catindexid, then non-detections."""
    found, covered = series["catindexid"][number], series["catindexidcovered"][number]
    rows = _rows(catalogue["catindexid"], np.concatenate([found, covered[~np.isin(covered, found)]]))
    records = np.zeros(len(rows), RECORD)
    for name in (*MEASURED, "chi", "ast_res_chisq"):
        records[name] = np.nan
    records["mjd"] = catalogue["mjdobs"][rows]
    for name in (*OF_PAWPRINT, "filter"):
        records[name] = catalogue[name][rows]
    detected = records[: len(found)]
    detected["detected"] = 1
    mag, error, chi, chisq = (series[name][number] for name in ("hfad_mag", "hfad_emag", "chi", "ast_res_chisq"))
    if {len(mag), len(error), len(chi), len(chisq)} != {len(found)}:
        raise ValueError(f"arrays of source {number} differ in length")
    detected["chi"], detected["ast_res_chisq"] = chi, chisq
    for band in BANDS:
        mine = detected["filter"] == band
        detected[f"{band.lower()}_mag"][mine], detected[f"{band.lower()}_err"][mine] = mag[mine], error[mine]
    return records


def extract_folder(tiles: Path, out: Path, processes: int = 1, min_ks: int = 20) -> dict[str, int]:
    """Extract all tiles of a folder in a pool of processes, unordered, and add up what `extract_tile` returns."""
    work = partial(extract_tile, out=out, min_ks=min_ks)
    total: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done in pool.imap_unordered(work, sorted(tiles.glob("n*_*.hdf5")), chunksize=1):
            total.update(done)
    return dict(total)


def _rows(ids: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.intp]:
    """Return the rows of the wanted ids in the sorted `ids`."""
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
