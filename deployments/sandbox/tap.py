"""A small TAP 1.1 service over DuckDB: sync, async, inline uploads, the ADQL that a cross-match by position needs.

Distances are great circles. Failures of archives are available on demand: see `TapService`.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io.votable import parse_single_table

from deployments.sandbox.server import Request, Response, Sandbox

VOTABLE = "application/x-votable+xml"
SYNC_FAULTS = {"error-200"}
JOB_FAULTS = {"job-error", "job-aborted", "job-hangs"}

_NAMES = {
    pa.bool_(): "boolean", pa.uint8(): "unsignedByte", pa.int16(): "short", pa.int32(): "int", pa.int64(): "long",
    pa.float32(): "float", pa.float64(): "double", pa.string(): "char",
}  # fmt: skip
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_ABSENT = Response(b"not found\n", 404, "text/plain")
_VOTABLE = _HEAD + '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n<RESOURCE type="results">\n'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_UP = '<availability xmlns="http://www.ivoa.net/xml/VOSIAvailability/v1.0"><available>true</available></availability>'
_LOST = "the database went away"
_GAP = "-32768"  # of short integers, the only ones that may be missing inside an array
_ACTIVE = {"PENDING", "QUEUED", "EXECUTING"}

_ARG = r"\s*([^(),]+?)\s*"
_POINT = rf"POINT\s*\(\s*(?:'[^']*'\s*,)?{_ARG},{_ARG}\)"
_CIRCLE = rf"CIRCLE\s*\(\s*(?:'[^']*'\s*,)?{_ARG},{_ARG},{_ARG}\)"
_CONTAINS = rf"CONTAINS\s*\(\s*{_POINT}\s*,\s*{_CIRCLE}\s*\)"
_REWRITES = (
    (rf"\b1\s*=\s*{_CONTAINS}", r"in_cone(\1, \2, \3, \4, \5)"),
    (rf"{_CONTAINS}\s*=\s*1\b", r"in_cone(\1, \2, \3, \4, \5)"),
    (rf"DISTANCE\s*\(\s*{_POINT}\s*,\s*{_POINT}\s*\)", r"separation(\1, \2, \3, \4)"),
    (r"\btap_upload\s*\.\s*(\w+)", r"tap_upload_\1"),
    (r"^\s*SELECT\s+((?:DISTINCT\s+|ALL\s+)?)TOP\s+(\d+)\s(.*)$", r"SELECT \1\3 LIMIT \2"),
)
# The margin is for rounding; the range on declination lets DuckDB join by ranges, not try all pairs.
_MACROS = """
CREATE MACRO separation(ra1, dec1, ra2, dec2) AS 2 * degrees(asin(least(1.0, sqrt(
    pow(sin(radians(dec1 - dec2) / 2), 2)
    + cos(radians(dec1)) * cos(radians(dec2)) * pow(sin(radians(ra1 - ra2) / 2), 2)))));
CREATE MACRO in_cone(ra1, dec1, ra2, dec2, radius) AS
    dec1 BETWEEN dec2 - radius - 1e-9 AND dec2 + radius + 1e-9 AND separation(ra1, dec1, ra2, dec2) <= radius;
"""


class TapError(Exception):
    """A refusal, in words for the client."""


@dataclass
class Job:
    """A job of the async resource."""

    name: str
    params: dict[str, str]
    files: dict[str, bytes]
    phase: str = "PENDING"
    error: str = ""
    result: bytes = b""
    duration: float = 3600.0
    created: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    destruction: str = field(default_factory=lambda: f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}")
    cursor: duckdb.DuckDBPyConnection | None = None


class TapService:
    """A TAP service mounted at `path`, until the sandbox closes.

    Parameters
    ----------
    box, path
        The sandbox and where in it; the endpoint is ``box.url(path)``.
    tables
        Tables by the name that queries use, with or without a schema. Metadata ``unit`` of a field is its unit.
    silent_cap
        Longer answers are cut at so many rows, and nothing says so.
    hard_limit
        Answers end after so many rows whatever MAXREC says, with an honest OVERFLOW.
    running
        Jobs that execute at the same time; the others stay QUEUED.

    `queries` has every query so far, as sent. A WAIT is answered after `longest_wait` seconds at the latest.
    """

    def __init__(
        self, box: Sandbox, path: str, tables: Mapping[str, pa.Table], *,
        silent_cap: int | None = None, hard_limit: int | None = None, running: int = 2,
    ) -> None:  # fmt: skip
        self.path, self.url = path.rstrip("/"), box.url(path).rstrip("/")
        self.silent_cap, self.hard_limit, self.longest_wait = silent_cap, hard_limit, 10.0
        self.queries: list[str] = []
        self.jobs: dict[str, Job] = {}
        self._faults: list[str] = []
        self._schemas: dict[str, pa.Schema] = {}
        self._changed, self._slots = threading.Condition(), threading.Semaphore(running)
        self._threads: list[threading.Thread] = []
        self._db = duckdb.connect(config={"enable_external_access": "false", "threads": 2})
        self._db.execute(_MACROS)
        for name, table in tables.items():
            self.add(name, table)
        box.mount(self.path, self._handle)

    def add(self, name: str, table: pa.Table) -> None:
        """Have one more table."""
        if "." in name:
            self._db.execute(f"CREATE SCHEMA IF NOT EXISTS {name.partition('.')[0]}")
        self._db.register("arrow", table)
        self._db.execute(f"CREATE TABLE {name} AS FROM arrow {'ORDER BY dec' * ('dec' in table.column_names)}")
        self._db.unregister("arrow")
        self._schemas[name] = table.schema

    def fault(self, kind: str, times: int = 1) -> None:
        """Spoil the next `times` answers or jobs.

        Kinds: 'error-200' (a synchronous answer or a job's result is a VOTable that says ERROR, with status 200),
        'job-error' (the job ends in ERROR), 'job-aborted' (it is ABORTED though nobody asked), 'job-hangs' (it
        stays EXECUTING until it is aborted or deleted, or its execution duration is over).
        """
        if kind not in SYNC_FAULTS | JOB_FAULTS:
            raise ValueError(f"unknown fault {kind!r}")
        with self._changed:
            self._faults += [kind] * times

    def close(self) -> None:
        """Interrupt running queries, and close the tables."""
        for job in list(self.jobs.values()):
            self._end(job, "ABORTED")
        for thread in self._threads:
            thread.join(5)
        self._db.close()

    def _take_fault(self, kinds: set[str]) -> str:
        with self._changed:
            found = next((kind for kind in self._faults if kind in kinds), "")
            if found:
                self._faults.remove(found)
        return found

    def _query(self, params: Mapping[str, str], files: Mapping[str, bytes], job: Job | None = None) -> bytes:
        adql, asked = params.get("QUERY", ""), params.get("MAXREC", "")
        if not re.fullmatch(r"\d*", asked):
            raise TapError(f"MAXREC must be a whole number, not {asked!r}")
        limits = [most for most in (int(asked) if asked else None, self.hard_limit) if most is not None]
        with self._changed:
            self.queries.append(adql)
            cursor = self._db.cursor()
            if job:
                job.cursor = cursor
        try:
            sql = _translate(params)
            for name, table in _uploads(params.get("UPLOAD", ""), files).items():
                cursor.register("arrow", table)
                cursor.execute(f"CREATE TEMP TABLE tap_upload_{name} AS SELECT * FROM arrow")
                cursor.unregister("arrow")
            rows = f"LIMIT {min(limits) + 1}" if limits else ""
            table = cursor.sql(f"SELECT * FROM ({sql}\n) {rows}").to_arrow_table()
        except duckdb.Error as error:
            raise TapError(f"query failed: {error}") from error
        finally:
            with self._changed:
                if job:
                    job.cursor = None
                cursor.close()
        most = min(limits, default=len(table))
        if self.silent_cap is not None and self.silent_cap < most:
            return votable(self._with_units(table[: self.silent_cap], adql))
        return votable(self._with_units(table[:most], adql), overflow=len(table) > most)

    def _with_units(self, table: pa.Table, adql: str) -> pa.Table:
        """Give the table the metadata of those columns of the queried tables that have the same names."""
        known: dict[str, Any] = {}
        for name, schema in self._schemas.items():
            if re.search(rf"\b{re.escape(name)}\b", adql, re.IGNORECASE):
                known |= {column.name: column.metadata for column in schema}
        return table.cast(pa.schema([column.with_metadata(known.get(column.name)) for column in table.schema]))

    def _handle(self, request: Request) -> Response:
        what, *below = request.path.removeprefix(self.path).strip("/").split("/")
        if what == "sync":
            return self._sync(request)
        if what == "async":
            return self._async(request, below)
        pages = {"capabilities": self._capabilities(), "tables": self._tables(), "availability": _UP}
        return _xml(pages[what]) if what in pages else _ABSENT

    def _sync(self, request: Request) -> Response:
        try:
            broken = self._take_fault(SYNC_FAULTS)
            return Response(error_votable(_LOST) if broken else self._query(*request.form()), 200, VOTABLE)
        except TapError as error:
            return Response(error_votable(str(error)), 400, VOTABLE)

    def _async(self, request: Request, below: list[str]) -> Response:
        params, files = request.form()
        if not below:
            if request.method != "POST":
                return _uws("jobs", "".join(f'<uws:jobref id="{name}"/>' for name in list(self.jobs)))
            job = Job(uuid4().hex, params, files)
            self.jobs[job.name] = job
            return self._set(job, "phase", params)
        if (found := self.jobs.get(below[0])) is None:
            return _ABSENT
        part = "/".join(below[1:])
        if request.method == "DELETE" or params.get("ACTION") == "DELETE":
            self._end(found, "ABORTED")
            self.jobs.pop(found.name, None)
            return Response(b"", 303, "text/plain", {"Location": f"{self.url}/async"})
        if request.method == "POST":
            found.files.update(files)
            return self._set(found, part, params)
        if not part and "WAIT" in params:
            phase, asked = found.phase, float(params["WAIT"])
            most = self.longest_wait if asked < 0 else min(asked, self.longest_wait)
            with self._changed:
                self._changed.wait_for(lambda: found.phase != phase or phase not in _ACTIVE, most)
        if part == "results/result" and found.phase == "COMPLETED":
            broken = self._take_fault(SYNC_FAULTS)
            return Response(error_votable(_LOST) if broken else found.result, 200, VOTABLE)
        plain = {"phase": found.phase, "executionduration": f"{found.duration:g}", "destruction": found.destruction}
        if part in plain:
            return Response(plain[part].encode(), 200, "text/plain")
        if part == "error":
            return Response(error_votable(found.error) if found.error else b"", 200, VOTABLE)
        return _ABSENT if part else self._page(found)

    def _set(self, job: Job, part: str, params: dict[str, str]) -> Response:
        if part == "parameters":
            job.params.update(params)
        job.destruction = params.get("DESTRUCTION", job.destruction)
        job.duration = float(params.get("EXECUTIONDURATION", job.duration))
        if params.get("PHASE") == "RUN":
            self._run(job)
        elif params.get("PHASE") == "ABORT":
            self._end(job, "ABORTED")
        return Response(b"", 303, "text/plain", {"Location": f"{self.url}/async/{job.name}"})

    def _page(self, job: Job) -> Response:
        href = f"{self.url}/async/{job.name}/results/result"
        done = f'<uws:result id="result" xlink:href="{href}"/>' if job.phase == "COMPLETED" else ""
        given = "".join(f'<uws:parameter id="{k.lower()}">{escape(v)}</uws:parameter>' for k, v in job.params.items())
        fields = {"jobId": job.name, "phase": job.phase, "creationTime": job.created, "destruction": job.destruction}
        fields["executionDuration"] = f"{job.duration:.0f}"
        error = f'<uws:errorSummary type="fatal" hasDetail="true"><uws:message>{escape(job.error)}</uws:message>'
        return _uws(
            "job",
            "".join(f"<uws:{name}>{escape(text)}</uws:{name}>" for name, text in fields.items())
            + f"<uws:parameters>{given}</uws:parameters><uws:results>{done}</uws:results>"
            + (f"{error}</uws:errorSummary>" if job.error else ""),
        )

    def _run(self, job: Job) -> None:
        with self._changed:
            if job.phase != "PENDING":
                return
            # EXECUTING at once where possible: pyvo sleeps a second after every phase that is not the last.
            fault = self._take_fault(JOB_FAULTS)
            slot = fault != "" or self._slots.acquire(blocking=False)
            job.phase = "EXECUTING" if slot else "QUEUED"
            thread = threading.Thread(target=self._work, args=(job, fault, slot), daemon=True)
            self._threads = [*(old for old in self._threads if old.is_alive()), thread]
            thread.start()

    def _work(self, job: Job, fault: str, slot: bool) -> None:
        if fault == "job-hangs":
            with self._changed:
                self._changed.wait_for(lambda: job.phase != "EXECUTING", job.duration or None)
        if fault:
            error = _LOST if fault == "job-error" else ""
            return self._end(job, "ERROR" if error else "ABORTED", error)
        while not slot and job.phase == "QUEUED":
            slot = self._slots.acquire(timeout=0.1)
        try:
            with self._changed:
                if job.phase not in ("QUEUED", "EXECUTING"):
                    return None
                job.phase = "EXECUTING"
                self._changed.notify_all()
            job.result = self._query(job.params, job.files, job)
            self._end(job, "COMPLETED")
        except TapError as error:
            self._end(job, "ERROR", str(error))
        finally:
            if slot:
                self._slots.release()

    def _end(self, job: Job, phase: str, error: str = "") -> None:
        with self._changed:
            if job.phase in _ACTIVE:
                job.phase, job.error = phase, error
                if phase == "ABORTED" and job.cursor:
                    job.cursor.interrupt()
            self._changed.notify_all()

    def _tables(self) -> str:
        body = ""
        for name, schema in self._schemas.items():
            columns = "".join(
                f"<column><name>{one.name}</name><unit>{escape(_unit(one))}</unit>"
                f'<dataType xsi:type="vs:VOTableType"{_size(one.type)}>{_kind(one.type)}</dataType></column>'
                for one in schema
            )
            table = f'<table type="table"><name>{name}</name>{columns}</table>'
            body += f"<schema><name>{name.rpartition('.')[0] or 'public'}</name>{table}</schema>"
        return (
            f'<vosi:tableset xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" '
            f'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" {_XSI}>{body}</vosi:tableset>'
        )

    def _capabilities(self) -> str:
        access = '<capability standardID="ivo://ivoa.net/std/VOSI#{0}"><interface xsi:type="vs:ParamHTTP" role="std">'
        access += f'<accessURL use="full">{self.url}/{{0}}</accessURL></interface></capability>'
        return (
            '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
            'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" '
            f'xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0" {_XSI}>'
            '<capability standardID="ivo://ivoa.net/std/TAP" xsi:type="tr:TableAccess">'
            '<interface xsi:type="vs:ParamHTTP" role="std" version="1.1">'
            f'<accessURL use="base">{self.url}</accessURL></interface>'
            '<language><name>ADQL</name><version ivo-id="ivo://ivoa.net/std/ADQL#v2.0">2.0</version></language>'
            f"<outputFormat><mime>{VOTABLE}</mime></outputFormat>"
            '<uploadMethod ivo-id="ivo://ivoa.net/std/TAPRegExt#upload-inline"/></capability>'
            + "".join(access.format(name) for name in ("capabilities", "tables", "availability"))
            + "</vosi:capabilities>"
        )


def votable(table: pa.Table, *, overflow: bool = False, head: str = "") -> bytes:
    """Write the table as a VOTable; lists become arrays of variable length. `head` goes before the table."""
    columns = [_plain(column.combine_chunks()) for column in table.columns]
    fields = "".join(
        f'<FIELD name="{escape(column.name)}" datatype="{_kind(values.type)}"{_size(values.type)}'
        + (f' unit="{escape(_unit(column))}"' if _unit(column) else "")
        + (f'><VALUES null="{_GAP}"/></FIELD>' if _kind(values.type) == "short" else "/>")
        for column, values in zip(table.schema, columns, strict=True)
    )
    data = ""
    if len(table):
        # Arrow joins the text of all cells: many times faster than a loop over rows.
        rows = pc.binary_join_element_wise(*map(_text, columns), "</TD><TD>")
        whole = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
        data = f"<TR><TD>{pc.binary_join(whole, '</TD></TR><TR><TD>')[0].as_py()}</TD></TR>"
    more = '<INFO name="QUERY_STATUS" value="OVERFLOW"/>' if overflow else ""
    return (
        f'{_VOTABLE}{head}<INFO name="QUERY_STATUS" value="OK"/><TABLE>{fields}<DATA><TABLEDATA>'
        f"{data}</TABLEDATA></DATA></TABLE>{more}</RESOURCE></VOTABLE>\n"
    ).encode()


def error_votable(message: str) -> bytes:
    """Say in a VOTable that the query failed, and why."""
    info = f'<INFO name="QUERY_STATUS" value="ERROR">{escape(message)}</INFO>'
    return f"{_VOTABLE}{info}</RESOURCE></VOTABLE>\n".encode()


def _plain(values: pa.Array) -> pa.Array:
    """Cast to a type that VOTable has."""
    kind = values.type
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(values.offsets, _plain(values.values))
    other = pa.float64() if pa.types.is_decimal(kind) else pa.int16() if kind == pa.int8() else pa.string()
    return values if kind in _NAMES else values.cast(other)


def _text(values: pa.Array, gap: str = "") -> pa.Array:
    kind = values.type
    if pa.types.is_list(kind):
        return pc.binary_join(pa.ListArray.from_arrays(values.offsets, _text(values.values, _GAP)), " ")
    if kind == pa.bool_():
        return pc.if_else(values, "T", "F").fill_null("?")
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_null(values, nan_is_null=True), "NaN", values.cast(pa.string()))
    text = values.cast(pa.string()).fill_null(gap)
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")) if kind == pa.string() else ():
        text = pc.replace_substring(text, sign, entity)
    return text


def _kind(kind: pa.DataType) -> str:
    return _NAMES.get(kind.value_type if pa.types.is_list(kind) else kind, "char")


def _size(kind: pa.DataType) -> str:
    return ' arraysize="*"' if _kind(kind) == "char" or pa.types.is_list(kind) else ""


def _unit(column: pa.Field) -> str:
    return str((column.metadata or {}).get(b"unit", b"").decode())


def _translate(params: Mapping[str, str]) -> str:
    """Convert ADQL to SQL of DuckDB."""
    if "votable" not in params.get("RESPONSEFORMAT", params.get("FORMAT", "votable")).lower():
        raise TapError("the only RESPONSEFORMAT is votable")
    sql = params.get("QUERY", "").strip().rstrip(";")
    if re.search(r'(?<!["\w])time(?!["\w])', re.sub(r"'[^']*'", "", sql), re.IGNORECASE):
        raise TapError('"time" is a reserved word of ADQL: it needs quotes')
    for pattern, by in _REWRITES:
        sql = re.sub(pattern, by, sql, flags=re.IGNORECASE | re.DOTALL)
    if not re.match(r"SELECT\b", sql, re.IGNORECASE) or len(duckdb.extract_statements(sql)) > 1:
        raise TapError("QUERY must be one SELECT")
    return sql


def _uploads(given: str, files: Mapping[str, bytes]) -> dict[str, pa.Table]:
    """Read uploaded tables, by name, from the UPLOAD parameter and the request's files."""
    tables = {}
    for pair in filter(None, given.split(";")):
        name, _, uri = pair.strip().partition(",")
        if not re.fullmatch(r"\w+", name) or not uri.startswith("param:") or uri[6:] not in files:
            raise TapError(f"UPLOAD must be name,param:key with the file in the request, not {pair!r}")
        try:
            found = parse_single_table(io.BytesIO(files[uri[6:]]), verify="ignore")
        except Exception as error:  # whatever the parser raises, it is the client's file
            raise TapError(f"upload {name} cannot be read: {error}") from error
        tables[name] = pa.table({one.name: _column(found.array[one.ID]) for one in found.fields})
    return tables


def _column(values: Any) -> pa.Array:
    mask, plain = np.ma.getmaskarray(values), np.asarray(values)
    if plain.dtype.kind in "OSU":
        return pa.array([None if gone else str(one) for one, gone in zip(plain, mask, strict=True)], pa.string())
    return pa.array(plain.astype(plain.dtype.newbyteorder("=")), mask=mask | (plain != plain))


def _xml(body: str) -> Response:
    return Response((_HEAD + body).encode(), 200, "text/xml")


def _uws(root: str, body: str) -> Response:
    spaces = 'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return _xml(f'<uws:{root} version="1.1" {spaces}>{body}</uws:{root}>')
