"""What the published collector made of the targets of Yang et al. 2018."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from astropy.coordinates import SkyCoord


def rows_of(data_dir: Path, bands: Collection[str]) -> pd.DataFrame:
    """Rows of the collector in some bands: objectid, label, band, time, flux and err (mJy)."""
    table = pq.read_table(data_dir / "multiarchive_oracle" / "dflc_Faisst_May182023.parquet").to_pandas()
    return table[table.band.isin(bands)].reset_index(drop=True)


def sample_of(data_dir: Path) -> pd.DataFrame:
    """31 targets: the 26 places of the paper's table, and five between them, since NED's list is not at hand.

    Which place an object of the oracle has is not known either, nor does it matter to its published light curve.
    """
    table = pd.read_csv(data_dir / "literature_samples" / "yang2018_yangg.cat", sep="\t", header=None)
    places = SkyCoord(table[1], table[2], unit=("hourangle", "deg"))
    ra, dec = np.append(places.ra.deg, places.ra.deg[:5] + 0.5), np.append(places.dec.deg, places.dec.deg[:5])
    return pd.DataFrame({"objectid": range(31), "ra": ra, "dec": dec}).assign(
        name=lambda rows: "Y" + rows.objectid.astype(str)
    )
