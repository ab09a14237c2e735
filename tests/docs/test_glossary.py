"""The glossary has the words of the tables and of the project, each once and in order."""

from __future__ import annotations

import re
from pathlib import Path

from lake.model.schema import TABLES

DOCS = Path(__file__).parents[2] / "docs"
GLOSSARY = (DOCS / "explanation" / "glossary.md").read_text()
TERMS = re.findall(r"^## (.*)$", GLOSSARY, re.MULTILINE)
WORDS = {word.lower() for term in TERMS for word in term.split(", ")}

# What a reader of the tables' descriptions must know.
OURS = (
    "target", "sample", "label", "archive", "survey", "alias", "source", "match", "rank", "release", "cadence",
    "granule", "band", "exposure", "coverage", "ledger", "run", "claim", "quarantine", "snapshot", "good", "detected",
    "quality", "mjd", "bmjd_tdb", "flux", "unit", "ucd", "zero point", "hpx29", "schema version", "staging", "rejected",
    "plain tree", "composite", "statistics", "endpoint", "catalogue", "event",
)  # fmt: skip
# Tables that keep records of the lake itself.
KEPT = {"targets", "labels", "aliases", "sources", "matches", "exposures", "coverage", "ledger", "runs", "statistics",
        "archives", "bands"}  # fmt: skip


def test_every_word_is_in_it() -> None:
    assert [word for word in OURS if word not in WORDS] == []


def test_what_the_tables_hold_is_in_it() -> None:
    assert set(TABLES) >= KEPT
    singular = {"statistics": "statistics", "matches": "match", "aliases": "alias"}
    names = {singular.get(name, name.removesuffix("s")) for name in KEPT}
    assert names <= WORDS


def test_words_of_descriptions_that_are_ours_are_in_it() -> None:
    text = " ".join(column.description for table in TABLES.values() for column in table.columns).lower()
    used = {word for word in WORDS if re.search(rf"\b{re.escape(word)}s?\b", text)}
    assert len(used) > 20  # they are the words that the tables use


def test_they_are_in_order_and_once() -> None:
    assert len(set(TERMS)) == len(TERMS)
    assert sorted(TERMS, key=str.lower) == TERMS


def test_each_is_short() -> None:
    for entry in GLOSSARY.split("\n## ")[1:]:
        term, text = entry.split("\n", 1)
        assert 5 < len(text.split()) < 70, term
