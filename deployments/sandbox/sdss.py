"""Stand-in for SDSS's SkyServer: SQL over a generated view SpecObj, answered as csv below a line that names a table."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs

import duckdb
from pyarrow import csv

from deployments.sandbox.papers import Faults, refused
from deployments.sandbox.server import Request, Response, Sandbox

PATH = "/skyserver"
MOST_ROWS = 500_000

# specObjID is plate, fibre, day and version of the reduction, as SDSS packs them: of later plates it is above 2^63.
# One spectrum of ten is none of the quasars: a galaxy, or one with a warning.
_SPEC_OBJ = """
CREATE TABLE SpecObj AS
SELECT ((266 + i * 13000 // n)::UBIGINT << 50) + ((i % 1000 + 1)::UBIGINT << 38) + (5000::UBIGINT << 24)
        + (26::UBIGINT << 10) AS specObjID,
    CASE WHEN i % 20 = 7 THEN 'GALAXY' ELSE 'QSO' END AS class,
    CASE WHEN i % 20 = 13 THEN 4 ELSE 0 END AS zWarning,
    110.0 + 150.0 * (hash(key + 1) / 18446744073709551616.0) AS ra,
    degrees(asin(-0.05 + 0.95 * (hash(key + 2) / 18446744073709551616.0))) AS "dec",
    round(0.05 + 4.9 * pow(hash(key + 3) / 18446744073709551616.0, 2), 6) AS z
FROM (SELECT unnest(range(n)) AS i, n, 8 * i + 16777216 * seed AS key FROM (SELECT ?::BIGINT AS n, ?::BIGINT AS seed))
"""


class SkyServer:
    """Mounted at `url`/dr16/en/tools/search/x_results.aspx, and those of other releases, until the sandbox closes.

    Parameters
    ----------
    quasars
        Quasars without a warning that it has, about.

    Attributes
    ----------
    faults : Faults
        error (it says error_message, with status 200), empty, refused (403), header (no rows), cut (half of the rows,
        to the end of a line), disorder (ORDER BY is not done), capitals (other names of columns), float (specObjID
        in the form of a floating-point number).
    queries : list of str
        All so far.
    """

    def __init__(self, sandbox: Sandbox, quasars: int, *, seed: int = 20210126) -> None:
        self.url = sandbox.url(PATH)
        kinds = {"error", "empty", "refused", "header", "cut", "disorder", "capitals", "float"}
        self.faults = Faults(frozenset(kinds))
        self.queries: list[str] = []
        self._db = duckdb.connect(config={"enable_external_access": "false", "threads": 1})
        self._db.execute(_SPEC_OBJ, [-(-quasars * 10 // 9), seed])
        sandbox.mount(PATH, self._answer)

    def close(self) -> None:
        """Close the table."""
        self._db.close()

    def _answer(self, request: Request) -> Response:
        if not re.fullmatch(rf"{PATH}/dr\d+/en/tools/search/x_results\.aspx", request.path):
            return Response(b"<html><body>404</body></html>", 404, "text/html")
        asked = parse_qs(request.query)
        sql = asked.get("cmd", [""])[0].strip()
        self.queries.append(sql)
        fault = self.faults.take()
        if fault in ("empty", "refused"):
            return refused() if fault == "refused" else Response(b"", 200, "text/plain")
        if fault == "error" or asked.get("format") != ["csv"]:
            return _text('{"error_message": "The query has exceeded its time limit: timeout expired"}')
        return self._rows(sql, fault)

    def _rows(self, sql: str, fault: str) -> Response:
        top = re.match(r"(SELECT)\s+TOP\s+(\d+)\s", sql, re.IGNORECASE)
        limit = min(int(top[2]), MOST_ROWS) if top else MOST_ROWS
        plain = f"SELECT {sql[top.end() :]}" if top else sql
        if fault == "disorder":
            plain = re.sub(r"\bORDER BY\b.*", "ORDER BY ra", plain)
        cursor = self._db.cursor()
        try:
            table = cursor.execute(f"{plain} LIMIT {limit}").to_arrow_table()
        except duckdb.Error as error:
            return _text(f'{{"error_message": "{str(error).splitlines()[0]}"}}')
        finally:
            cursor.close()
        if fault in ("header", "cut"):
            table = table.slice(0, len(table) // 2 if fault == "cut" else 0)
        names = [name.upper() if fault == "capitals" else name for name in table.column_names]
        if fault == "float" and "specObjID" in table.column_names:
            at = table.column_names.index("specObjID")
            table = table.set_column(at, "specObjID", table["specObjID"].cast("double"))
        out = io.BytesIO(f"#Table1\n{','.join(names)}\n".encode())
        out.seek(0, io.SEEK_END)
        csv.write_csv(table, out, csv.WriteOptions(include_header=False, quoting_style="none"))
        return Response(out.getvalue(), 200, "text/plain")


def mount(
    sandbox: Sandbox, root: Path, *, seed: int = 0, scale: float = 1.0, targets: Iterable[tuple[float, float]] = ()
) -> str:
    """Serve two thousand quasars, and return the endpoint; the service is ``sandbox.services["sdss"]``."""
    service = sandbox.services["sdss"] = SkyServer(sandbox, 2_000, seed=seed)
    return service.url


def _text(text: str) -> Response:
    return Response(text.encode(), 200, "text/plain")
