"""Register targets: one row per position on the sky, one label per sample that lists it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit import ledger
from lake.commit.aliases import fresh_rows, replace_rows
from lake.commit.ledger import Attempt
from lake.commit.transaction import Change, stage_rows, write
from lake.errors import ConfigurationError
from lake.model.schema import TABLES
from lake.names import check_not_blank
from lake.science.sky import HPX_PIXELS, SkyIndex, chord, hpx29, separation_arcsec, unit_vectors
from lake.store.catalog import Catalog
from lake.store.migrations import INLINED_ROWS
from lake.store.storage import remove_folder

if TYPE_CHECKING:
    from upath import UPath

# The page that helps with errors from here.
HELP_TOPIC = "how-to/target-lists"

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


@dataclass(frozen=True)
class TargetList:
    """A list of targets to register.

    Parameters
    ----------
    targets
        Columns ra and dec (ICRS, degrees); optional name, pm_ra, pm_dec (mas/yr), ref_epoch (Julian
        year), redshift, label, bibcode, catalogue, row_in_catalogue, and name_in_catalogue where the list has another
        name than the target is to have.
    sample
        Name of the sample.
    label, catalogue, bibcode
        Label and source of rows without one; without a label, the sample's name.
    attempt
        Row of the ledger for a list that a service gave; None for others.
    has_stable_rows
        Whether a row of the source has the same number for ever. Otherwise a label that differs from a known one in
        nothing but the number is not added.
    aliases
        What services said of the names in the list: rows of table aliases, each with the `row` of `targets`, from 0,
        that it is about.
    """

    targets: pa.Table
    sample: str
    label: str | None = None
    catalogue: str | None = None
    bibcode: str | None = None
    attempt: Attempt | None = None
    has_stable_rows: bool = True
    aliases: pa.Table | None = None

    def column(self, name: str) -> list[Any]:
        """Return a column of texts of the list; what it lacks is None."""
        has = name in self.targets.column_names
        return self.targets[name].to_pylist() if has else [None] * self.targets.num_rows


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
    targets, sample, label, catalogue, bibcode, aliases
        As in `TargetList`.
    radius_arcsec
        As in `add_lists`.

    Raises
    ------
    ConfigurationError
        If the sample or the label has an empty name, or a target has no position.
    """
    return add_lists(
        catalog, [TargetList(targets, sample, label, catalogue, bibcode, aliases=aliases)], radius_arcsec=radius_arcsec
    )[0]


def add_lists(
    catalog: Catalog, lists: Sequence[TargetList], *, radius_arcsec: float = MATCH_RADIUS_ARCSEC
) -> list[Added]:
    """Register lists of targets, one after the other, in one transaction: all or nothing.

    Parameters
    ----------
    catalog
        The lake.
    lists
        Their rows of the ledger are written in the same transaction.
    radius_arcsec
        A row this close to a known target, or to an earlier row, is the same target. With 0 each row is a separate
        target, even at the same position, except rows that the sample already has from this catalogue.

    Raises
    ------
    ConfigurationError
        If a sample or a label has an empty name, or a target has no position.
    """
    for one in lists:
        check_not_blank("sample", one.sample)
        check_not_blank("label", one.label)
    if not lists:
        return []
    radius_arcsec = max(radius_arcsec, _LEAST_RADIUS_ARCSEC) if radius_arcsec else 0.0
    now = datetime.now(UTC)
    folder = catalog.storage.staging / f"targets-{uuid.uuid4().hex}"

    def work(number: int) -> list[Added]:
        with Change(catalog, number) as change:
            added = _Registering(change, now, radius_arcsec)
            for one in lists:
                added.add(one)
            added.bring_in(folder, [one.attempt for one in lists if one.attempt is not None])
            return added.counts

    try:
        return write(catalog, work)
    finally:
        remove_folder(folder)


class _Registering:
    """Lists that are registered in one transaction: each knows the targets and labels of those before it."""

    def __init__(self, change: Change, now: datetime, radius_arcsec: float) -> None:
        self.change, self.cursor = change, change.cursor
        self.now, self.radius_arcsec = now, radius_arcsec
        self.known = self.cursor.execute("SELECT target_id, ra, dec FROM targets ORDER BY target_id").to_arrow_table()
        self.targets: list[pa.Table] = []
        self.labels: list[pa.Table] = []
        self.aliases: list[pa.Table] = []
        self.counts: list[Added] = []

    def add(self, one: TargetList) -> None:
        """Find which rows are new targets, and which labels are new."""
        ids, is_new = _identify(one.targets, self.known, self.radius_arcsec)
        if not self.radius_arcsec:
            _recognise(self.cursor, one, ids, is_new)
        met = np.isin(self.known["target_id"].to_numpy(), ids)
        new = one.targets.filter(pa.array(is_new))
        fresh = {name: new[name] for name in TABLES["targets"].names if name in new.column_names}
        fresh["target_id"] = pa.array(ids[is_new])
        fresh["hpx29"] = pa.array(hpx29(new["ra"].to_numpy(), new["dec"].to_numpy()))
        fresh["added_at"] = _repeated(self.now, new.num_rows)
        labels = self._new_labels(_labels(one, ids, self.now), has_stable_rows=one.has_stable_rows)
        self.targets.append(TABLES["targets"].cast(pa.table(fresh)))
        self.labels.append(labels)
        if one.aliases is not None:
            self.aliases.append(_of_targets(one.aliases, ids))
        known = self.targets[-1].select(["target_id", "ra", "dec"]).cast(self.known.schema)
        self.known = pa.concat_tables([self.known, known])
        self.counts.append(Added(one.targets.num_rows, int(is_new.sum()), int(met.sum()), labels.num_rows))

    def _new_labels(self, offered: pa.Table, *, has_stable_rows: bool) -> pa.Table:
        key = [name for name in TABLES["labels"].key if has_stable_rows or name != "row_in_catalogue"]
        same = " AND ".join(f"held.{name} IS NOT DISTINCT FROM offered.{name}" for name in key)
        self.cursor.register("offered", offered)
        self.cursor.register("before", pa.concat_tables([offered.slice(0, 0), *self.labels]))
        labels = self.cursor.execute(
            f"SELECT {', '.join(TABLES['labels'].names)} FROM (SELECT *, row_number() OVER (PARTITION BY "
            f"{', '.join(key)} ORDER BY row_in_catalogue) AS nth FROM offered) AS offered WHERE nth = 1 "
            f"AND NOT EXISTS (FROM labels AS held WHERE {same}) AND NOT EXISTS (FROM before AS held WHERE {same})"
        ).to_arrow_table()
        for name in ("offered", "before"):
            self.cursor.unregister(name)
        return TABLES["labels"].cast(labels)

    def bring_in(self, folder: UPath, attempts: Sequence[Attempt]) -> None:
        """Stage and register all rows, with those of the ledger."""
        numbers = ledger.numbers(self.cursor, attempts) if attempts else None
        tables = {"targets": pa.concat_tables(self.targets), "labels": pa.concat_tables(self.labels)}
        if self.aliases:
            tables["aliases"] = fresh_rows(self.cursor, pa.concat_tables(self.aliases))
        snapshot = 0
        if numbers is not None:
            snapshot = self.cursor.execute("FROM ducklake_current_snapshot('lake')").fetchall()[0][0] + 1
            if len(attempts) > INLINED_ROWS:
                tables["ledger"] = ledger.rows(attempts, numbers, snapshot)

        moves = stage_rows(self.change.storage, folder, tables)

        def rewrites() -> Sequence[str]:
            if numbers is not None and "ledger" not in tables:
                ledger.record(self.cursor, attempts, numbers, snapshot)
            return replace_rows(self.cursor, tables["aliases"]) if "aliases" in moves else ()

        if moves or numbers is not None:
            self.change.bring_in(moves, rewrites)


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


def _recognise(cursor: Any, one: TargetList, ids: np.ndarray, is_new: np.ndarray) -> None:
    """Recognise rows that the sample already has from this catalogue, so that a list added twice counts once.

    A row is known by its number, or by its name where the catalogue has no numbers that stay.
    """
    had = cursor.execute(
        "SELECT catalogue, row_in_catalogue, labels.name, min(target_id) AS target_id, any_value(ra) AS ra, "
        "any_value(dec) AS dec FROM labels JOIN targets USING (target_id) WHERE sample = ? "
        "GROUP BY ALL HAVING count(DISTINCT target_id) = 1",
        [one.sample],
    ).to_arrow_table()

    def key(catalogue: str | None, number: int | None, name: str | None) -> tuple[str | None, int | str | None]:
        return catalogue, number if one.has_stable_rows and number is not None else name

    known = {key(row["catalogue"], row["row_in_catalogue"], row["name"]): row for row in had.to_pylist()}
    columns = ("catalogue", "row_in_catalogue", "name_in_catalogue", "name", "ra", "dec")
    rows = zip(*(one.column(name) for name in columns), strict=True)
    for i, (catalogue, number, in_catalogue, name, ra, dec) in enumerate(rows):
        sought = key(catalogue or one.catalogue, number, in_catalogue or name)
        row = known.get(sought) if sought[1] is not None else None
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


def _labels(one: TargetList, ids: np.ndarray, now: datetime) -> pa.Table:
    n = one.targets.num_rows

    def texts(name: str, default: str | None) -> pa.Array:
        """Return a column of the list, with the default where it has nothing."""
        if name not in one.targets.column_names:
            return pa.array([default] * n, pa.string())
        own = one.targets[name].to_pylist()
        return pa.array([value if value and value.strip() else default for value in own], pa.string())

    rows = (
        one.targets["row_in_catalogue"] if "row_in_catalogue" in one.targets.column_names else pa.nulls(n, pa.int64())
    )
    names = one.targets["name"] if "name" in one.targets.column_names else pa.nulls(n, pa.string())
    if "name_in_catalogue" in one.targets.column_names:
        names = pc.coalesce(one.targets["name_in_catalogue"], names)
    return TABLES["labels"].cast(
        pa.table(
            {
                "target_id": ids,
                "sample": pa.array([one.sample] * n, pa.string()),
                "label": texts("label", one.label or one.sample),
                "bibcode": texts("bibcode", one.bibcode),
                "catalogue": texts("catalogue", one.catalogue),
                "row_in_catalogue": rows,
                "added_at": _repeated(now, n),
                "name": names,
            }
        )
    )


def _repeated(now: datetime, n: int) -> pa.Array:
    return pa.array([now] * n, TABLES["targets"].arrow.field("added_at").type)
