"""Format rows of VIRAC light curves as lines of the published CSVs, many at once.

The common parts of an exposure's lines are formatted once; the rest is four numbers per row, to four decimals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.errors import SchemaError

Bytes = NDArray[np.uint8]

BANDS = ("Ks", "Z", "Y", "J", "H")
HEADER = (
    "mjd,ks_mag,ks_err,z_mag,z_err,y_mag,y_err,j_mag,j_err,h_mag,h_err,"
    "seeing,exptime,skylevel,ellipticity,chi,ast_res_chisq,detected,filter\n"
)

# Commas before and after the two columns of a band.
_BEFORE = {band: "," * (1 + 2 * place) for place, band in enumerate(BANDS)}
_AFTER = {band: "," * (2 * (len(BANDS) - place) - 1) for place, band in enumerate(BANDS)}

# Rows formatted at once.
_ROWS = 100_000

# Whole numbers, and fractions to four decimals, as text.
_WHOLE = np.array([str(number) for number in range(100_000)], dtype="S5")
_FRACTION = np.array([f".{number:04d}" for number in range(10_000)], dtype="S5")


class LineFormatter:
    """Formats the rows of sources, in the order of their files.

    Parameters
    ----------
    rows
        The rows, in any order.
    exposures
        Their exposures.
    n
        Number of sources.

    Raises
    ------
    SchemaError
        If an exposure has more than one time.
    """

    def __init__(self, rows: pa.Table, exposures: pa.Table, n: int) -> None:
        names = rows["exposure_id"].combine_chunks()
        exposure = names.indices.to_numpy()
        ids = names.dictionary.to_pylist()
        first = np.zeros(len(ids), np.int64)
        first[exposure[::-1]] = np.arange(rows.num_rows)[::-1]
        mjd = rows["mjd"].to_numpy()
        if (odd := np.flatnonzero(mjd != mjd[first][exposure])).size:
            raise SchemaError(f"exposure {ids[exposure[odd[0]]]} of VIRAC has rows of several times")
        self._texts = _texts(ids, rows.select(["mjd", "band"]).take(first), exposures)
        rank = np.empty(len(ids), np.int64)
        rank[sorted(range(len(ids)), key=lambda one: _order(ids[one]))] = np.arange(len(ids))
        source = rows["number"].to_numpy()
        detected = rows["detected"].to_numpy()
        # Each source's detections first, then the rest, both in the order of catindexid.
        self._order = np.argsort((source * 2 + ~detected) * max(1, len(ids)) + rank[exposure])
        self._detected, self._exposure = detected, exposure
        self._values = [
            rows[name].to_numpy().astype(np.float32, copy=False) for name in ("mag", "mag_err", "chi", "ast_res_chisq")
        ]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))])

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of sources to format at once."""
        first, n = 0, len(self.starts) - 1
        while first < n:
            last = int(np.searchsorted(self.starts, self.starts[first] + _ROWS, side="right")) - 1
            last = min(max(first + 1, last), n)
            yield first, last
            first = last

    def format_rows(self, start: int, stop: int) -> Bytes:
        """Return lines as an array, one per row; bytes 0 in it are padding."""
        rows = self._order[start:stop]
        exposure, detected = self._exposure[rows], self._detected[rows]
        comma = np.where(detected, np.uint8(ord(",")), np.uint8(0))[:, None]
        begin, middle, end = self._texts
        mag, error, chi, chisq = (_decimals(values[rows]) for values in self._values)
        n = len(middle) - 1  # the last is for rows without a detection
        inner = np.where(detected, exposure, n)
        return np.concatenate(
            [
                begin[np.where(detected, exposure, exposure + n)],
                mag,
                comma,
                error,
                middle[inner],
                chi,
                comma,
                chisq,
                end[inner],
            ],
            axis=1,
        )


def _texts(ids: list[str], rows: pa.Table, exposures: pa.Table) -> tuple[Bytes, Bytes, Bytes]:
    """Return the common parts of an exposure's lines: before mag, between mag_err and chi, after chi.

    The second half of the first array has the complete lines of rows without a detection.
    """
    known = {one.pop("exposure_id"): one for one in exposures.to_pylist()}
    begin, missed, middle, end = [], [], [], []
    for one, mjd, band in zip(ids, rows["mjd"].to_pylist(), rows["band"].to_pylist(), strict=True):
        values = known.get(one, {})
        seen = ",".join(
            "" if values.get(name) is None else f"{values[name]:.{places}f}"
            for name, places in (("seeing_arcsec", 3), ("exposure_s", 2), ("sky_level", 2), ("ellipticity", 4))
        )
        begin.append(f"{mjd:.6f}{_BEFORE[band]}")
        missed.append(f"{mjd:.6f},,,,,,,,,,,{seen},,,0,{band}\n")
        middle.append(f"{_AFTER[band]}{seen},")
        end.append(f",1,{band}\n")
    return _matrix([*begin, *missed]), _matrix([*middle, ""]), _matrix([*end, ""])


def _matrix(texts: list[str]) -> Bytes:
    array = np.array(texts, dtype=np.bytes_)
    return array.view(np.uint8).reshape(len(array), array.itemsize)


def _decimals(values: NDArray[np.float32]) -> Bytes:
    """Format numbers to four decimals as Python does, one per row; NaN is empty."""
    known = ~np.isnan(values)
    # The product is exact, so it rounds as the decimal number does: 24 bits of a float32 and 10 of 5**4 fit a double.
    scaled = np.rint(np.abs(values.astype(np.float64)) * 10_000)
    usual = scaled < 10_000 * len(_WHOLE)
    whole, fraction = np.divmod(np.where(usual, scaled, 0).astype(np.int64), 10_000)
    array = np.empty(len(values), dtype=[("sign", "u1"), ("whole", "S5"), ("fraction", "S5")])
    array["sign"] = np.where(np.signbit(values), ord("-"), 0)
    array["whole"], array["fraction"] = _WHOLE[whole], _FRACTION[fraction]
    text = array.view(np.uint8).reshape(len(values), array.itemsize)
    text[~known] = 0
    if (usual | ~known).all():
        return text
    rest = np.flatnonzero(known & ~usual)
    others = _matrix([f"{value:.4f}" for value in values[rest].tolist()])
    wider = np.zeros((len(values), max(array.itemsize, others.shape[1])), np.uint8)
    wider[:, : array.itemsize] = text
    wider[rest] = 0
    wider[rest, : others.shape[1]] = others
    return wider


def _order(exposure: str) -> tuple[str, int, str]:
    """Return the sort key of an exposure: the tile, then catindexid, the number after the slash."""
    tile, _, number = exposure.rpartition("/")
    return tile, int(number) if number.isdigit() else -1, number
