"""Which file of a target and sector is taken: by author, by cadence, by version, and never two for one band."""

from __future__ import annotations

from collections import Counter

import pytest
from helpers.mast import KINDS, name_of
from hypothesis import given
from hypothesis import strategies as st

from tasks.sources.tess_kepler.mast_choice import AUTHORS, choose, source_of
from tasks.sources.tess_kepler.mast_files import Found
from tasks.sources.tess_kepler.mast_products import PIPELINES, named

TIC, EPIC = 25155310, 211436265


def found(name: str) -> Found:
    what = named(name)
    assert what is not None
    return Found(f"mast:{name}", name, what)


def chosen(*names: str, authors: list[str] | None = None, **more: object) -> list[str]:
    return [file.name for file in choose(map(found, names), authors or list(AUTHORS), **more)]  # type: ignore[arg-type]


def tess(kind: str, sector: int = 1) -> str:
    return name_of(kind, TIC, sector)


def k2(kind: str, campaign: int = 5) -> str:
    return name_of(kind, EPIC, campaign)


def test_every_pipeline_is_an_author() -> None:
    assert {pipeline.name for pipeline in AUTHORS.values()} == set(PIPELINES)
    assert list(AUTHORS) == ["SPOC", "TESS-SPOC", "QLP", "Kepler", "K2", "EVEREST", "K2SFF"]


def test_the_first_author_who_has_a_sector_is_taken() -> None:
    files = [tess("qlp"), tess("tess_spoc"), tess("spoc"), tess("qlp", 2), tess("tess_spoc", 2), tess("qlp", 3)]
    assert chosen(*files) == [tess("spoc"), tess("tess_spoc", 2), tess("qlp", 3)]
    assert chosen(*files, authors=["QLP", "SPOC"]) == [tess("qlp"), tess("qlp", 2), tess("qlp", 3)]
    assert chosen(*files, authors=["SPOC"]) == [tess("spoc")]
    assert chosen(k2("k2sff"), k2("everest"), k2("k2"), k2("k2sff", 6), k2("everest", 6), k2("k2sff", 7)) == [
        k2("k2"),
        k2("everest", 6),
        k2("k2sff", 7),
    ]


def test_cadences() -> None:
    usual, fast = tess("spoc"), tess("spoc").replace("s_lc", "a_fast-lc")
    alone = tess("spoc", 2).replace("s_lc", "a_fast-lc")
    assert chosen(usual, fast, alone) == [usual, alone]
    assert chosen(usual, fast, tess("spoc", 3), tess_cadence_s=20) == [fast, tess("spoc", 3)]
    # The author comes first: 20 s of SPOC rather than full frames.
    assert chosen(alone, tess("tess_spoc", 2)) == [alone]
    long = [f"kplr002556081-{stamp}_llc.fits" for stamp in ("2009166043257", "2009259160929")]
    short = [f"kplr002556081-{stamp}_slc.fits" for stamp in ("2009201121230", "2009231120729")]
    assert chosen(*long, *short) == long
    assert chosen(*long, *short, kepler_cadence="short") == short
    minute = f"ktwo{EPIC}-c05_slc.fits"
    assert chosen(k2("k2"), minute, k2("k2sff", 6)) == [k2("k2"), k2("k2sff", 6)]
    assert chosen(k2("k2"), minute, k2("k2sff", 6), kepler_cadence="short") == [minute]
    everest = f"hlsp_everest_k2_slc_{EPIC}-c05_kepler_v2.0_lc.fits"
    assert chosen(k2("everest"), everest, kepler_cadence="short") == [everest]


def test_versions_and_files_that_are_listed_twice() -> None:
    again = tess("qlp").replace("v01", "v02")
    assert chosen(again, tess("qlp"), again) == [again]
    packed = tess("spoc") + ".gz"
    assert len(chosen(tess("spoc"), packed)) == 1
    # Both halves of a campaign.
    halves = [f"ktwo{EPIC}-c{half}_llc.fits" for half in (91, 92)]
    assert chosen(*reversed(halves)) == halves


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 2), st.integers(1, 4)), max_size=20),
    st.permutations(list(AUTHORS)),
    st.integers(1, len(AUTHORS)),
    st.randoms(),
)
def test_nothing_has_two_files_and_order_does_not_matter(
    files: list[tuple[str, int, int]], order: list[str], n: int, random: object
) -> None:
    names = [name_of(*file) for file in files]
    authors = order[:n]
    taken = choose(map(found, names), authors)
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(map(found, shuffled), authors) == taken
    keys = Counter((source_of(file.named), file.named.sequence) for file in taken)
    assert set(keys.values()) <= {1}
    allowed = {AUTHORS[author].name: place for place, author in enumerate(authors)}
    there = {
        (source_of(one.named), one.named.sequence) for one in map(found, names) if one.named.pipeline.name in allowed
    }
    assert set(keys) == there
    for file in taken:
        rivals = [
            one
            for one in map(found, names)
            if source_of(one.named) == source_of(file.named) and one.named.sequence == file.named.sequence
        ]
        ranks = [allowed[one.named.pipeline.name] for one in rivals if one.named.pipeline.name in allowed]
        assert allowed[file.named.pipeline.name] == min(ranks)
    assert taken == sorted(taken, key=lambda file: source_of(file.named))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unwanted_author_is_never_taken(kind: str) -> None:
    authors = [author for author, pipeline in AUTHORS.items() if pipeline.name != kind]
    assert chosen(name_of(kind), authors=authors) == []
    assert chosen(name_of(kind)) == [name_of(kind)]
