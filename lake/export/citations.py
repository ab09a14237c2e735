"""What to cite and to acknowledge for an answer of the lake: papers, licences, software and the snapshot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from lake.errors import ConfigurationError
from lake.export.touched import Touched, touched
from lake.model.declared import declarations
from lake.model.papers import Paper, entry, escaped
from lake.names import check_sample, target_id_of

if TYPE_CHECKING:
    from lake.query import Lake

_DUCKDB: dict[str, str | None] = {
    "author": r"Raasveldt, Mark and M{\"u}hleisen, Hannes",
    "title": "{DuckDB: an Embeddable Analytical Database}",
    "booktitle": "Proceedings of the 2019 International Conference on Management of Data",
    "year": "2019",
    "pages": "1981--1984",
    "doi": "10.1145/3299869.3320212",
}


@dataclass(frozen=True)
class Citation:
    """What went into an answer.

    Parameters
    ----------
    archives
        Rows of table archives, of the releases in the answer.
    samples
        Samples with their papers and catalogues.
    snapshot, snapshot_time
        State of the lake that was read.
    lake_id
        Id of the lake.
    is_exact
        The archives are those of the rows; else those of all tables that were read.
    """

    archives: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    snapshot: int
    snapshot_time: str
    lake_id: str | None
    is_exact: bool

    @property
    def software(self) -> str:
        """Return the names and versions of the software."""
        return f"lightlake {version('lightlake')}, DuckDB {duckdb.__version__}"

    def lines(self) -> list[str]:
        """Return what a paper must say, a line for each archive, sample and program."""
        where = f", lake {self.lake_id}" if self.lake_id else ""
        found = [f"Made with {self.software}, from snapshot {self.snapshot} of {self.snapshot_time}{where}"]
        if not self.is_exact:
            found.append("The archives named here are all those of the tables that were read")
        for one in self.archives:
            paper = f" Cite: {one['bibcode']}." if one.get("bibcode") else ""
            found.append(
                f"{one['archive']} {one['release']} ({one['title']}). Terms of use: {one['licence'].rstrip('.')}. "
                f"Acknowledgement: {one['acknowledgement']}{paper}"
            )
        for one in self.samples:
            papers = f" Cite: {', '.join(one['bibcodes'])}." if one["bibcodes"] else ""
            found.append(f"Sample {one['sample']}: from {', '.join(one['catalogues']) or 'positions'}.{papers}")
        return found

    def papers(self) -> list[str]:
        """Return the bibcodes of all papers to cite."""
        codes = [one["bibcode"] for one in self.archives if one.get("bibcode")]
        codes += [code for one in self.samples for code in one["bibcodes"]]
        return sorted(set(codes))

    def bibtex(self) -> str:
        """Return BibTeX entries of all papers, data sets and software; what is to be acknowledged stands before."""
        known = {paper.bibcode: paper for one in declarations() for paper in one.papers}
        parts = ["\n".join(f"% {line}" for line in self.lines())]
        parts += [known.get(code, Paper(code)).bibtex() for code in self.papers()]
        parts += [_data_set(one) for one in self.archives]
        fields = {
            "author": "{The Lightlake developers}",
            "title": "{Lightlake: every public light curve of your targets, in one Parquet lake}",
            "version": version("lightlake"),
            "note": f"snapshot {self.snapshot} of {self.snapshot_time}",
        }
        parts += [entry("software", "lightlake", fields)]
        parts += [entry("inproceedings", "2019duckdb", {**_DUCKDB, "note": f"version {duckdb.__version__}"})]
        return "\n\n".join(parts) + "\n"


def _data_set(one: Mapping[str, Any]) -> str:
    fields = {
        "title": f"{{{escaped(one['title'])}}}",
        "version": escaped(one["release"]),
        "url": one["endpoint"] or None,
        "license": escaped(one["licence"]),
        "note": escaped(one["acknowledgement"]),
    }
    return entry("misc", f"{one['archive']}-{one['release']}".replace(" ", "-"), fields)


def cite(lake: Lake, query: str | None = None, *, target: Any = None, sample: str | None = None) -> Citation:
    """Find what to cite for the answer to a query, or for the light curves of a target or sample.

    Parameters
    ----------
    lake
        The lake.
    query
        DuckDB's SQL.
    target
        A name, id or SkyCoord.
    sample
        Name of a sample.

    Raises
    ------
    ConfigurationError
        If a name is unknown, or the SQL is wrong.

    Examples
    --------
    >>> with lake.open("my-lake") as opened:
    ...     citation = cite(opened, target="A")
    >>> [one["archive"] for one in citation.archives]
    ['ztf']
    """
    if [query, target, sample].count(None) != 2:
        raise ConfigurationError(
            "it is not clear what is to be cited", hint='give one of: "SQL", --target NAME, --sample NAME'
        )
    with lake.snapshot() as cursor:
        return citation_of(lake, query=query, target=target, sample=sample, within=cursor)


def citation_of(
    lake: Lake,
    *,
    within: duckdb.DuckDBPyConnection,
    query: str | None = None,
    target: Any = None,
    sample: str | None = None,
    found: set[tuple[str, str]] | None = None,
) -> Citation:
    """Find what to cite, in the snapshot of a cursor.

    Parameters
    ----------
    within
        The cursor.
    query, target, sample
        As of `cite`.
    found
        Archives and releases of the light curves of the target or sample, if they are known.
    """
    ask = partial(lake.run, within=within)
    if query is not None:
        lake.check_sql(query)
        read = touched(query.strip().rstrip(";"), ask)
    else:
        check_sample(lake, sample)
        read = _of_targets(target, sample, ask, found)
    rows = {row["archive"]: row for row in ask("FROM archives", None).to_pylist()}
    archives = [
        {**rows.get(archive, _unregistered(archive)), "release": release} for archive, release in sorted(read.archives)
    ]
    (state,) = ask(
        "SELECT snapshot_id, snapshot_time FROM ducklake_snapshots('lake') ORDER BY snapshot_id DESC LIMIT 1", None
    ).to_pylist()
    (lake_id,) = ask("SELECT lake_id FROM schema_version ORDER BY version DESC, applied_at DESC LIMIT 1", None)[
        "lake_id"
    ].to_pylist()
    return Citation(
        archives,
        papers_of_samples(read.samples, ask),
        state["snapshot_id"],
        state["snapshot_time"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lake_id,
        read.is_exact,
    )


def _unregistered(archive: str) -> dict[str, Any]:
    unknown = "the lake does not say"
    return {
        "archive": archive,
        "title": archive,
        "endpoint": None,
        "licence": unknown,
        "acknowledgement": f"{unknown}; see lightlake archives",
        "bibcode": None,
    }


def _of_targets(target: Any, sample: str | None, ask: Any, found: set[tuple[str, str]] | None) -> Touched:
    values: list[Any]
    if sample is not None:
        samples, where, values = [sample], "target_id IN (SELECT target_id FROM labels WHERE sample = ?)", [sample]
    else:
        target_id = target_id_of(target, 1.0, ask)
        samples = ask("SELECT DISTINCT sample FROM labels WHERE target_id = ? ORDER BY ALL", [target_id])[
            "sample"
        ].to_pylist()
        where, values = "target_id = ?", [target_id]
    if found is None:
        rows = ask(f"SELECT DISTINCT archive, release FROM target_lightcurves WHERE {where}", values).to_pylist()
        found = {(row["archive"], row["release"]) for row in rows}
    return Touched(found, set(samples), is_exact=True)


def papers_of_samples(names: Collection[str], ask: Callable[..., pa.Table]) -> list[dict[str, Any]]:
    """Return the papers and catalogues of samples: sample, bibcodes, catalogues."""
    if not names:
        return []
    found: list[dict[str, Any]] = ask(
        "SELECT sample, "
        "coalesce(list(DISTINCT bibcode ORDER BY bibcode) FILTER (bibcode IS NOT NULL), []) AS bibcodes, "
        "coalesce(list(DISTINCT catalogue ORDER BY catalogue) FILTER (catalogue IS NOT NULL), []) AS catalogues "
        "FROM labels WHERE list_contains($names, sample) GROUP BY sample ORDER BY sample",
        {"names": sorted(names)},
    ).to_pylist()
    return found
