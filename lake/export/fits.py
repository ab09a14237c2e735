"""Write light curves as FITS: a binary table for each band of an archive, with units, clocks and credits in its header.

Column bmjd_tdb is called TIME, and the header's TIMESYS, TREFPOS and MJDREF are its own: so astropy, lightkurve, STILTS
and TOPCAT read one file. Column MJD has the archive's clock in TCTYPn and TRPOSn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ConfigurationError
from lake.export.rows import Part, Rows, noted, of_unit, plain, plain_schema
from lake.export.units import fits_unit
from lake.text import visible

_BLOCK = 2880
# Code, numpy's type and the value that stands for NULL.
_TYPES: dict[pa.DataType, tuple[str, str, int | None]] = {
    pa.bool_(): ("L", "u1", None),
    pa.int16(): ("I", ">i2", -(2**15)),
    pa.int32(): ("J", ">i4", -(2**31)),
    pa.int64(): ("K", ">i8", -(2**63)),
    pa.float32(): ("E", ">f4", None),
    pa.float64(): ("D", ">f8", None),
}
_MOST_COLUMNS = 999
_TIME = "TIME"


def write_fits(rows: Rows, file: BinaryIO) -> None:
    r"""Write a FITS file.

    Text is ASCII: other characters are written as escapes such as ``\xe9``. NULL text is empty.

    Parameters
    ----------
    rows
        What to write.
    file
        Where to.

    Raises
    ------
    ConfigurationError
        If there are more columns than FITS can have, or two of one name in capitals.
    """
    from astropy.io.fits import Header

    names = _names(rows.schema.names)
    primary = Header()
    primary["SIMPLE"] = (True, "conforms to FITS standard")
    primary["BITPIX"] = 8
    primary["NAXIS"] = 0
    primary["EXTEND"] = True
    for line in _ascii_lines([rows.title, *rows.credits]):
        primary.add_comment(line)
    for name, value in rows.facts.items():
        primary.add_history(_ascii(f"{name}: {value}"))
    file.write(primary.tostring(padding=True).encode("ascii"))
    for number, part in enumerate(rows.parts, 1):
        _write_part(rows, part, number, names, file)


def _names(columns: Iterable[str]) -> dict[str, str]:
    names = {name: _TIME if name == "bmjd_tdb" else _ascii(name).upper() for name in columns}
    twice = [name for name, shown in names.items() if list(names.values()).count(shown) > 1]
    if twice:
        raise ConfigurationError(
            f"FITS takes columns {' and '.join(twice)} for one", hint="rename one in the query: SELECT ... AS name"
        )
    if len(names) > _MOST_COLUMNS:
        raise ConfigurationError(f"FITS takes {_MOST_COLUMNS} columns at most, and not {len(names)}")
    return names


def _write_part(rows: Rows, part: Part, number: int, names: Mapping[str, str], file: BinaryIO) -> None:
    schema = plain_schema(rows.schema)
    widths = _widths(part, schema)
    kind = np.dtype([(names[one.name], _numpy_type(one, widths)) for one in schema])
    header = _header(rows, part, number, schema, names, widths, kind.itemsize)
    file.write(header.tostring(padding=True).encode("ascii"))
    written = 0
    for batch in part.batches():
        made = np.zeros(batch.num_rows, kind)
        for one, values in zip(schema, plain(batch).columns, strict=True):
            made[names[one.name]] = _values(values, widths.get(one.name))
        file.write(made.tobytes())
        written += batch.num_rows * kind.itemsize
    file.write(b"\0" * (-written % _BLOCK))


def _numpy_type(one: pa.Field, widths: Mapping[str, int]) -> str:
    return _TYPES[one.type][1] if one.type in _TYPES else f"S{widths[one.name]}"


def _widths(part: Part, schema: pa.Schema) -> dict[str, int]:
    """Return the bytes of the longest text in each column."""
    texts = [one.name for one in schema if one.type == pa.string()]
    widths = dict.fromkeys(texts, 2)  # STILTS takes 1A for a single letter, which does not go with longer text
    for batch in part.batches() if texts else ():
        for one, values in zip(schema, plain(batch).columns, strict=True):
            if one.name in widths and batch.num_rows:
                found = pc.max(pc.binary_length(_escaped(values))).as_py() or 0
                widths[one.name] = max(widths[one.name], found)
    return widths


def _escaped(values: pa.Array) -> pa.Array:
    """Return text in ASCII, without control characters."""
    if pc.all(pc.fill_null(pc.match_substring_regex(values, r"^[\x20-\x7e]*$"), True)).as_py():
        return values
    return pa.array([None if one is None else _ascii(one) for one in values.to_pylist()], pa.string())


def _ascii(text: str) -> str:
    return visible(text).encode("ascii", "backslashreplace").decode()


def _ascii_lines(texts: Iterable[str]) -> list[str]:
    return [_ascii(line) for text in texts for line in text.splitlines()]


def _values(values: pa.Array, width: int | None) -> Any:
    if width is not None:
        return pc.fill_null(_escaped(values), "").to_numpy(zero_copy_only=False).astype(f"S{width}")
    if values.type == pa.bool_():
        shown = pc.if_else(values, pa.scalar(ord("T"), pa.uint8()), pa.scalar(ord("F"), pa.uint8()))
        return pc.fill_null(shown, 0).to_numpy(zero_copy_only=False)
    blank = _TYPES[values.type][2]
    return (values if blank is None else pc.fill_null(values, blank)).to_numpy(zero_copy_only=False)


def _header(
    rows: Rows,
    part: Part,
    number: int,
    schema: pa.Schema,
    names: Mapping[str, str],
    widths: Mapping[str, int],
    row_bytes: int,
) -> Any:
    from astropy.io.fits import Header

    header = Header()
    header["XTENSION"] = ("BINTABLE", "binary table extension")
    header["BITPIX"] = 8
    header["NAXIS"] = 2
    header["NAXIS1"] = (row_bytes, "bytes of a row")
    header["NAXIS2"] = (part.rows, "rows")
    header["PCOUNT"] = 0
    header["GCOUNT"] = 1
    header["TFIELDS"] = len(schema)
    header["EXTNAME"] = _ascii(part.title) or "ROWS"
    header["EXTVER"] = number
    clock = rows.clock(part)
    for at, one in enumerate(schema, 1):
        code, _, blank = _TYPES.get(one.type, ("A", "", None))
        about = noted(one, "description")
        header[f"TTYPE{at}"] = names[one.name]
        header[f"TFORM{at}"] = f"{widths[one.name]}A" if code == "A" else code
        unit = part.key.get("unit") if one.name in of_unit() else noted(one, "unit")
        if unit := fits_unit(unit):
            header[f"TUNIT{at}"] = unit
        if blank is not None:
            header[f"TNULL{at}"] = blank
        if ucd := noted(one, "ucd"):
            header[f"TUCD{at}"] = ucd
        if about:
            header[f"TCOMM{at}"] = _ascii(about)
        if one.name == "bmjd_tdb":
            _time_column(header, at, "TDB", "BARYCENTER")
        elif one.name == "mjd" and clock is not None:
            _time_column(header, at, *clock)
    _clock(header, rows, part, schema)
    _band(header, rows, part)
    for line in _ascii_lines(rows.credits):
        header.add_comment(line)
    return header


def _time_column(header: Any, at: int, scale: str, position: str) -> None:
    header[f"TCTYP{at}"] = (scale, "time scale")
    header[f"TCUNI{at}"] = "d"
    header[f"TRPOS{at}"] = (position, "where the clock is")


def _clock(header: Any, rows: Rows, part: Part, schema: pa.Schema) -> None:
    """Say in the header which clock its main time is of."""
    clock = ("TDB", "BARYCENTER") if "bmjd_tdb" in schema.names else rows.clock(part)
    if clock is None or not {"bmjd_tdb", "mjd"} & set(schema.names):
        return
    header["TIMESYS"] = (clock[0], "time scale")
    header["MJDREF"] = (0.0, "times are MJD")
    header["TIMEUNIT"] = "d"
    header["TREFPOS"] = (clock[1], "where the clock is")
    if clock[1] == "BARYCENTER" and rows.position is not None:
        header["TREFDIR"] = "RA_OBJ,DEC_OBJ"
        header["PLEPHEM"] = ("DE405", "ERFA epv00, within 45 us of it")
    if rows.position is not None:
        header["RA_OBJ"] = (rows.position[0], "deg, ICRS")
        header["DEC_OBJ"] = (rows.position[1], "deg, ICRS")
        header["RADESYS"] = "ICRS"


def _band(header: Any, rows: Rows, part: Part) -> None:
    for keyword, name in (("ARCHIVE", "archive"), ("RELEASE", "release"), ("BAND", "band")):
        if value := part.key.get(name):
            header[keyword] = _ascii(value)
    band = rows.band(part) or {}
    for keyword, name, about in (
        ("FILTER", "svo_id", "in the SVO Filter Profile Service"),
        ("MAGSYS", "mag_system", "system of magnitudes"),
        ("ZEROPNT", "zero_point_jy", "Jy, flux of magnitude 0"),
        ("WAVELEN", "wavelength_nm", "nm, effective wavelength"),
    ):
        if band.get(name) is not None:
            value = band[name]
            header[keyword] = (_ascii(value) if isinstance(value, str) else value, about)
