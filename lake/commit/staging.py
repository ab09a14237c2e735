"""Stage granules: validated Parquet files where no reader looks, and a manifest for their commit."""

from __future__ import annotations

import json
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.commit.ledger import Attempt
from lake.commit.validate import validate, validate_rows
from lake.errors import GranuleRejected, LightlakeError, SchemaError, StagingLost
from lake.model.declared import table_named
from lake.model.schema import TABLES
from lake.store.row_groups import ordered
from lake.store.storage import (
    ROW_GROUP_ROWS,
    Storage,
    checksum,
    checksum_of,
    decoded,
    parquet_content,
    parquet_rows,
    write_parquet,
    write_text,
)

if TYPE_CHECKING:
    from upath import UPath

MANIFEST = "manifest.json"

# Tables of a granule that are written at a time.
_AT_ONCE = 2

Tables = Mapping[str, pa.Table]
Units = Mapping[str, str | None]
# Tables too large for memory, by name: what makes their parts, by granule.
LargeTables = Mapping[str, Mapping[str, Callable[[], Iterable[pa.Table]]]]


@dataclass(frozen=True)
class StagedFile:
    """A staged Parquet file."""

    table: str
    name: str
    rows: int
    bytes: int
    blake2b: str


@dataclass(frozen=True)
class Manifest:
    """The staged files of one granule, or of several together. It is small, to be sent between tasks and machines."""

    folder: str
    attempts: tuple[Attempt, ...]
    files: tuple[StagedFile, ...]

    @property
    def attempt(self) -> Attempt:
        """Return the attempt at the granule, or the first of several."""
        return self.attempts[0]

    def with_details(self, **facts: Any) -> Manifest:
        """Return a copy with more details of its attempts, such as the time they took."""
        return replace(self, attempts=tuple(replace(attempt, **facts) for attempt in self.attempts))

    def as_json(self) -> str:
        """Convert it to JSON."""
        attempts = [attempt.as_dict() for attempt in self.attempts]
        return json.dumps({"attempts": attempts, "files": [asdict(file) for file in self.files]})

    @classmethod
    def read(cls, folder: UPath) -> Manifest | None:
        """Read the manifest of a staging folder; None if the staging was not finished."""
        try:
            data = json.loads((folder / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        attempts = tuple(Attempt.from_dict(attempt) for attempt in data["attempts"])
        return cls(str(folder), attempts, tuple(StagedFile(**file) for file in data["files"]))


def stage(
    folder: UPath,
    attempt: Attempt,
    tables: Tables,
    band_units: Units | None = None,
    *,
    lightcurves: Iterable[pa.Table] | None = None,
    afterwards: Callable[[], Tables] | None = None,
    known: pa.Table | None = None,
    checked: Collection[str] = (),
) -> Manifest:
    """Validate a granule's tables and write them to the staging area.

    Parameters
    ----------
    folder
        Staging folder, for this granule only.
    attempt
        The attempt at the granule; counts and bytes are filled in here.
    tables
        Arrow tables by the name of the lake's table.
    band_units
        VOUnit of flux by band; light curves may have only these bands. None: not checked.
    lightcurves
        Light curves too large for memory, instead of those in tables: parts, each in the table's sort order. They are
        validated and written one by one.
    afterwards
        Makes further tables after the light curves are written, such as their statistics.
    known
        Columns source_id and hpx29 of sources in the lake: matches may also refer to these.
    checked
        As in `validate`.

    Raises
    ------
    GranuleRejected
        If the tables break a rule of the lake.
    """
    tables = cast = cast_tables(tables)  # frees the caller's tables, if nobody else holds them
    validate(attempt.archive, attempt.release, cast, band_units, known=known, checked=checked)
    if "coverage" in cast:
        answers = Counter(cast["coverage"]["status"].to_pylist())
        # If the whole granule failed, its own status says so.
        unanswered = answers["failed"] + answers["rejected"] if attempt.status in ("done", "empty") else 0
        attempt = replace(attempt, n_found=answers["found"], n_unanswered=unanswered)
    files = []
    if lightcurves is not None:
        parts = _checked(attempt, lightcurves, cast.get("sources", TABLES["sources"].empty()), band_units)
        files += _stage(folder, "lightcurves", parts)
    if afterwards is not None:
        later = cast_tables(afterwards())
        validate(attempt.archive, attempt.release, {**cast, **later}, band_units, known=known)
        cast |= later
    return _finish(folder, (attempt,), cast, files)


def stage_together(
    folder: UPath,
    granules: Sequence[tuple[Attempt, Tables]],
    band_units: Units | None = None,
    large: LargeTables | None = None,
) -> Manifest:
    """Stage many small granules of one archive and release in one set of files, which one transaction commits.

    Each remains a granule of its own. One that breaks a rule of the lake becomes a rejected attempt without rows,
    and the others are staged without it.

    Parameters
    ----------
    folder
        Staging folder, for these granules only.
    granules
        Attempts with their tables, at least one; rejected and failed ones have coverage at most. No two may have the
        same source.
    band_units
        As in `stage`.
    large
        Further tables of granules, which are made, validated and written part by part, in the table's sort order. They
        have no key.
    """
    archive, release = granules[0][0].archive, granules[0][0].release
    whole = list(granules)
    try:
        # Tables of one kind have the same columns, and are checked as one.
        every = cast_tables(_joined([tables for _, tables in whole]))
        validate(archive, release, every, band_units)
    except (GranuleRejected, pa.ArrowInvalid, pa.ArrowTypeError):
        whole = [_alone(attempt, tables, band_units) for attempt, tables in granules]
        every = _joined([tables for _, tables in whole])
        validate(archive, release, every, band_units)
    rows = [Counter({name: table.num_rows for name, table in tables.items()}) for _, tables in whole]
    files = []
    try:
        for name, parts in (large or {}).items():
            files += _stage(folder, name, _parts(name, parts, whole, rows))
    except _PartRejected as error:
        rest = [(lost(one, error.why), {}) if one.granule == error.granule else (one, made) for one, made in whole]
        return stage_together(folder, rest, band_units, large)
    return _finish(folder, tuple(attempt for attempt, _ in whole), every, files, rows)


class _PartRejected(Exception):
    """A part of a granule's large table breaks a rule of the lake."""

    def __init__(self, granule: str, why: GranuleRejected) -> None:
        super().__init__(granule)
        self.granule, self.why = granule, why


def _parts(
    name: str,
    made: Mapping[str, Callable[[], Iterable[pa.Table]]],
    granules: Sequence[tuple[Attempt, Tables]],
    rows: Sequence[Counter[str]],
) -> Iterator[pa.Table]:
    """Yield the parts of a large table, granule by granule in order of their sources; count them in rows."""
    having = [
        (min(tables["sources"]["source_id"].to_pylist()), place)
        for place, (attempt, tables) in enumerate(granules)
        if attempt.granule in made and "sources" in tables and tables["sources"].num_rows
    ]
    for _, place in sorted(having):
        attempt, tables = granules[place]
        try:
            for part in made[attempt.granule]():
                for cast in cast_tables({name: part}).values():
                    validate_rows(attempt.archive, attempt.release, name, cast, tables["sources"])
                    rows[place][name] += cast.num_rows
                    yield cast
        except GranuleRejected as error:
            raise _PartRejected(attempt.granule, error) from error


def _alone(attempt: Attempt, tables: Tables, band_units: Units | None) -> tuple[Attempt, Tables]:
    try:
        cast = cast_tables(tables)
        validate(attempt.archive, attempt.release, cast, band_units)
    except GranuleRejected as error:
        return lost(attempt, error), {}
    return attempt, cast


def lost(attempt: Attempt, error: BaseException) -> Attempt:
    """Mark an attempt as rejected, if the fault is in the data, or else as failed, with the reason."""
    kind, message = type(error).__name__, str(error).strip().splitlines()[:1]
    if not isinstance(error, LightlakeError):
        message = [": ".join([kind, *message])]  # messages of other libraries may say nothing without the type
    return replace(
        attempt,
        status="rejected" if isinstance(error, GranuleRejected) else "failed",
        reason="".join(message) or kind,
        error_type=kind,
        error="".join(traceback.format_exception(error)),
    )


def _joined(parts: Sequence[Tables]) -> dict[str, pa.Table]:
    names = dict.fromkeys(name for tables in parts for name in tables)  # all tables of the lake would load all sources
    some = {name: [tables[name] for tables in parts if name in tables and tables[name].num_rows] for name in names}
    return {name: joined(tables) for name, tables in some.items() if tables}


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate tables, whatever the dictionaries of their text columns."""
    return pa.concat_tables([int32_dictionaries(table) for table in tables]).unify_dictionaries()


def _finish(
    folder: UPath,
    attempts: tuple[Attempt, ...],
    tables: dict[str, pa.Table],
    files: list[StagedFile],
    rows: Sequence[Mapping[str, int]] | None = None,
) -> Manifest:
    """Write the tables and the manifest, with each attempt's share of them."""
    files += stage_files(folder, tables)
    rows = rows or [{file.table: file.rows for file in files}]
    size, total = sum(file.bytes for file in files), sum(sum(each.values()) for each in rows)
    counted = tuple(
        replace(
            attempt,
            n_sources=each.get("sources", 0),
            n_rows=each.get("lightcurves", 0),
            bytes=size * sum(each.values()) // max(total, 1),
        )
        for attempt, each in zip(attempts, rows, strict=True)
    )
    manifest = Manifest(str(folder), counted, tuple(files))
    write_text(folder / MANIFEST, manifest.as_json())
    return manifest


def stage_files(folder: UPath, tables: dict[str, pa.Table]) -> list[StagedFile]:
    """Write tables to a staging folder, each in its sort order, and remove them from the mapping, which frees them."""

    def write(name: str) -> list[StagedFile]:
        keys = table_named(name).sort
        return _stage(folder, name, (decoded(one, keys) for one in ordered(tables.pop(name), keys, ROW_GROUP_ROWS)))

    # Two at a time, the largest first: encoding takes a core, and the disk its time to have all of it.
    names = list(tables)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        largest_first = sorted(names, key=lambda name: -tables[name].nbytes)
        written = {name: pool.submit(copy_context().run, write, name) for name in largest_first}
        return [file for name in names for file in written[name].result()]


def check_staged(storage: Storage, manifest: Manifest) -> None:
    """Raise StagingLost if the staged files are not those of a manifest."""
    folder = storage.path(manifest.folder)
    for file in manifest.files:
        path = folder / file.name
        with _lost_if_broken(path):
            if parquet_rows(path) != file.rows or checksum(path) != file.blake2b:
                raise _other(path)


def read_staged(storage: Storage, manifest: Manifest) -> dict[str, pa.Table]:
    """Return the tables of small staged files, each read once; light curves have dictionaries.

    Raises
    ------
    StagingLost
        If the files are not those of the manifest.
    """
    tables, folder = {}, storage.path(manifest.folder)
    texts = [field.name for field in TABLES["lightcurves"].arrow if pa.types.is_string(field.type)]
    for file in manifest.files:
        path = folder / file.name
        with _lost_if_broken(path):
            content = path.read_bytes()
            if checksum_of(content) != file.blake2b:
                raise _other(path)
            tables[file.table] = table = parquet_content(content, texts if file.table == "lightcurves" else ())
            if table.num_rows != file.rows:
                raise _other(path)
    return tables


def _other(path: UPath) -> StagingLost:
    return StagingLost(f"staged file {path} is not the one in its manifest", hint="pull it again")


@contextmanager
def _lost_if_broken(path: UPath) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StagingLost(f"staged file {path} is gone", hint="pull it again") from error
    except pa.ArrowInvalid as error:
        raise StagingLost(f"staged file {path} is damaged: {error}", hint="pull it again") from error


def cast_tables(tables: Tables) -> dict[str, pa.Table]:
    """Cast tables to the schema of the lake, except empty ones; raise GranuleRejected if they do not fit."""
    # Light curves, and some tables of sources, have so many rows that dictionaries pay.
    forms = {name: decoded if name in TABLES and name != "lightcurves" else int32_dictionaries for name in tables}
    try:
        return {name: table_named(name).cast(forms[name](table)) for name, table in tables.items() if table.num_rows}
    except SchemaError as error:
        raise GranuleRejected(str(error)) from error


def int32_dictionaries(table: pa.Table) -> pa.Table:
    """Cast dictionary columns to 32-bit indices, which hold the values of many granules."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            wide = pa.dictionary(pa.int32(), field.type.value_type)
            if field.type == wide:
                continue
            table = table.set_column(place, field.with_type(wide), table[place].cast(wide))
    return table


def _checked(
    attempt: Attempt, parts: Iterable[pa.Table], sources: pa.Table, band_units: Units | None
) -> Iterator[pa.Table]:
    for part in parts:
        for cast in cast_tables({"lightcurves": part}).values():
            validate_rows(attempt.archive, attempt.release, "lightcurves", cast, sources, band_units)
            yield cast


def _stage(folder: UPath, table: str, parts: Iterator[pa.Table]) -> list[StagedFile]:
    """Write one staged file, or none if there are no rows."""
    first = next(parts, None)
    if first is None:
        return []
    # A new name each time: DuckDB caches footers by path, second and size, and would take one file for another.
    path = folder / f"{table}-{uuid.uuid4().hex[:8]}.parquet"
    rows = write_parquet(chain([first], parts), path)
    return [StagedFile(table, path.name, rows, path.stat().st_size, checksum(path))]
