"""Ask SIMBAD's TAP service which objects some names stand for, and which other names these have.

The query is the one that astroquery.simbad composes for a list of names, with more columns. SIMBAD matches names
however they are spaced, and mostly in any case. Its positions are ICRS, at epoch 2000.0 where the proper motion is
known. SIMBAD asks for no more than six requests a second, and takes 200,000 names in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lake.errors import ArchiveError, TruncatedAnswer
from lake.settings import Settings
from lake.text import counted
from tasks.services.tap import Service

SIMBAD, SIMBAD_ENDPOINT = "simbad", "https://simbad.cds.unistra.fr/simbad/sim-tap"

# A name is of one object, seldom of more.
_ROWS_PER_NAME = 10
# Rows of an answer, at most: SIMBAD cuts at 2,000,000. If more come, fewer objects are asked for at a time.
_MOST_ROWS = 500_000

_COLUMNS = {
    "oid": pa.int64(),
    "main_id": pa.string(),
    "otype": pa.string(),
    "ra": pa.float64(),
    "dec": pa.float64(),
    "coo_err_maj": pa.float64(),
    "pmra": pa.float64(),
    "pmdec": pa.float64(),
    "rvz_redshift": pa.float64(),
}
_OBJECTS = (
    f"SELECT {', '.join(f'basic.{name}' for name in _COLUMNS)}, "
    "TAP_UPLOAD.script_infos.* FROM TAP_UPLOAD.script_infos LEFT JOIN ident AS ident_upload "
    'ON TAP_UPLOAD.script_infos."user_specified_id" = ident_upload."id" '
    'LEFT JOIN basic ON basic."oid" = ident_upload."oidref"'
)
_NAMES = (
    "SELECT ident.oidref, ident.id FROM TAP_UPLOAD.objects JOIN ident ON ident.oidref = TAP_UPLOAD.objects.object_oid"
)

OBJECTS = pa.schema([("number", pa.int64()), *_COLUMNS.items()])
"""What is known of a name: its number, and the columns of SIMBAD's table `basic` of its object."""


def objects_of(names: Sequence[str], settings: Settings) -> pa.Table:
    """Return the objects that some names stand for; in one request.

    Parameters
    ----------
    names
        As users write them; ASCII without control characters.
    settings
        Endpoint LIGHTLAKE_ENDPOINTS__SIMBAD, if it is not to be the public service, and limits of time and size.

    Returns
    -------
    pa.Table
        Rows of `OBJECTS`, sorted: a row for each name and object. `number` counts the names from 0. A name that SIMBAD
        does not know has no row.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    TruncatedAnswer
        If the answer is not all.
    """
    if not names:
        return OBJECTS.empty_table()
    service = _service(settings)
    numbers = pa.array(range(len(names)), pa.int64())
    upload = pa.table({"user_specified_id": pa.array(names, pa.string()), "object_number_id": numbers})
    answer = service.query(_OBJECTS, {"script_infos": upload}, maxrec=_ROWS_PER_NAME * (len(names) + 1))
    # Of a name that it does not know there is a row, too.
    what = counted(len(names), "name")
    answer = _checked(answer, {"object_number_id": pa.int64(), **_COLUMNS}, service, what)
    if set(answer["object_number_id"].to_pylist()) != set(numbers.to_pylist()):
        raise _wrong(service, what)
    found = answer.rename_columns(OBJECTS.names).filter(pc.is_valid(answer["main_id"]))
    return found.sort_by([("number", "ascending"), ("oid", "ascending")])


def main_ids_of(names: Sequence[str], settings: Settings) -> dict[str, str]:
    """Return SIMBAD's main identifiers of the names that it knows; one of several objects is of none.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    TruncatedAnswer
        If the answer is not all.
    """
    rows = objects_of(names, settings).select(["number", "main_id"]).to_pylist()
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(names[row["number"]], set()).add(row["main_id"])
    return {name: min(main_ids) for name, main_ids in found.items() if len(main_ids) == 1}


def names_of(oids: Sequence[int], settings: Settings) -> dict[int, list[str]]:
    """Return all identifiers of some objects, by oid; those of many objects in several requests.

    Raises
    ------
    ArchiveError
        If the service does not answer, or not as it should.
    TruncatedAnswer
        If the answer is not all.
    """
    found: dict[int, list[str]] = {oid: [] for oid in oids}
    waiting = [list(found)] if found else []
    while waiting:
        asked = waiting.pop()
        service = _service(settings)
        upload = pa.table({"object_oid": pa.array(asked, pa.int64())})
        try:
            answer = service.query(_NAMES, {"objects": upload}, maxrec=_MOST_ROWS)
        except TruncatedAnswer:
            if len(asked) == 1:
                raise
            waiting += [asked[: len(asked) // 2], asked[len(asked) // 2 :]]
            continue
        what = counted(len(asked), "object")
        answer = _checked(answer, {"oidref": pa.int64(), "id": pa.string()}, service, what)
        for oid, name in zip(answer["oidref"].to_pylist(), answer["id"].to_pylist(), strict=True):
            if oid not in found:
                raise _wrong(service, what)
            if name and name.strip():
                found[oid].append(" ".join(name.split()))
    # The order of rows is not promised.
    return {oid: sorted(set(names)) for oid, names in found.items()}


def _service(settings: Settings) -> Service:
    url = settings.endpoints.get(SIMBAD, SIMBAD_ENDPOINT).rstrip("/")
    return Service(SIMBAD, url, settings.timeout_s, settings.task_timeout_s)


def _checked(answer: pa.Table, columns: Mapping[str, pa.DataType], service: Service, asked: str) -> pa.Table:
    """Return some columns of an answer with their types; an answer without them is none."""
    try:
        return pa.table({name: answer[name].cast(kind) for name, kind in columns.items()})
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _wrong(service, asked) from error


def _wrong(service: Service, asked: str) -> ArchiveError:
    message = f"the answer is not of the {asked} that were asked for"
    return ArchiveError(message, archive=SIMBAD, endpoint=service.url, transient=True)
