"""Register targets: one row per place on the sky, one label per sample that names it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa

from lake.catalog import Catalog
from lake.errors import ConfigurationError
from lake.schema import TABLES
from lake.sky import SkyIndex, hpx29
from lake.storage import remove_folder, write_parquet
from lake.transaction import recover, transact

# Two positions closer than this are one target, unless the user says otherwise. The archives are matched
# within 1 arcsec by default, so closer targets could not be told apart by them.
MATCH_RADIUS_ARCSEC = 1.0

# Whatever the user says: closer ones may have the same hpx29, and so the same id.
_LEAST_RADIUS_ARCSEC = 0.01


@dataclass(frozen=True)
class Added:
    """What registering a list of targets did.

    Parameters
    ----------
    rows
        Rows of the list.
    new
        Targets that the lake did not have.
    known
        Targets of the list that the lake had.
    labels
        Labels that were new.
    """

    rows: int
    new: int
    known: int
    labels: int


def add_targets(
    catalog: Catalog,
    targets: pa.Table,
    sample: str,
    *,
    label: str | None = None,
    catalogue: str | None = None,
    bibcode: str | None = None,
    radius_arcsec: float = MATCH_RADIUS_ARCSEC,
) -> Added:
    """Register a list of targets under a sample, all or nothing.

    Parameters
    ----------
    catalog
        The lake.
    targets
        Columns ra and dec (ICRS, degrees); optional name, pm_ra, pm_dec (mas/yr), ref_epoch (Julian
        year), redshift, label, row_in_catalogue.
    sample
        Name of the sample.
    label
        Label for rows that have none of their own; None: the sample's name.
    catalogue, bibcode
        Where the list comes from.
    radius_arcsec
        A row within this of a known target, or of an earlier row, is the same target.
    """
    radius_arcsec = max(radius_arcsec, _LEAST_RADIUS_ARCSEC)
    folder = catalog.storage.staging / f"targets-{uuid.uuid4().hex}"
    with catalog.lock():
        recover(catalog)
        cursor = catalog.cursor()
        try:
            cursor.execute("BEGIN")
            known = cursor.execute("SELECT target_id, ra, dec FROM targets ORDER BY target_id").to_arrow_table()
            ids, is_new = _identify(targets, known, radius_arcsec)
            new = targets.filter(pa.array(is_new))
            fresh = {name: new[name] for name in TABLES["targets"].names if name in new.column_names}
            fresh["target_id"] = fresh["hpx29"] = pa.array(ids[is_new])
            fresh["added_at"] = pa.array(
                [datetime.now(UTC)] * new.num_rows, TABLES["targets"].arrow.field("added_at").type
            )
            cursor.register("offered", _labels(targets, ids, sample, label, catalogue, bibcode))
            same = " AND ".join(f"labels.{name} IS NOT DISTINCT FROM offered.{name}" for name in TABLES["labels"].key)
            labels = cursor.execute(
                f"SELECT DISTINCT * FROM offered WHERE NOT EXISTS (FROM labels WHERE {same})"
            ).to_arrow_table()
            cursor.unregister("offered")
            moves = {}
            for name, rows in (("targets", pa.table(fresh)), ("labels", labels)):
                if rows.num_rows:
                    staged = folder / f"{name}.parquet"
                    spec = TABLES[name]
                    write_parquet(spec.cast(rows).sort_by([(key, "ascending") for key in spec.sort]), staged)
                    moves[name] = (staged, catalog.storage.table_folder(name) / f"{folder.name}.parquet")
            if moves:
                transact(cursor, catalog.storage, moves, lambda: None)
        except duckdb.Error as error:
            raise catalog.unwritable(error) from None
        finally:
            cursor.close()
            remove_folder(folder)
    met = np.isin(known["target_id"].to_numpy(), ids)
    return Added(targets.num_rows, int(is_new.sum()), int(met.sum()), labels.num_rows)


def _identify(targets: pa.Table, known: pa.Table, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the target id of every row, and whether the row is the first of a new target.

    Rows are taken in order: each belongs to the nearest target that is known by then.
    """
    ra, dec = targets["ra"].to_numpy(), targets["dec"].to_numpy()
    try:
        ids = hpx29(ra, dec)
    except ValueError as error:
        raise ConfigurationError(f"a target has no place on the sky: {error}") from error
    is_new = np.ones(len(ids), bool)
    nearest = np.full(len(ids), np.inf)
    if known.num_rows and len(ids):
        index = SkyIndex(known["ra"].to_numpy(), known["dec"].to_numpy())
        row, there, separation = index.within(ra, dec, radius_arcsec)
        first = np.unique(row, return_index=True)[1]  # pairs come nearest first
        ids[row[first]] = known["target_id"].to_numpy()[there[first]]
        nearest[row[first]] = separation[first]
        is_new[row[first]] = False
    row, other, separation = SkyIndex(ra, dec).within(ra, dec, radius_arcsec)
    for i, j, distance in zip(row, other, separation, strict=True):
        # Sorted by row: whether the earlier row j is a target of its own is settled by now.
        if j < i and is_new[j] and distance < nearest[i]:
            ids[i], nearest[i], is_new[i] = ids[j], distance, False
    return ids, is_new


def _labels(
    targets: pa.Table,
    ids: np.ndarray,
    sample: str,
    label: str | None,
    catalogue: str | None,
    bibcode: str | None,
) -> pa.Table:
    n = targets.num_rows
    own = targets["label"].to_pylist() if "label" in targets.column_names else [None] * n
    rows = targets["row_in_catalogue"] if "row_in_catalogue" in targets.column_names else pa.nulls(n, pa.int64())
    return TABLES["labels"].cast(
        pa.table(
            {
                "target_id": ids,
                "sample": [sample] * n,
                "label": pa.array([value or label or sample for value in own], pa.string()),
                "bibcode": pa.array([bibcode] * n, pa.string()),
                "catalogue": pa.array([catalogue] * n, pa.string()),
                "row_in_catalogue": rows,
            }
        )
    )
