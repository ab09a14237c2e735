"""Write light curves as VOTable 1.4, as the IVOA Note "Time Series: Annotation of light curves in VOTable" has it.

Each band of an archive is a TABLE in a RESOURCE of its own, with the PHOTCAL group that its fluxes and magnitudes point
to; TIMESYS says which clock a time is of, COOSYS which frame a position. Rows are written as they come.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.compute as pc

from lake.export.rows import Part, Rows, noted, of_unit, plain, plain_schema
from lake.export.units import flux_ucd, vounit
from lake.science.times import MJD_OFFSET

# STILTS 3.4 knows no later version.
VERSION = "1.4"
_NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"  # of all versions from 1.3 on

_TYPES = {
    pa.bool_(): "boolean",
    pa.int16(): "short",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
}
# Text that is ASCII by the lake's rules; other text may hold any character.
_ASCII = {"archive", "release", "unit", "mag_system", "time_scale", "time_frame"}

_BARYCENTRE, _ICRS = "barycentre", "icrs"
_CLOCK_SCALES = {"UTC", "UT", "TAI", "TT", "TDB", "TCB", "TCG", "UT1", "GPS"}

# XML 1.0 has no such characters.
_NO_XML = "[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]"
_INSTEAD = "\ufffd"


def write_votable(rows: Rows, file: BinaryIO) -> None:
    """Write a VOTable.

    Parameters
    ----------
    rows
        What to write.
    file
        Where to.
    """
    file.write(b'<?xml version="1.0" encoding="UTF-8"?>\n')
    _lines(file, [f"<VOTABLE version={quoteattr(VERSION)} xmlns={quoteattr(_NAMESPACE)}>"])
    _lines(file, ["<RESOURCE>", _described(_text([rows.title, *rows.credits]))])
    _lines(file, (_info(name, value) for name, value in rows.facts.items()))
    _lines(file, _systems(rows, rows.parts))
    ids = set[str]()
    for number, part in enumerate(rows.parts, 1):
        photcal, table = f"phot{number}", re.sub(r"\W", "_", part.title, flags=re.ASCII) or f"table{number}"
        table = f"{table}_{number}" if table in ids or table in (_ICRS, _BARYCENTRE) else table
        ids.add(table)
        _lines(file, ["<RESOURCE>", *_photcal(rows, part, photcal), *_head(rows, part, photcal, table)])
        _lines(file, ["<DATA><TABLEDATA>"])
        for batch in part.batches():
            file.write(_rows(plain(batch)))
        _lines(file, ["</TABLEDATA></DATA>", "</TABLE>", "</RESOURCE>"])
    _lines(file, ["</RESOURCE>", "</VOTABLE>"])


def without_data(rows: Rows, widths: Mapping[str, int]) -> str:
    """Return a VOTable without rows, which describes the columns of a Parquet file (IVOA Note VOParquet 1.0).

    Parameters
    ----------
    widths
        Letters of the longest text of each column.
    """
    part = Part({}, rows.whole.rows, rows.whole.batches)
    lines = [
        f"<VOTABLE version={quoteattr(VERSION)} xmlns={quoteattr(_NAMESPACE)}>",
        "<RESOURCE>",
        _described(_text([rows.title, *rows.credits])),
        *(_info(name, value) for name, value in rows.facts.items()),
        *_systems(rows, [part]),
        *_head(rows, part, "", None, widths),
        "</TABLE>",
        "</RESOURCE>",
        "</VOTABLE>",
    ]
    return "\n".join(filter(None, lines))


def _systems(rows: Rows, parts: Iterable[Part]) -> Iterator[str]:
    """Yield the frame and the clocks that columns point to, and no others."""
    if rows.position is not None or any((noted(one, "ucd") or "").startswith("pos.eq.") for one in rows.schema):
        yield f'<COOSYS ID="{_ICRS}" system="ICRS"/>'
    clocks = {_BARYCENTRE: ("TDB", "BARYCENTER")} if "bmjd_tdb" in rows.schema.names else {}
    if "mjd" in rows.schema.names:
        clocks |= {f"clock_{part.key['archive']}": clock for part in parts if (clock := rows.clock(part))}
    for name, (scale, position) in clocks.items():
        scale = scale if scale in _CLOCK_SCALES else "UNKNOWN"
        yield f'<TIMESYS ID="{name}" timeorigin="{MJD_OFFSET}" timescale="{scale}" refposition="{position}"/>'


def _photcal(rows: Rows, part: Part, name: str) -> Iterator[str]:
    band = rows.band(part)
    if band is None:
        return
    yield f'<GROUP ID="{name}" name="PHOTCAL" ucd="phot" utype="PhotDM:PhotCal">'
    source = f" Zero point: {band['zero_point_source']}" if band.get("zero_point_source") else ""
    yield _described(f"{band['description']}.{source}")
    yield _param(
        "filterIdentifier", "char", band.get("svo_id") or f"{part.key['archive']}/{part.key['band']}",
        ucd="meta.id;instr.filter", utype="photDM:PhotometryFilter.identifier",
    )  # fmt: skip
    if band.get("zero_point_jy"):
        yield _param(
            "zeroPointFlux", "double", band["zero_point_jy"], unit="Jy", ucd="phot.mag;arith.zp",
            utype="photDM:PhotCal.zeroPoint.flux.value",
        )  # fmt: skip
    if band.get("mag_system"):
        yield _param(
            "magnitudeSystem", "char", band["mag_system"], ucd="meta.code",
            utype="photDM:PhotCal.magnitudeSystem.type",
        )  # fmt: skip
    if band.get("wavelength_nm"):
        yield _param(
            "effectiveWavelength", "double", band["wavelength_nm"], unit="nm", ucd="em.wl.effective",
            utype="photDM:PhotometryFilter.spectralLocation.value",
        )  # fmt: skip
    yield "</GROUP>"


def _head(
    rows: Rows, part: Part, photcal: str, table: str | None, widths: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Yield a TABLE up to its data."""
    band = rows.band(part)
    yield f"<TABLE{_attributes({'ID': table, 'name': part.title or None, 'nrows': part.rows})}>"
    yield _described(band["description"] if band else rows.title)
    if {"mjd", "bmjd_tdb"} & set(rows.schema.names):
        for name, value, what in (
            ("dataproduct_type", "timeseries", "dataProductType"),
            ("dataproduct_subtype", "lightcurve", "dataProductSubtype"),
        ):
            yield _param(name, "char", value, ucd="meta.code.class", utype=f"obscore:ObsDataset.{what}")
    if rows.position is not None:
        for name, degrees in zip(("ra", "dec"), rows.position, strict=True):
            if name not in rows.schema.names:
                yield _param(name, "double", degrees, unit="deg", ucd=f"pos.eq.{name};meta.main", ref=_ICRS)
    main = "bmjd_tdb" if "bmjd_tdb" in rows.schema.names else "mjd"
    for one in plain_schema(rows.schema):
        yield _field(rows, part, one, photcal if band is not None else "", main, widths)


def _field(rows: Rows, part: Part, one: pa.Field, photcal: str, main: str, widths: Mapping[str, int] | None) -> str:
    kind = _TYPES.get(one.type) or ("char" if one.name in _ASCII else "unicodeChar")
    size = None if one.type in _TYPES else "*"
    if size and widths is not None:  # astropy's reader of VOParquet wants a length
        kind, size = "char", f"{max(widths.get(one.name, 1), 1)}*"
    unit, ucd, ref = noted(one, "unit"), noted(one, "ucd"), None
    if one.name in of_unit():
        unit = part.key.get("unit")
        ucd = flux_ucd(ucd or "", unit, rows.band(part))
    if one.name in ("mjd", "bmjd_tdb"):
        ucd = "time.epoch;meta.main" if one.name == main else "time.epoch"
        ref = _BARYCENTRE if one.name == "bmjd_tdb" else f"clock_{part.key['archive']}" if rows.clock(part) else None
    elif photcal and (one.name in of_unit() or (noted(one, "unit") == "mag" and "phot.mag" in (ucd or ""))):
        ref = photcal
    elif (ucd or "").startswith("pos.eq."):
        ref = _ICRS
    text = noted(one, "description")
    notes = {"name": one.name, "datatype": kind, "arraysize": size, "unit": vounit(unit), "ucd": ucd, "ref": ref}
    return f"<FIELD{_attributes(notes)}>{_described(text) if text else ''}</FIELD>"


def _param(name: str, kind: str, value: Any, **more: str) -> str:
    size = {"arraysize": "*"} if kind == "char" else {}
    kind = kind if kind != "char" or str(value).isascii() else "unicodeChar"
    return f"<PARAM{_attributes({'name': name, 'datatype': kind, **size, **more, 'value': value})}/>"


def _info(name: str, value: str) -> str:
    return f"<INFO{_attributes({'name': name, 'value': value})}/>"


def _attributes(values: Mapping[str, Any]) -> str:
    return "".join(f" {name}={quoteattr(_clean(str(value)))}" for name, value in values.items() if value is not None)


def _described(text: str) -> str:
    return f"<DESCRIPTION>{escape(_clean(text))}</DESCRIPTION>"


def _clean(text: str) -> str:
    return re.sub(_NO_XML, _INSTEAD, text)


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _lines(file: BinaryIO, lines: Iterable[str]) -> None:
    for line in lines:
        file.write((line + "\n").encode())


def _rows(batch: pa.RecordBatch) -> memoryview:
    """Return the rows of a batch as TABLEDATA; NULL is an empty cell."""
    cells: list[Any] = []
    for number, values in enumerate(batch.columns):
        cells += ["</TD><TD>" if number else "<TR><TD>", _cells(values)]
    joined = pc.binary_join_element_wise(*cells, "</TD></TR>\n", "", null_handling="replace", null_replacement="").cast(
        pa.large_string()
    )
    offsets = pa.array([], pa.int64()).from_buffers(pa.int64(), len(joined) + 1, [None, joined.buffers()[1]])
    start, stop = offsets[joined.offset].as_py(), offsets[joined.offset + len(joined)].as_py()
    return memoryview(joined.buffers()[2])[start:stop]


def _cells(values: pa.Array) -> pa.Array:
    if values.type == pa.string():
        for what, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;")):
            values = pc.replace_substring(values, what, instead)
        return pc.replace_substring_regex(values, r"[\x00-\x08\x0b\x0c\x0e-\x1f\x{fffe}\x{ffff}]", _INSTEAD)
    text = values.cast(pa.string())
    if pa.types.is_floating(values.type):
        for what, instead in (("nan", "NaN"), ("inf", "+Inf"), ("-inf", "-Inf")):
            text = pc.if_else(pc.equal(text, what), instead, text)
    return text
