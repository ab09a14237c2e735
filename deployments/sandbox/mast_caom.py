"""Stand-in for MAST's TAP service with the Common Archive Observation Model, on the portal's observations and files.

It has the limits of the real one: no uploads, no circles, and 100,000 rows an answer.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from deployments.sandbox.tap import Job, TapError, TapService

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Row = dict[str, Any]

TAP_PATH = "/vo-tap/api/v0.1/caom"
HARD_LIMIT = 100_000

_POINTING = pa.schema(
    {name: pa.int64() for name in ("obsid", "objid", "calib_level", "sequence_number")}
    | {name: pa.float64() for name in ("s_ra", "s_dec", "t_min", "t_max", "t_exptime")}
    | {
        name: pa.string()
        for name in (
            "obs_id",
            "obs_collection",
            "project",
            "provenance_name",
            "dataproduct_type",
            "target_name",
            "dataurl",
        )
    }
)
_ARTIFACT = pa.schema(
    {"planetid": pa.int64(), "productfilename": pa.string(), "datauri": pa.string(), "contentlength": pa.int64()}
)
_PORTAL = {"objid": "objID", "dataurl": "dataURL"}


class CaomService(TapService):
    """The service. Files are made when they are first listed, so that its tables are those that a query is about.

    Parameters
    ----------
    box
        The sandbox.
    observations, files
        Return the portal's rows: of all observations, and of the files of some targets by their names, or of all.
    """

    def __init__(
        self,
        box: Sandbox,
        observations: Callable[[], Sequence[Row]],
        files: Callable[[Collection[str] | None], Sequence[Row]],
    ) -> None:
        super().__init__(box, TAP_PATH, {}, hard_limit=HARD_LIMIT)
        self._observations, self._files = observations, files
        self._alone = threading.Lock()

    def _query(self, params: Mapping[str, str], files: Mapping[str, bytes], job: Job | None = None) -> bytes:
        adql = params.get("QUERY", "")
        if params.get("UPLOAD") or "TAP_UPLOAD" in adql.upper():
            raise TapError('Unknown table "TAP_UPLOAD"')
        if re.search(r"\bCONTAINS\b", adql, re.IGNORECASE):
            raise TapError("the gateway does not wait for circles")
        with self._alone:
            self._renew(re.search(r"\btarget_name\s+IN\s*\(([^)]*)\)", adql, re.IGNORECASE), "caomartifact" in adql)
            return super()._query(params, files, job)

    def _renew(self, named: re.Match[str] | None, with_files: bool) -> None:
        """Have tables of what there is now."""
        observations = self._observations()
        names = None if named is None else set(re.findall("'([^']*)'", named[1]))
        files = self._files(names) if with_files else ()
        planes = {row["obsid"]: int(row["objID"]) for row in observations}
        pointing = [
            {field.name: _cast(row[_PORTAL.get(field.name, field.name)], field.type) for field in _POINTING}
            for row in observations
        ]
        artifact = [
            {
                "planetid": planes[row["obsID"]],
                "productfilename": row["productFilename"],
                "datauri": row["dataURI"],
                "contentlength": row["size"],
            }
            for row in files
        ]
        for name, table in (
            ("obspointing", pa.Table.from_pylist(pointing, _POINTING)),
            ("caomplane", pa.table({"planetid": pa.array(sorted(planes.values()), pa.int64())})),
            ("caomartifact", pa.Table.from_pylist(artifact, _ARTIFACT)),
        ):
            self._db.execute(f"CREATE SCHEMA IF NOT EXISTS dbo; DROP TABLE IF EXISTS dbo.{name}")
            self.add(f"dbo.{name}", table)


def _cast(value: Any, kind: pa.DataType) -> Any:
    return int(value) if value is not None and kind == pa.int64() else value
