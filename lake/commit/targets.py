"""Register targets: one row per position on the sky, one label per sample that lists it."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from lake.commit.aliases import fresh_rows, replace_rows
from lake.commit.transaction import Change, stage_rows, write
from lake.errors import ConfigurationError
from lake.model.schema import TABLES
from lake.names import check_not_blank
from lake.science.sky import HPX_PIXELS, SkyIndex, chord, hpx29, separation_arcsec, unit_vectors
from lake.store.catalog import Catalog
from lake.store.storage import remove_folder

# Two positions closer than this are one target, unless the user says otherwise. Archives are matched within 1 arcsec by
# default, so they could not separate closer targets.
MATCH_RADIUS_ARCSEC = 1.0

# The smallest radius except 0: closer positions may have the same hpx29, which is the id.
_LEAST_RADIUS_ARCSEC = 0.01

_AROUND = list(itertools.product((-1, 0, 1), repeat=3))


@dataclass(frozen=True)
class Added:
    """The result of registering a list of targets.

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
    aliases: pa.Table | None = None,
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
        Label for rows without one; None: the sample's name.
    catalogue, bibcode
        Source of the list.
    radius_arcsec
        A row this close to a known target, or to an earlier row, is the same target. With 0 each row is a separate
        target, even at the same position, except rows that the sample already has from this catalogue.
    aliases
        What services said of the names in the list: rows of table aliases, each with the `row` of `targets`, from 0,
        that it is about.

    Raises
    ------
    ConfigurationError
        If the sample or the label has an empty name, or a target has no position.
    """
    check_not_blank("sample", sample)
    check_not_blank("label", label)
    radius_arcsec = max(radius_arcsec, _LEAST_RADIUS_ARCSEC) if radius_arcsec else 0.0
    now = datetime.now(UTC)
    folder = catalog.storage.staging / f"targets-{uuid.uuid4().hex}"

    def work(number: int) -> tuple[pa.Table, np.ndarray, np.ndarray, int]:
        with Change(catalog, number) as change:
            cursor = change.cursor
            known = cursor.execute("SELECT target_id, ra, dec FROM targets ORDER BY target_id").to_arrow_table()
            ids, is_new = _identify(targets, known, radius_arcsec)
            if not radius_arcsec:
                _recognise(cursor, targets, ids, is_new, sample, catalogue)
            new = targets.filter(pa.array(is_new))
            fresh = {name: new[name] for name in TABLES["targets"].names if name in new.column_names}
            fresh["target_id"] = pa.array(ids[is_new])
            fresh["hpx29"] = pa.array(hpx29(new["ra"].to_numpy(), new["dec"].to_numpy()))
            fresh["added_at"] = _repeated(now, new.num_rows)
            cursor.register("offered", _labels(targets, ids, sample, label, catalogue, bibcode, now))
            same = " AND ".join(f"labels.{name} IS NOT DISTINCT FROM offered.{name}" for name in TABLES["labels"].key)
            labels = cursor.execute(
                f"SELECT DISTINCT * FROM offered WHERE NOT EXISTS (FROM labels WHERE {same})"
            ).to_arrow_table()
            cursor.unregister("offered")
            tables = {"targets": pa.table(fresh), "labels": labels}
            if aliases is not None:
                tables["aliases"] = fresh_rows(cursor, _of_targets(aliases, ids))
            if moves := stage_rows(catalog.storage, folder, tables):
                change.bring_in(moves, lambda: replace_rows(cursor, tables["aliases"]) if "aliases" in moves else ())
        return known, ids, is_new, labels.num_rows

    try:
        known, ids, is_new, n_labels = write(catalog, work)
    finally:
        remove_folder(folder)
    met = np.isin(known["target_id"].to_numpy(), ids)
    return Added(targets.num_rows, int(is_new.sum()), int(met.sum()), n_labels)


def _of_targets(aliases: pa.Table, ids: np.ndarray) -> pa.Table:
    of = pa.array(ids[aliases["row"].to_numpy()])
    return aliases.drop_columns(["row"]).set_column(
        aliases.column_names.index("target_id"), TABLES["aliases"].arrow.field("target_id"), of
    )


def _identify(targets: pa.Table, known: pa.Table, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the target id of every row, and whether the row is the first of a new target.

    Rows are taken in order: each joins the nearest target known by then. With a radius of 0 each row is a separate
    target. Memory grows with the rows, not with their pairs.
    """
    ra, dec = targets["ra"].to_numpy(), targets["dec"].to_numpy()
    try:
        ids = hpx29(ra, dec)
    except ValueError as error:
        raise ConfigurationError(f"a target has no position on the sky: {error}") from error
    is_new = np.ones(len(ids), bool)
    owner = np.arange(len(ids))
    if len(ids) and radius_arcsec:
        nearest = np.full(len(ids), np.inf)
        if known.num_rows:
            # The first of targets at one position: others at equal distance are not considered.
            first = np.unique(np.stack([known["ra"].to_numpy(), known["dec"].to_numpy()]), axis=1, return_index=True)[1]
            there = known.take(pa.array(np.sort(first)))
            index = SkyIndex(there["ra"].to_numpy(), there["dec"].to_numpy())
            row, which, separation = index.nearest(ra, dec, radius_arcsec)
            ids[row], nearest[row], is_new[row] = there["target_id"].to_numpy()[which], separation, False
        _join(ra, dec, radius_arcsec, nearest, is_new, owner)
    ids[is_new] = _free(ids[is_new], known["target_id"].to_numpy())
    joined = owner != np.arange(len(ids))
    ids[joined] = ids[owner[joined]]
    return ids, is_new


def _recognise(
    cursor: Any, targets: pa.Table, ids: np.ndarray, is_new: np.ndarray, sample: str, catalogue: str | None
) -> None:
    """Recognise rows that the sample already has from this catalogue, so that a list added twice counts once."""
    if "row_in_catalogue" not in targets.column_names:
        return
    had = cursor.execute(
        "SELECT row_in_catalogue, min(target_id) AS target_id, any_value(ra) AS ra, any_value(dec) AS dec FROM labels "
        "JOIN targets USING (target_id) WHERE sample = ? AND catalogue IS NOT DISTINCT FROM ? "
        "AND row_in_catalogue IS NOT NULL GROUP BY ALL HAVING count(DISTINCT target_id) = 1",
        [sample, catalogue],
    ).to_arrow_table()
    known = {row["row_in_catalogue"]: row for row in had.to_pylist()}
    rows = zip(*(targets[name].to_pylist() for name in ("row_in_catalogue", "ra", "dec")), strict=True)
    for i, (number, ra, dec) in enumerate(rows):
        row = known.get(number)
        if row is not None and (row["ra"], row["dec"]) == (ra, dec):
            ids[i], is_new[i] = row["target_id"], False


def _join(
    ra: np.ndarray, dec: np.ndarray, radius: float, nearest: np.ndarray, is_new: np.ndarray, owner: np.ndarray
) -> None:
    """Assign rows to new targets of earlier rows: the earlier row becomes the owner."""
    places, at, times = np.unique(np.stack([ra, dec]), axis=1, return_inverse=True, return_counts=True)
    at = at.reshape(-1)
    crowded = np.flatnonzero(((times > 1) | ~SkyIndex(*places).is_alone(radius))[at])
    # Targets are further apart than the radius, so a cube of that width holds few of them.
    width = max(chord(min(radius, 648000.0)), 1e-9)
    cubes = np.floor(unit_vectors(ra[crowded], dec[crowded]) / width).astype(np.int64).tolist()
    found: dict[tuple[int, int, int], list[int]] = {}
    for row, (x, y, z) in zip(crowded.tolist(), cubes, strict=True):
        near = sorted(j for d in _AROUND for j in found.get((x + d[0], y + d[1], z + d[2]), ()))
        if near:
            separations = separation_arcsec(ra[row], dec[row], ra[near], dec[near])
            best = int(np.argmin(separations))
            if separations[best] <= radius and separations[best] < nearest[row]:
                owner[row], nearest[row], is_new[row] = near[best], separations[best], False
        if is_new[row]:
            found.setdefault((x, y, z), []).append(row)


def _free(wanted: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return the wanted ids, or the next free id where one is taken."""
    ids = wanted.copy()
    used = set(np.concatenate([taken, np.unique(wanted)]).tolist())
    first = np.zeros(len(wanted), bool)
    first[np.unique(wanted, return_index=True)[1]] = True
    ahead: dict[int, int] = {}
    for i in np.flatnonzero(~first | np.isin(wanted, taken)).tolist():
        pixel = int(wanted[i])
        free = ahead.get(pixel, pixel)
        while free in used:
            free = (free + 1) % HPX_PIXELS
        used.add(free)
        ids[i] = ahead[pixel] = free
    return ids


def _labels(
    targets: pa.Table,
    ids: np.ndarray,
    sample: str,
    label: str | None,
    catalogue: str | None,
    bibcode: str | None,
    now: datetime,
) -> pa.Table:
    n = targets.num_rows
    own = targets["label"].to_pylist() if "label" in targets.column_names else [None] * n
    rows = targets["row_in_catalogue"] if "row_in_catalogue" in targets.column_names else pa.nulls(n, pa.int64())
    return TABLES["labels"].cast(
        pa.table(
            {
                "target_id": ids,
                "sample": [sample] * n,
                "label": pa.array(
                    [value if value and value.strip() else label or sample for value in own], pa.string()
                ),
                "bibcode": pa.array([bibcode] * n, pa.string()),
                "catalogue": pa.array([catalogue] * n, pa.string()),
                "row_in_catalogue": rows,
                "added_at": _repeated(now, n),
                "name": targets["name"] if "name" in targets.column_names else pa.nulls(n, pa.string()),
            }
        )
    )


def _repeated(now: datetime, n: int) -> pa.Array:
    return pa.array([now] * n, TABLES["targets"].arrow.field("added_at").type)
