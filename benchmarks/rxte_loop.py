"""Read standard-product light curves of RXTE one ObsID after another, as notebooks do, for comparison.

This is what an astronomer writes with astropy and pandas. It differs from the published notebook where that would make
the comparison unfair or the numbers wrong: tables are joined once at the end, values are copied to native order while
the file is open, times count from MJDREF and TIMEZERO to the middle of a bin, each row has its ObsID, and RATE is found
by name. As in the notebook, an unreadable file is skipped with a message.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from astropy.io import fits


def run(mirror: Path, observations: pa.Table, bands: Sequence[str] = ("a",)) -> dict[str, Any]:
    """Read the net light curves of the PCA into one table.

    Parameters
    ----------
    mirror
        Folder with ``AO{cycle}/P{prnb}/{obsid}/stdprod``.
    observations
        Columns ``obsid``, ``cycle`` and ``prnb``. Rows without an obsid were not observed and are skipped.
    bands
        Letters of the PCA's bands, a to e; or all, for every light curve.

    Returns
    -------
    dict
        ``rows`` of the table, ``seconds``, read ``files`` and ``skipped`` ones.
    """
    started = time.perf_counter()
    table, files, skipped = collect(mirror, observations, bands)
    seconds = time.perf_counter() - started
    return {"rows": len(table), "seconds": seconds, "files": files, "skipped": len(skipped)}


def collect(
    mirror: Path, observations: pa.Table, bands: Sequence[str] = ("a",)
) -> tuple[pd.DataFrame, int, list[Path]]:
    """Read light curves into one table by time; return it, the number of files read, and the skipped files."""
    frames: list[pd.DataFrame] = []
    skipped: list[Path] = []
    wanted = observations.select(["obsid", "cycle", "prnb"]).to_pylist()
    for row in wanted:
        if not row["obsid"]:
            continue
        folder = mirror / f"AO{row['cycle']}" / f"P{row['prnb']}" / row["obsid"] / "stdprod"
        for pattern in ["x[ph]*.lc.gz"] if bands == "all" else [f"xp*_n2{band}.lc.gz" for band in bands]:
            for path in sorted(folder.glob(pattern)):
                try:
                    frames.append(read(path).assign(obsid=row["obsid"], band=path.name.split("_")[1][:3]))
                except (OSError, EOFError, LookupError, TypeError, ValueError, zlib.error) as error:
                    print(f"skipped {path.name}: {error}")
                    skipped.append(path)
    if not frames:
        return pd.DataFrame(columns=["mjd", "rate", "error", "fracexp", "obsid", "band"]), 0, skipped
    table = pd.concat(frames, ignore_index=True).sort_values("mjd", ignore_index=True)
    return table, len(frames), skipped


def read(path: Path) -> pd.DataFrame:
    """Read a light curve: MJD (TT) of the middle of each bin, rate and error (count/s), fractional exposure."""
    with fits.open(path) as file:
        head, data = file["RATE"].header, file["RATE"].data
        zero = head.get("TIMEZERO", head.get("TIMEZERI", 0) + head.get("TIMEZERF", 0.0))
        middle = head["TIMEDEL"] * (0.5 - head.get("TIMEPIXR", 0.0))
        met = data["TIME"].astype("f8") + zero + middle
        return pd.DataFrame(
            {
                "mjd": head["MJDREFI"] + (head["MJDREFF"] + met / 86_400),
                "rate": data["RATE"].astype("f4"),
                "error": data["ERROR"].astype("f4"),
                "fracexp": data["FRACEXP"].astype("f4"),
            }
        )
