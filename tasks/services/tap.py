"""Query a TAP service: ADQL in, an Arrow table out; cut, garbled and refused answers are errors.

The protocol is pyvo's: table upload, synchronous queries for small batches, UWS jobs for large ones. What is
added here is what a service that misbehaves needs: a limit on silence and on the whole, truncation as an
error, and errors in the service's own words, distinguished by whether a retry can help.
"""

from __future__ import annotations

import io
import re
import time
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa

from lake.errors import ArchiveError, TruncatedAnswer
from lake.text import counted
from tasks.services.bounds import Budget, parsed_votable
from tasks.services.http import Session, excerpt
from tasks.services.votables import Clipped

# Every command loads this module, and few query a service: pyvo and astropy take longer than all else.
if TYPE_CHECKING:
    from pyvo.dal import AsyncTAPJob, TAPResults

_FIRST_POLL_S, _LONGEST_POLL_S = 0.2, 10.0
_DONE, _LOST, _ACTIVE = "COMPLETED", ("ERROR", "ABORTED"), ("QUEUED", "EXECUTING", "RUN")
_TRIES_TO_STOP = 25

_QUERY_AT_FAULT = (
    r"syntax|\bpars(e|er|ing)\b|\bno (such )?(column|table|field)|unknown (column|table|field)"
    r"|\b(column|table|field|function)\b.{0,80}\b(unknown|not known|not found|not exist|not resolve)"
)


@dataclass(frozen=True)
class Service:
    """A TAP service, and how long to wait for it.

    Parameters
    ----------
    archive
        Name for messages.
    url
        Base URL, to which /sync and /async are added.
    timeout_s
        Longest silence.
    deadline_s
        Longest time for one query, from the request to the last byte, however slowly bytes come.
    cap
        Rows at which the service cuts an answer without saying so; None if it reports truncation.
    service
        Name of the setting of the address, for messages, if it is not the archive's.
    """

    archive: str
    url: str
    timeout_s: float
    deadline_s: float
    cap: int | None = None
    service: str | None = None

    def query(
        self, adql: str, uploads: Mapping[str, pa.Table] | None = None, *, maxrec: int, asynchronous: bool = False
    ) -> pa.Table:
        """Query the service, and return the whole answer.

        Parameters
        ----------
        adql
            The query; uploaded tables are in schema tap_upload.
        uploads
            Tables to upload, by name.
        maxrec
            Rows at which the service is to stop. An answer of so many rows counts as truncated.
        asynchronous
            Run it as a job, which services give more time than a synchronous query.

        Returns
        -------
        pa.Table
            Columns by the service's names; NULL where it has no value, or NaN.

        Raises
        ------
        TruncatedAnswer
            If the service says OVERFLOW, or returns as many rows as maxrec or cap.
        ArchiveError
            Transient: timeouts, resets, 429, 5xx, answers that are no VOTable or a part of one, errors that the
            service reports under HTTP 200, jobs that end in ERROR, are ABORTED or do not end. Final: what the
            service refuses (other 4xx), such as a query that it cannot parse.
        """
        from pyvo.dal import TAPService
        from pyvo.dal.exceptions import DALAccessError

        from tasks.services.pyvo_requests import PyvoRequests

        tables = {name: io.BytesIO(to_votable(table)) for name, table in (uploads or {}).items()}
        with Session(self.archive, self.url, self.timeout_s, self.deadline_s, service=self.service) as session:
            service = TAPService(self.url.rstrip("/"), session=PyvoRequests(session))
            try:
                if asynchronous:
                    body = self._run_job(service.submit_job(adql, maxrec=maxrec, uploads=tables), session)
                else:
                    body = service.create_query(adql, maxrec=maxrec, uploads=tables).submit().content
            except (DALAccessError, ExpatError) as error:
                raise self._failed(f"not a TAP answer: {getattr(error, 'reason', None) or error}") from error
        results = self._parse(body, session.budget())
        rows = len(results)
        limit = min(maxrec, self.cap or maxrec)
        if (results.query_status or "").upper() == "OVERFLOW" or rows >= limit:
            raise TruncatedAnswer(
                f"the answer was cut at {counted(rows, 'row')}", archive=self.archive, endpoint=self.url
            )
        return to_arrow({name: results.getcolumn(name) for name in results.fieldnames})

    def _run_job(self, job: AsyncTAPJob, session: Session) -> bytes:
        """Run a job to its end and return its result; the job is deleted whatever happens."""
        from pyvo.dal import DALServiceError

        deadline = session.deadline
        # Polling and deleting the job may take a little longer than the job.
        session.deadline += self.timeout_s
        try:
            if not job.job_id:  # such as a maintenance page
                raise self._failed("it made no job of the query")
            job.run()
            pause = _FIRST_POLL_S
            while (phase := job.phase) not in (_DONE, *_LOST):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._failed(f"the job is still {phase} after {self.deadline_s:g} s, given up")
                time.sleep(min(pause, left))
                pause = min(1.5 * pause, _LONGEST_POLL_S)
            if phase in _LOST:
                reason = _reason(job)
                raise self._failed(f"the job ended in phase {phase}: {reason}", transient=not _at_fault(reason))
            return session.get(job.result_uri).content
        finally:
            # The service destroys abandoned jobs in time; the result, or the error at hand, matters more.
            with suppress(DALServiceError, ArchiveError):
                session.deadline = time.monotonic() + 2 * self.timeout_s
                _remove(job)

    def _parse(self, body: bytes, budget: Budget) -> TAPResults:
        from astropy.units import UnitsWarning
        from pyvo.dal import TAPResults
        from pyvo.dal.exceptions import DALFormatError, DALQueryError

        # Archives spell units as they like; the columns that are used here have theirs by documentation.
        warnings.filterwarnings("ignore", category=UnitsWarning, module="astropy.units")
        try:
            return TAPResults(parsed_votable(body, budget), url=self.url)
        except DALQueryError as error:
            message = str(error.reason or "").strip() or "an error without a message"
            raise self._failed(f"the service says: {message}", transient=not _at_fault(message)) from error
        except Clipped as error:
            raise self._failed(f"of the answer, {error}", transient=False) from error
        except (DALFormatError, ExpatError, ValueError, IndexError, zlib.error) as error:
            raise self._failed(f"the answer is no VOTable, or part of one: {excerpt(body) or error}") from error

    def _failed(self, message: str, *, transient: bool = True) -> ArchiveError:
        message = " ".join(message.split())
        return ArchiveError(message, archive=self.archive, endpoint=self.url, transient=transient)


def _remove(job: AsyncTAPJob) -> None:
    """Delete a job, once it has stopped: some services let the query of a job that is merely deleted run on."""
    for _ in range(_TRIES_TO_STOP if job.job_id else 0):
        if job.phase not in _ACTIVE:
            break
        job.abort()
        time.sleep(_FIRST_POLL_S)
    job.delete()


def _at_fault(message: str) -> bool:
    """Say whether an error is about the query itself, which a retry does not mend.

    Services report those as they do a database that is away: under HTTP 200, or as a job's ERROR.
    """
    return re.search(_QUERY_AT_FAULT, message, re.IGNORECASE) is not None


def _reason(job: AsyncTAPJob) -> str:
    summary = job.job.errorsummary
    message = summary.message.content if summary is not None and summary.message is not None else None
    return (message or "").strip() or "it does not say why"


_DATATYPES = {
    pa.int64(): 'datatype="long"',
    pa.float64(): 'datatype="double"',
    pa.string(): 'datatype="char" arraysize="*"',
}


def to_votable(table: pa.Table) -> bytes:
    """Write a table of integers, floats and texts as a VOTable; NULL is an empty cell.

    By hand, since the one of astropy 8.0 writes beyond its buffer now and then: glibc's malloc check shows it.
    """
    fields = "".join(f'<FIELD name="{name}" {_DATATYPES[table[name].type]}/>' for name in table.column_names)
    columns = [
        ["" if value is None else escape(str(value)) for value in column.to_pylist()] for column in table.columns
    ]
    rows = "".join("<TR><TD>" + "</TD><TD>".join(row) + "</TD></TR>\n" for row in zip(*columns, strict=True))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f"<RESOURCE><TABLE>{fields}<DATA><TABLEDATA>\n{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>\n"
    ).encode()


def to_arrow(columns: Mapping[str, Any], *, keep_case: bool = False) -> pa.Table:
    """Convert columns to Arrow: masked cells and NaN as NULL, array cells as lists, names in lower case.

    ADQL does not distinguish cases, and services answer in either. Catalogues do: e_z and E_z are two columns.
    """
    return pa.table({name if keep_case else name.lower(): _column(column) for name, column in columns.items()})


def _column(column: Any) -> pa.Array:
    values = np.asarray(column)
    if values.ndim != 1 or values.dtype.kind not in "fiubUS":
        return pa.array([_cell(cell) for cell in column])
    mask = np.ma.getmaskarray(np.ma.asarray(column))
    if values.dtype.kind in "fiub":
        if values.dtype.kind == "f":
            mask = mask | np.isnan(values)
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return pa.array(native, mask=mask)
    # A VOTable cannot tell an empty text from none.
    texts = values.astype(str).tolist()
    gaps = [hidden or not text for text, hidden in zip(texts, mask.tolist(), strict=True)]
    return pa.array(texts, pa.string(), mask=np.array(gaps, bool))


def _cell(cell: Any) -> Any:
    """Convert a cell of an object column to text, or to a list with None where the archive has nothing."""
    if cell is None or cell is np.ma.masked:
        return None
    if isinstance(cell, bytes | str):
        return (cell.decode() if isinstance(cell, bytes) else cell) or None
    if isinstance(cell, np.ndarray):
        cells = np.ma.asarray(cell)
        values, mask = cells.data.tolist(), np.ma.getmaskarray(cells)
        if cells.dtype.kind == "f":
            mask = mask | np.isnan(cells.data)
        return [None if hidden else value for value, hidden in zip(values, mask.tolist(), strict=True)]
    return cell
