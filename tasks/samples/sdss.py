"""Ask SDSS's SkyServer for quasars: the same rows every time, in a stated order, page by page.

The rows are those of view SpecObj (the best spectrum of each object) with class QSO, zWarning 0 and a redshift between
two limits, both excluded. Without a seed they come in order of specObjID: the first are of the first plates, which lie
close together. With a seed they come in order of a number that is made of specObjID and the seed, the same for ever:
with r = specObjID modulo p, and p = 2^31 - 1, it is (a * (r * r modulo p) + r) modulo p.

SkyServer gives 500,000 rows at most, and specObjID is larger than signed integers of 64 bits.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from lake.settings import Settings
from lake.text import counted
from tasks.samples.options import SdssOptions
from tasks.samples.sample import COLLECTED, Collected
from tasks.samples.services import SDSS, Asking, query_text
from tasks.services.bounds import Budget
from tasks.services.http import Reply, excerpt

# Rows of a page: well below the limit of SkyServer, and read in some seconds.
PAGE_ROWS = 100_000

_PRIME = 2**31 - 1
_COLUMNS = {"specObjID": pa.string(), "ra": pa.float64(), "dec": pa.float64(), "z": pa.float64()}
# What SkyServer says of a query that may go well another time.
_PASSING = ("timeout", "timed out", "time limit", "deadlock", "too many", "try again", "unavailable", "busy")


@dataclass(frozen=True)
class Order:
    """The order of the rows.

    Parameters
    ----------
    seed
        None: by specObjID.
    """

    seed: int | None

    @property
    def factor(self) -> int:
        """Return the factor a of a seed: numbers that follow each other have very different ones."""
        digest = hashlib.blake2b(str(self.seed).encode(), digest_size=8).digest()
        return 1 + int.from_bytes(digest, "big") % (_PRIME - 1)

    @property
    def expression(self) -> str:
        """Return the number of a row, as SQL."""
        rest = f"CAST(s.specObjID % {_PRIME} AS bigint)"
        return f"((({rest} * {rest}) % {_PRIME}) * {self.factor} + {rest}) % {_PRIME}"

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """Return the numbers of rows."""
        rest = (ids % np.uint64(_PRIME)).astype(np.int64)
        return np.asarray(((rest * rest % _PRIME) * self.factor + rest) % _PRIME)

    def after(self, last: tuple[int, int] | None) -> str:
        """Return the condition that a row comes after the last one, given by its number and its specObjID."""
        if last is None:
            return ""
        if self.seed is None:
            return f" AND s.specObjID > {last[1]}"
        return f" AND ({self.expression} > {last[0]} OR ({self.expression} = {last[0]} AND s.specObjID > {last[1]}))"

    def is_kept(self, ids: np.ndarray, last: tuple[int, int] | None) -> bool:
        """Say whether rows come in this order, and after the last one."""
        numbers = np.zeros(len(ids), np.int64) if self.seed is None else self.numbers(ids)
        if last is not None:
            numbers = np.concatenate([np.array([last[0]], np.int64), numbers])
            ids = np.concatenate([np.array([last[1]], np.uint64), ids])
        less = (numbers[:-1] < numbers[1:]) | ((numbers[:-1] == numbers[1:]) & (ids[:-1] < ids[1:]))
        return bool(less.all())

    def last(self, ids: np.ndarray) -> tuple[int, int]:
        """Return number and specObjID of the last row."""
        return (0 if self.seed is None else int(self.numbers(ids[-1:])[0])), int(ids[-1])


def quasars(options: SdssOptions, settings: Settings) -> Collected:
    """Get quasars, as many as are asked for, or all that there are.

    Raises
    ------
    ArchiveError
        If SkyServer does not answer, or not with whole pages in order, or has none.
    """
    asking = Asking(SDSS, settings)
    path = f"dr{options.release}/en/tools/search/x_results.aspx"
    url = f"{SDSS.endpoint(settings)}/{path}"
    order = Order(options.seed)
    where = f"s.class = 'QSO' AND s.zWarning = 0 AND s.z > {options.zmin!r} AND s.z < {options.zmax!r}"
    there = _count(asking, path, f"SELECT COUNT(*) AS n FROM SpecObj AS s WHERE {where}", options.release)
    wanted = min(options.num, there)
    if not wanted:
        message = f"it has no quasars with redshifts between {options.zmin:g} and {options.zmax:g}"
        raise SDSS.failed(message, url, transient=False, hint="widen --zmin and --zmax")
    pages: list[pa.Table] = []
    last: tuple[int, int] | None = None
    first_query = ""
    while (had := sum(map(len, pages))) < wanted:
        rows = min(PAGE_ROWS, wanted - had)
        sql = (
            f"SELECT TOP {rows} s.specObjID, s.ra, s.dec, s.z FROM SpecObj AS s WHERE {where}{order.after(last)} "
            f"ORDER BY {'' if order.seed is None else f'{order.expression}, '}s.specObjID"
        )
        first_query = first_query or sql
        page, last = _page(asking, path, sql, rows, order, last, options)
        pages.append(page)
    found = pa.concat_tables(pages)
    targets = _targets(found, options)
    checksum = hashlib.blake2b("\n".join(found["specObjID"].to_pylist()).encode(), digest_size=8).hexdigest()
    by = "specObjID" if order.seed is None else f"a random number of seed {order.seed}"
    remarks = [f"the first of {counted(there, 'quasar')}, by {by}; checksum {checksum}"]
    if wanted < options.num:
        remarks.append(f"{options.num} were asked for, and there are {there}")
    return Collected(
        sample=options.sample or SDSS.name,
        targets=targets,
        service=SDSS.name,
        endpoint=url,
        query=query_text("GET", url, first_query),
        asked_at=asking.asked_at,
        release=f"DR{options.release}",
        answered=len(found),
        expected=wanted,
        seen=asking.asked_at.date(),
        remarks=tuple(remarks),
        seconds=asking.seconds,
        requests=asking.requests,
        has_stable_rows=False,
    )


def _payload(sql: str, release: int) -> dict[str, str]:
    from astroquery.sdss import SDSSClass

    return dict(SDSSClass().query_sql(sql, data_release=release, get_query_payload=True, cache=False))


def _count(asking: Asking, path: str, sql: str, release: int) -> int:
    def read(reply: Reply, budget: Budget) -> int:
        table = _read(reply, {"n": pa.int64()})
        if len(table) != 1:
            raise SDSS.failed(f"a count has {counted(len(table), 'row')}", reply.url)
        return int(table["n"][0].as_py())

    return asking.ask("GET", path, read, params=_payload(sql, release))


def _page(
    asking: Asking, path: str, sql: str, rows: int, order: Order, last: tuple[int, int] | None, options: SdssOptions
) -> tuple[pa.Table, tuple[int, int]]:
    """Return a page of so many rows, and its last row."""

    def read(reply: Reply, budget: Budget) -> tuple[pa.Table, tuple[int, int]]:
        page = _read(reply, _COLUMNS)
        if len(page) != rows:
            raise SDSS.failed(f"the answer has {len(page)} of {counted(rows, 'row')}", reply.url)
        if not pc.all(pc.match_substring_regex(page["specObjID"], r"^[0-9]{1,20}$")).as_py():
            raise SDSS.failed("specObjID is not a whole number", reply.url, transient=False)
        z, ra, dec = (page[name].to_numpy() for name in ("z", "ra", "dec"))
        if not ((z > options.zmin) & (z < options.zmax) & (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90)).all():
            raise SDSS.failed("rows lie outside of the sky, or of the redshifts asked for", reply.url, transient=False)
        ids = page["specObjID"].cast(pa.uint64()).to_numpy()
        if not order.is_kept(ids, last):
            raise SDSS.failed("rows do not come in the order that was asked for", reply.url, transient=False)
        return page, order.last(ids)

    return asking.ask("GET", path, read, params=_payload(sql, options.release))


def _read(reply: Reply, columns: dict[str, pa.DataType]) -> pa.Table:
    """Read an answer: a line that names the table, the columns, and the rows, each with the end of its line."""
    body = reply.content
    if b"error_message" in body[:2000]:
        said = excerpt(body)
        raise SDSS.failed(f"it says: {said}", reply.url, transient=any(word in said.lower() for word in _PASSING))
    head = re.match(rb"#Table1\r?\n([^\r\n]*)\r?\n", body)
    if head is None:
        raise SDSS.failed(f"the answer is no table: {excerpt(body) or 'it is empty'}", reply.url)
    names = head[1].decode(errors="replace").split(",")
    if [name.lower() for name in names] != [name.lower() for name in columns]:
        raise SDSS.failed(f"the answer has columns {', '.join(names)}, not {', '.join(columns)}", reply.url)
    if not body.endswith(b"\n"):
        raise SDSS.failed("the answer is cut in the middle of a row", reply.url)
    if not (rows := body[head.end() :].rstrip()):
        return pa.schema(list(columns.items())).empty_table()
    try:
        return csv.read_csv(
            io.BytesIO(rows),
            read_options=csv.ReadOptions(column_names=list(columns), use_threads=False),
            convert_options=csv.ConvertOptions(column_types=columns, strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise SDSS.failed(f"the answer cannot be read: {error}", reply.url) from error


def _targets(found: pa.Table, options: SdssOptions) -> pa.Table:
    n = len(found)
    catalogue = f"SDSS DR{options.release} SpecObj"
    return pa.table(
        {
            "name": designations(found["ra"].to_numpy(), found["dec"].to_numpy()),
            "ra": found["ra"],
            "dec": found["dec"],
            "redshift": found["z"],
            "label": pa.array([options.label], pa.string()).take(pa.array(np.zeros(n, np.int64))),
            "bibcode": pa.nulls(n, pa.string()),
            "catalogue": pa.array([catalogue], pa.string()).take(pa.array(np.zeros(n, np.int64))),
            "row_in_catalogue": pa.array(np.arange(1, n + 1)),
            "name_in_catalogue": found["specObjID"],
        },
        COLLECTED,
    )


def designations(ra: np.ndarray, dec: np.ndarray) -> list[str]:
    """Return SDSS's designations of positions, whose digits are cut, not rounded.

    Examples
    --------
    >>> designations(np.array([29.99017]), np.array([0.55289]))
    ['SDSS J015957.64+003310.4']
    """
    # A hundredth of a second of time, and a tenth of an arcsecond; a last digit in binary does not count.
    times = (np.floor(np.asarray(ra) * 24000.0 + 1e-6).astype(np.int64) % 8_640_000).tolist()
    angles = np.floor(np.abs(dec) * 36000.0 + 1e-6).astype(np.int64).tolist()
    signs = np.where(np.asarray(dec) < 0, "-", "+").tolist()
    return [
        f"SDSS J{t // 360000:02d}{t // 6000 % 60:02d}{t // 100 % 60:02d}.{t % 100:02d}"
        f"{sign}{a // 36000:02d}{a // 600 % 60:02d}{a // 10 % 60:02d}.{a % 10}"
        for t, a, sign in zip(times, angles, signs, strict=True)
    ]
