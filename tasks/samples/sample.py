"""What is got of a service for a sample: its targets, and what was asked, of whom, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import pyarrow as pa

COLLECTED = pa.schema(
    [
        ("name", pa.string()),
        ("ra", pa.float64()),  # ICRS, deg
        ("dec", pa.float64()),
        ("redshift", pa.float64()),
        ("label", pa.string()),
        ("bibcode", pa.string()),
        ("catalogue", pa.string()),
        ("row_in_catalogue", pa.int64()),  # from 1
        ("name_in_catalogue", pa.string()),  # where it is not the name
    ]
)


@dataclass(frozen=True)
class Collected:
    """The targets of a sample, as a service gave them.

    Parameters
    ----------
    sample
        Name of the sample in the lake.
    targets
        At least columns ra and dec (ICRS, degrees); those of `COLLECTED`, or of a user's file.
    service
        Service that was asked: ned, vizier, simbad, sdss, alerce; or file.
    endpoint
        URL that was asked, or the file's path.
    query
        What was asked, as it was sent.
    asked_at
        When.
    release
        Release or catalogue that was asked for.
    answered
        Rows of the answer, before any selection.
    expected, seen
        Rows that the sample had when it was last seen, and the day; None if nobody knows.
    remarks
        What a user should know of it, such as a count that differs.
    seconds, requests
        Time that the answer took, s, and requests that were sent.
    has_stable_rows
        Whether a row has the same number whenever the service is asked. Otherwise the number does not tell labels
        apart.
    """

    sample: str
    targets: pa.Table
    service: str
    endpoint: str
    query: str
    asked_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    release: str = ""
    answered: int = 0
    expected: int | None = None
    seen: date | None = None
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0
    requests: int | None = None
    has_stable_rows: bool = True
