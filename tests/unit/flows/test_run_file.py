"""Files that describe a run: our keys, those of the collector's helper, what goes before what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.forms import RunOptions
from flows.run_file import read_run, run_text, write_run
from flows.run_names import archives_of, core
from flows.run_steps import checked
from lake.errors import ConfigurationError
from tasks.sources.registry import known


def read(tmp_path: Path, written: str, **more: Any) -> tuple[RunOptions, list[str]]:
    file = tmp_path / "run.yml"
    file.write_text(written)
    return read_run(file, **more)


# --- the helper's own files ---


def test_the_extended_example_is_read_as_it_is(cases_dir: Path) -> None:
    run, notes = read_run(cases_dir / "runs" / "extended-example.yml")
    assert run.run_id == "extended-example"
    assert run.samples == [
        {"green22": {}},
        {"ruan16": {}},
        {"paper": {"paper": "2022ApJ...933...37W", "label": "Galex variable 22"}},
        {"paper": {"paper": "2020ApJ...896...10B", "label": "Palomar variable 20"}},
        {"sdss": {"num": 10, "zmin": 0.5, "zmax": 2, "seed": 0}},
        {"ztf_names": {"oids": ["ZTF18aabtxvd", "ZTF18aahqkbt", "ZTF18abxftqm", "ZTF18acaqdaa"]}},
    ]
    assert run.match_radius_arcsec == 0
    assert sorted(run.archives or ()) == core() == ["fermigtrig", "gaia", "icecube", "saxgrbmgrb", "wise", "ztf"]
    # Degrees of Gaia and ZTF are 2 arcsec, exactly, or every target would be asked again.
    assert run.parameters == {
        "gaia": {"radius_arcsec": 2.0},
        "fermigtrig": {"max_error_radius_deg": 1.0},
        "saxgrbmgrb": {"max_error_radius_deg": 3.0},
        "icecube": {"max_search_radius_deg": 2.0},
        "wise": {"radius_arcsec": 1.5},
        "ztf": {"radius_arcsec": 2.0},
    }
    assert [note.partition(":")[0] for note in notes] == [
        "IceCube.icecube_select_topN",
        "WISE.bandlist",
        "ZTF.nworkers",
    ]
    assert checked(run) == run.archives


def test_the_large_example_is_read_as_it_is(cases_dir: Path) -> None:
    run, notes = read_run(cases_dir / "runs" / "large.json", archives=["core"])
    assert (run.run_id, run.samples, run.parameters) == ("SDSS-500k", [{"sdss": {"num": 500_000}}], None)
    assert run.archives == core()
    assert [note.partition(":")[0] for note in notes] == ["ZTF.nworkers"]
    assert read_run(cases_dir / "runs" / "large.json")[0].archives == ["ztf"]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("consolidate_nearby_objects: true", "match_radius_arcsec", 18.0),
        ("Consolidate_Nearby_Objects: false", "match_radius_arcsec", 0.0),
        ("run_id: a", "match_radius_arcsec", 1.0),
        ("overwrite_existing_sample: false", "keep_samples", True),
        ("overwrite_existing_lightcurves: true", "again", True),
        ("overwrite_existing_lightcurves: false", "again", False),
        ("get_samples: [Yang, {SDSS: {num: 3}}]", "samples", [{"yang18": {}}, {"sdss": {"num": 3}}]),
        ("samples: {GREEN: null}", "samples", [{"green22": {}}]),
        ("archives: [GAIA, ztf]", "archives", ["gaia", "ztf"]),
        ("archives: core", "archives", core()),
        ("archives: [Panstarrs]\nsamples:\n- lake: {sample: mine}", "samples", [{"lake": {"sample": "mine"}}]),
        ("archives: {HCV: {radius: 0.001}}", "parameters", {"hcv": {"radius_arcsec": 3.6}}),
        ("archives: {ZTF: {radius: 2}}", "parameters", {"ztf": {"radius_arcsec": 2.0}}),
        (
            "archives: {HEASARC: {catalog_constraints: {FERMIGTRIG: '0.5', icecubepsc: {max_search_radius: 1}}}}",
            "parameters",
            {"fermigtrig": {"max_error_radius_deg": 0.5}, "icecubepsc": {"max_search_radius_deg": 1.0}},
        ),
    ],
)
def test_keys_of_either_kind_mean_the_same(tmp_path: Path, text: str, key: str, value: Any) -> None:
    assert getattr(read(tmp_path, text)[0], key) == value


def test_a_path_in_a_file_is_seen_from_that_file(tmp_path: Path) -> None:
    run, _ = read(tmp_path, "samples: [{file: {path: mine.csv, sample: mine}}]")
    assert run.samples == [{"file": {"path": str(tmp_path / "mine.csv"), "sample": "mine"}}]


# --- what goes before what ---


def test_later_words_go_before_earlier_ones_and_samples_and_archives_are_joined(tmp_path: Path) -> None:
    text = "run_id: a\nget_samples: {SDSS: {num: 10}, Yang: {}}\narchives: {gaia: {radius_arcsec: 3}}\nagain: true"
    more = {"run_id": "b", "get_samples": {"sdss": {"num": 5}, "Green": {}}, "archives": {"WISE": {"radius": 2}}}
    run, _ = read(
        tmp_path, text, text=json.dumps(more), settings=["samples.SDSS.zmin=1", "archives.gaia.radius_arcsec=4"]
    )
    assert run.run_id == "b"
    assert run.again
    assert run.samples == [{"yang18": {}}, {"sdss": {"num": 5, "zmin": 1}}, {"green22": {}}]
    assert run.archives == ["gaia", "wise"]
    assert run.parameters == {"gaia": {"radius_arcsec": 4}, "wise": {"radius_arcsec": 2.0}}
    narrow, notes = read(tmp_path, text, archives=["ztf"])
    assert (narrow.archives, narrow.parameters) == (["ztf"], None)
    assert notes == ["parameters of gaia: not asked in this run"]
    assert read(tmp_path, text, settings=["archives=[hcv]"])[0].archives == ["hcv"]


def test_a_file_that_names_no_archive_asks_all(tmp_path: Path) -> None:
    run, _ = read(tmp_path, "run_id: a\nnworkers: 8")
    assert run.archives is None
    assert checked(run) == sorted(known())
    assert archives_of("All") == sorted(known())


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("archves: [gaia]", "archives"),
        ("get_sample: [Yang]", "get_samples"),
        ("archives: [giaa]", "gaia"),
        ("archives: {gaia: {serch_radius: 1}}", "search_radius"),
        ("samples: [green2]", "green22"),
        ("samples: {sdss: {number: 3}}", "num"),
        ("consolidate_nearby_objects: perhaps", "true or false"),
        ("archives: {gaia: {search_radius: far}}", "number"),
        ("archives: {gaia: {radius_arcsec: wide}}", "1.0"),
        ("run_id: a/b", "letters"),
        ("match_radius_arcsec: -1", "greater than or equal to 0"),
        ("again: true\nretry_failed: true", "again"),
        ("samples: [{lake: {}}]", "lake"),
        ("release: {gaia: DR9}", "release"),
        ("- a list", "run_id"),
        ("{a: [}", "line"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_nearest(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        checked(read(tmp_path, text)[0])
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", ["run_id", "=1", "again.x=1", "run_id=[", "rn_id=a"])
def test_a_setting_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError):
        read_run(settings=[setting])


# --- written, and read back ---

_numbers = st.floats(0.01, 100, allow_nan=False)
_parameters = st.fixed_dictionaries(
    {},
    optional={
        "gaia": st.fixed_dictionaries({"radius_arcsec": _numbers}),
        "icecube": st.fixed_dictionaries({"max_search_radius_deg": st.floats(0.1, 10)}),
    },
)
_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
_samples = st.lists(
    st.one_of(
        st.just({"green22": {}}),
        st.builds(lambda n, label: {"sdss": {"num": n, "label": label}}, st.integers(1, 10**6), _words),
        st.builds(lambda label: {"paper": {"paper": "2018ApJ...862..109Y", "label": label}}, _words),
        st.builds(lambda name: {"lake": {"sample": name}}, _words),
        st.builds(lambda oids: {"ztf_names": {"oids": oids}}, st.lists(_words, min_size=1, max_size=3)),
    ),
    max_size=4,
)
_runs = st.builds(
    RunOptions,
    run_id=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True),
    samples=st.none() | _samples,
    keep_samples=st.booleans(),
    match_radius_arcsec=st.floats(0, 1000),
    archives=st.none()
    | st.lists(st.sampled_from(sorted(known())), unique=True, min_size=1).map(
        lambda names: list(dict.fromkeys([*names, "gaia", "icecube"]))
    ),
    parameters=_parameters,
    release=st.none() | st.just({"gaia": "newest"}),
    again=st.booleans(),
    retry_failed=st.booleans(),
)


@given(run=_runs)
def test_any_run_that_is_written_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, run: RunOptions) -> None:
    file = tmp_path_factory.mktemp("written") / "run.yml"
    write_run(run, file)
    assert read_run(file) == (run, [])


def test_a_written_run_explains_each_key() -> None:
    lines = run_text(RunOptions()).splitlines()
    for name in RunOptions.model_fields:
        place = next(number for number, line in enumerate(lines) if line.startswith(f"{name}:"))
        assert lines[place - 1].startswith("# ")
