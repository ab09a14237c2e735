"""What to cite for an answer: no archive that gave a row is missed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.every_archive import every_origin, filled_lake
from helpers.profiles import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.errors import ConfigurationError
from lake.export.citations import Citation, cite
from lake.model.declared import declarations
from lake.model.papers import Paper
from lake.query import Lake
from lake.store.catalog import Catalog

ALL = {origin.name for origin in every_origin()}


@pytest.fixture(scope="module")
def lake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The lake, for all tests: they only read it."""
    with filled_lake(template, tmp_path_factory.mktemp("citations") / "lake") as opened:
        yield opened


def archives(citation: Citation) -> set[str]:
    return {one["archive"] for one in citation.archives}


@pytest.mark.parametrize(
    ("query", "named", "is_exact"),
    [
        ("FROM target_lightcurves", ALL, True),
        (
            "SELECT avg(flux) FROM target_lightcurves WHERE archive IN ('ztf', 'wise') GROUP BY band",
            {"ztf", "wise"},
            True,
        ),
        ("SELECT t.flux FROM target_lightcurves AS t WHERE t.unit = 'GeV'", {"icecube", "icecubepsc"}, True),
        (
            "FROM lightcurves JOIN sources USING (archive, source_id) WHERE mag IS NOT NULL AND band = 'G'",
            {"gaia"},
            True,
        ),
        ("FROM lightcurves SEMI JOIN (FROM bands WHERE archive = 'ztf') USING (archive, band)", {"ztf"}, True),
        ("FROM lightcurves WHERE band IN (SELECT band FROM bands WHERE archive = 'ztf')", {"ztf"}, True),
        ("SELECT 2 * flux AS f FROM lightcurves WHERE archive = 'ztf' AND f > -99", {"ztf"}, False),
        ("WITH a AS (FROM lightcurves) SELECT count(*) FROM a WHERE archive = 'ztf'", {"ztf"}, False),
        (
            "FROM lightcurves WHERE archive = 'ztf' UNION ALL FROM lightcurves WHERE archive = 'wise'",
            {"ztf", "wise"},
            False,
        ),
        ("SELECT archive, (SELECT max(flux) FROM lightcurves) FROM sources WHERE archive = 'ztf'", ALL, False),
        ("FROM sources WHERE archive = 'ztf' AND source_id IN (SELECT source_id FROM matches)", ALL, False),
        ("FROM sources ANTI JOIN matches USING (source_id)", ALL, False),
        ("FROM fornax", ALL, False),
        ("FROM virac", {"virac"}, False),
        ("FROM cone(10, -30, 5)", ALL, False),
        ("SELECT count(*) FROM lightcurves", ALL, True),
        ("SELECT (SELECT count(*) FROM lightcurves) AS n, count(*) FROM targets", ALL, False),
        ("FROM targets JOIN labels USING (target_id)", set(), True),
        ("SELECT 1", set(), True),
    ],
)
def test_archives_of_a_query(lake: Lake, query: str, named: set[str], is_exact: bool) -> None:
    found = cite(lake, query)
    assert archives(found) == named
    assert found.is_exact == is_exact


PARTS = list(
    product(
        ("lightcurves", "target_lightcurves", "sources", "decimated", "(FROM lightcurves)"),
        (
            "true",
            "archive = 'ztf'",
            "archive <> 'ztf'",
            "release = '1' AND archive LIKE 'h%'",
            "archive IN ('ztf', 'x')",
        ),
        ("SELECT *", "SELECT DISTINCT archive", "SELECT archive, count(*)"),
        ("", "LIMIT 3"),
    )
)


@given(one=st.sampled_from(PARTS))
@settings(max_examples=examples(12))
def test_no_archive_of_the_rows_is_missed(lake: Lake, one: tuple[str, str, str, str]) -> None:
    source, condition, columns, limit = one
    groups = "GROUP BY archive" if "count" in columns else ""
    query = f"{columns} FROM {source} WHERE {condition} {groups} {limit}"
    assert set(lake.sql(query)["archive"].to_pylist()) <= archives(cite(lake, query))


def test_samples_of_a_query(lake: Lake) -> None:
    def samples(query: str) -> list[str]:
        return [one["sample"] for one in cite(lake, query).samples]

    assert samples("FROM target_lightcurves JOIN labels USING (target_id) WHERE sample = 'test'") == ["test"]
    assert samples("FROM target_lightcurves JOIN labels USING (target_id) WHERE sample = 'other'") == []
    assert samples("FROM fornax") == ["test"]
    assert samples("FROM target_lightcurves SEMI JOIN (FROM target_names WHERE name = 'T0') USING (target_id)") == []


def test_a_citation_has_papers_data_software_and_snapshot(lake: Lake) -> None:
    found = cite(lake, target="T0")
    assert archives(found) == ALL
    assert [one["sample"] for one in found.samples] == ["test"]
    snapshot = lake.sql("FROM ducklake_current_snapshot('lake')").to_pylist()[0]["id"]
    assert found.snapshot == snapshot
    text = found.bibtex()
    entries = re.findall(r"^@(\w+)\{(\S+),$", text, re.MULTILINE)
    codes = {origin.bibcode for origin in every_origin() if origin.bibcode}
    assert {key for kind, key in entries if kind == "article"} == codes
    assert {key for kind, key in entries if kind == "misc"} == {f"{name}-1" for name in ALL}
    assert {"lightlake", "2019duckdb"} <= {key for _, key in entries}
    assert text.count("{") == text.count("}") + text.count(r"\{") - text.count(r"\}")
    for origin in every_origin():
        assert any(origin.acknowledgement in line and origin.licence.rstrip(".") in line for line in found.lines())
    assert cite(lake, sample="test").archives == found.archives


def test_what_is_to_be_cited_must_be_known(lake: Lake) -> None:
    for wrong in ({"target": "nobody"}, {"sample": "nothing"}, {"query": "SELECT nonsense"}, {}):
        with pytest.raises(ConfigurationError):
            cite(lake, **wrong)


def test_bibcodes_give_year_journal_volume_and_page() -> None:
    def fields(bibcode: str) -> dict[str, str]:
        return dict(re.findall(r"^  (\w+) = \{(.*?)\},?$", Paper(bibcode).bibtex(), re.MULTILINE))

    known = {
        "2019PASP..131a8003M": (r"\pasp", "2019", "131", "018003"),
        "2015JATIS...1a4003R": ("JATIS", "2015", "1", "014003"),
        "2023A&A...674A...1G": (r"\aap", "2023", "674", "A1"),
        "2025MNRAS.536.3707S": (r"\mnras", "2025", "536", "3707"),
        "2006ApJS..163..401J": (r"\apjs", "2006", "163", "401"),
        "2005ApJ...622L..33R": (r"\apj", "2005", "622", "L33"),
    }
    for bibcode, expected in known.items():
        found = fields(bibcode)
        assert tuple(found[name] for name in ("journal", "year", "volume", "pages")) == expected
    assert fields("2016arXiv161205560C")["eprint"] == "1612.05560"
    assert "%26" in fields("2023A&A...674A...1G")["adsurl"]
    assert fields("nonsense")["adsurl"].endswith("/nonsense")


def test_every_paper_of_an_archive_has_authors_and_title() -> None:
    papers = {paper.bibcode: paper for one in declarations() for paper in one.papers}
    assert set(papers) == {origin.bibcode for origin in every_origin() if origin.bibcode}
    assert all(paper.authors and paper.title for paper in papers.values())


def test_an_archive_that_the_lake_does_not_describe_is_named(catalog: Catalog) -> None:
    from helpers.granules import committed, register

    register(catalog, [0])
    committed(catalog, [0])
    with Lake(str(catalog.storage.root), catalog.settings) as lake:
        assert archives(cite(lake, target="T0")) == {"ztf"}
        assert isinstance(lake.sql("SELECT 1"), pa.Table)
