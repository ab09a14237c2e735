"""Keywords and columns of FITS tables, beside what astropy makes of the same files."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tasks.services.fits import read_tables, unpacked

# Folders of real files; HST's have other columns and many more keywords.
FOLDERS = ["rxte", "hst_cos_stis"]
# Of the primary header, a table has what it lacks; of these only in the form that it has itself.
WHOLE = ("MJDREF", "TIMEZER", "TSTART", "TSTOP")
NOTES = ("COMMENT", "HISTORY")


def real_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.name.endswith((".fits", ".fits.gz", ".lc", ".evt.gz"))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_tables_of_real_files_are_as_astropy_reads_them(data_dir: Path, folder: str) -> None:
    n = 0
    for path in real_files(data_dir / folder):
        tables = list(read_tables(unpacked(path)))
        with warnings.catch_warnings(), fits.open(path, memmap=False) as opened:
            warnings.simplefilter("ignore")
            theirs = [hdu for hdu in opened if isinstance(hdu, fits.BinTableHDU)]
            assert len(tables) == len(theirs), path.name
            for table, hdu in zip(tables, theirs, strict=True):
                assert table.names == [name.upper() for name in hdu.columns.names]
                assert table.header.notes == [
                    str(card.value).strip() for card in hdu.header.cards if card.keyword in NOTES
                ]
                for card in hdu.header.cards:
                    if card.keyword in ("", *NOTES) or isinstance(card.value, fits.card.Undefined):
                        continue
                    ours, others = table.header.values[card.keyword], card.value
                    if isinstance(ours, str) and ours.endswith("&"):  # the rest is on another card, which none needs
                        assert others.startswith(ours[:-1])
                    else:
                        assert ours == (others.strip() if isinstance(others, str) else others), card
                missing = set(opened[0].header) - set(hdu.header) - {"EXTNAME", "", *NOTES}
                known = {name for name in missing if table.header.values.get(name) is not None}
                assert all(
                    name in known or name.startswith(WHOLE) or isinstance(opened[0].header[name], fits.card.Undefined)
                    for name in missing
                )
                for name, width in table.widths.items():
                    if table.names.count(name) > 1 or not width:
                        continue
                    ours, others = table.column(name), np.asarray(hdu.data[hdu.columns.names[table.names.index(name)]])
                    null = table.header.values.get(f"TNULL{table.names.index(name) + 1}")
                    if null is None or others.dtype.kind == "f":
                        assert np.array_equal(ours, others.reshape(ours.shape).astype(float), equal_nan=True), name
                    else:
                        there = ~np.isnan(ours)
                        assert np.array_equal(ours[there], others.reshape(ours.shape)[there].astype(float)), name
                        assert (others.reshape(ours.shape)[~there] == null).all()
                    n += ours.size
    assert n


def test_a_keyword_that_comes_twice_counts_once_and_the_tables_form_wins() -> None:
    columns = [fits.Column("TIME", "D", array=np.arange(3.0)), fits.Column("N", "I", array=[1, -1, 2], null=-1)]
    table, head = fits.BinTableHDU.from_columns(columns, name="RATE"), fits.PrimaryHDU()
    for name, value in {"TSTART": 5.0, "MJDREFI": 1, "MJDREFF": 0.5, "OBJECT": "X", "EXTNAME": "NO"}.items():
        head.header[name] = value
    table.header["TSTARTI"], table.header["TSTARTF"] = 7, 0.25
    table.header.append(fits.Card("OBJECT", "FIRST"), end=True)
    table.header.append(fits.Card("OBJECT", "SECOND"), end=True)
    made = fits.HDUList([head, table])
    out = io.BytesIO()
    made.writeto(out)
    (read,) = read_tables(out.getvalue())
    assert read.header.number("TSTART") == 7.25
    assert "TSTART" not in read.header.values
    assert (read.header.number("MJDREF"), read.header.text("OBJECT")) == (1.5, "FIRST")
    assert read.header.text("EXTNAME") == "RATE"
    assert np.array_equal(read.column("N"), [1.0, np.nan, 2.0], equal_nan=True)
