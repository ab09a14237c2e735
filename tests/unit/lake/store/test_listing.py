"""Rows that are read by their files are those that DuckLake returns, in every state of a lake."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.granules import committed, positions, register, rows_of, target_ids

from lake.commit.target_changes import remove_targets, rename_target
from lake.errors import ConfigurationError
from lake.light_curves import files_of
from lake.names import target_id_of
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.store.listing import LISTED, OF_NAMES, Listing, TableFiles
from lake.store.lookup import Ranges
from lake.store.storage import Storage
from lake.upkeep.compaction import compact

TARGETS = 30


def questions(opened):
    """Answers of one target, of several, in one cone, in several, and where there is nothing."""
    ra, dec = (float(axis[0]) for axis in positions([4]))
    yield from (opened.light_curve(target) for target in target_ids([0, 4, 29]))
    yield opened.light_curve(target_ids(range(0, TARGETS, 3)))
    yield opened.light_curve("T4", form="pandas")
    yield opened.cone(ra, dec, 5)
    yield opened.cone(ra, dec, 200_000.0)
    yield opened.cone([ra, 0.0, ra], [dec, 89.0, dec], 5)
    yield opened.cone(0.0, 89.0, 5)
    # More ranges than conditions of SQL are written for one by one.
    yield opened.cone(*positions(range(15)), 5)


def check(opened, direct=True):
    """Compare the answers of both ways, and whether files are read directly at all."""
    assert (files_of(opened)[1].keys() >= set(LISTED)) is direct
    with pytest.MonkeyPatch.context() as patch:
        answers = list(questions(opened))
        patch.setattr("lake.light_curves.files_of", lambda opened: (opened.catalog.cursor_outside(), {}))
        for mine, theirs in zip(answers, questions(opened), strict=True):
            assert mine.equals(theirs)
        assert sum(len(answer) for answer in answers) > 0


def test_the_answers_are_those_of_ducklake(lake):
    register(lake.catalog, range(TARGETS))
    committed(lake.catalog, {number: 1 + number % 3 for number in range(20)}, "g0", targets=range(20))
    check(lake)
    committed(lake.catalog, range(15, 28), "g1", archive="wise", release="neo7")
    check(lake)
    # A source that changes leaves a file with a deletion, which only DuckLake follows.
    committed(lake.catalog, {4: 3}, "g2", targets=[4])
    assert "lightcurves" not in files_of(lake)[1]
    check(lake, direct=False)
    compact(lake.catalog)
    check(lake)
    # A release that takes over is another state of the same files.
    committed(lake.catalog, {4: 5}, "g3", release="DR2", targets=[4])
    check(lake)


def test_folders_above_the_lake_say_nothing_of_its_rows(prepared, settings, tmp_path):
    def fill(catalog):
        register(catalog, range(TARGETS))
        committed(catalog, range(20), "g0")

    catalog = prepared(fill)
    catalog.close()
    hostile = tmp_path / "year=2024" / "it's [a] *?" / "lake"
    shutil.copytree(Path(settings.url), hostile)
    with Lake(hostile) as opened:
        check(opened)
        assert set(opened.light_curve(target_ids([4])[0])["archive"].to_pylist()) == {"ztf"}


def test_a_file_that_went_away_meanwhile_is_no_error(lake):
    register(lake.catalog, range(TARGETS))
    committed(lake.catalog, range(20), "g0")
    expected = lake.light_curve(target_ids([4])[0])
    key, tables = lake.listing._kept
    gone = {name: replace(files, paths=files.paths + ".gone") for name, files in tables.items()}
    lake.listing._kept = key, gone
    assert lake.light_curve(target_ids([4])[0]).equals(expected)


def test_a_name_is_looked_up_once_in_a_state_of_the_lake(lake, monkeypatch):
    register(lake.catalog, range(TARGETS))
    committed(lake.catalog, range(20), "g0")
    asked = []
    monkeypatch.setattr("lake.light_curves.target_id_of", lambda *given: asked.append(given[0]) or target_id_of(*given))
    by_id = {number: lake.light_curve(one) for number, one in zip((3, 4), target_ids([3, 4]), strict=True)}
    for name, number in (("T4", 4), ("T4", 4), ("T3", 3)):
        assert lake.light_curve(name).equals(by_id[number])
    assert asked == ["T4", "T3"]
    remove_targets(lake.catalog, "T4")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="T4"):
            lake.light_curve("T4")
    rename_target(lake.catalog, "T3", "T4")
    assert lake.light_curve("T4").equals(by_id[3])


def test_a_commit_while_files_are_listed_does_not_mix_two_states(lake, monkeypatch):
    register(lake.catalog, range(TARGETS))
    committed(lake.catalog, range(20), "g0")
    ask, commits = Listing._ask, iter([{4: 3}, {20: 1}])

    def slow(self, cursor, query, **parts):
        found = ask(self, cursor, query, **parts)
        # Between the list of what was deleted and that of files.
        if "ducklake_delete_file" in query and (sources := next(commits, None)):
            committed(lake.catalog, sources, f"g{min(sources)}", again=1)
        return found

    monkeypatch.setattr(Listing, "_ask", slow)
    curve = lake.light_curve(target_ids([4])[0])
    assert sorted(curve["flux"].to_pylist()) == sorted(flux for _, _, flux in rows_of(4, 3))
    monkeypatch.undo()
    check(lake, direct=False)


def test_another_catalogue_in_the_same_place_is_another_state(prepared, settings, tmp_path):
    def fill(catalog):
        register(catalog, range(TARGETS))
        committed(catalog, range(10), "g0")

    catalog = prepared(fill)
    catalog.close()
    elsewhere = tmp_path / "earlier"
    shutil.copytree(Path(settings.url), elsewhere)
    first = Catalog(Storage.from_url(settings.url), settings)
    committed(first, {14: 1}, "g1")
    first.close()
    other = Catalog(Storage.from_url(str(elsewhere)), settings)
    committed(other, {25: 2}, "g1")
    other.close()
    # As a restored backup: the same number of a snapshot, with other files.
    with Lake(settings.url, settings) as opened:
        before = opened.listing.newest(opened.catalog.cursor_outside())
        opened.close()
        shutil.rmtree(settings.url)
        shutil.copytree(elsewhere, settings.url)
        after = opened.listing.newest(opened.catalog.cursor_outside())
        assert set(before["matches"].paths) != set(after["matches"].paths)
        check(opened)


def test_ranges_choose_the_files_that_meet_them():
    files = TableFiles(
        "hpx29",
        {"hpx29": "BIGINT"},
        np.array(["a", "b", "c"], object),
        np.array([None] * 3, object),
        np.array([0, 10, 20]),
        np.array([9, 19, 29]),
    )

    def chosen(first, last):
        return [name for name in "abc" if f"'{name}'" in files.rows(Ranges(np.array(first), np.array(last)))]

    assert chosen([9], [9]) == ["a"]
    assert chosen([9], [10]) == ["a", "b"]
    assert chosen([-5, 25], [-1, 40]) == ["c"]
    assert chosen([0, 12, 14], [0, 13, 15]) == ["a", "b"]
    assert chosen([30], [40]) == chosen([], []) == []


def test_names_are_found_in_the_files_as_ducklake_finds_them(lake):
    register(lake.catalog, range(TARGETS))
    committed(lake.catalog, range(20), "g0")
    number = target_ids([4])[0]
    asked = ["T4", "t4", "  T4 ", str(number), "t4?", "it's T4", "T4\0", "nothing"]

    def answers():
        lake.listing._named = {}, {}
        for name in asked:
            try:
                yield lake.light_curve(name)
            except ConfigurationError as error:
                yield str(error)

    assert files_of(lake)[1].keys() >= set(OF_NAMES)
    direct = list(answers())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lake.light_curves.files_of", lambda opened: (opened.catalog.cursor_outside(), {}))
        for mine, theirs in zip(direct, answers(), strict=True):
            assert mine == theirs if isinstance(mine, str) else mine.equals(theirs)
    assert "no target is named 'T4\\x00'" in direct[6]
    with pytest.raises(ConfigurationError, match="not in the lake, 1 of 2 targets"):
        lake.light_curve(["T4", "T4\0"])
    assert [isinstance(answer, str) for answer in direct] == [False, False, False, False, True, True, True, True]


def test_no_pandas_is_imported_for_a_light_curve(lake):
    """Which takes longer than the answer."""
    register(lake.catalog, range(TARGETS))
    committed(lake.catalog, range(20), "g0")
    ra, dec = (float(axis[0]) for axis in positions([4]))
    code = (
        f"import sys; from lake.query import Lake; opened = Lake({str(lake.storage.root)!r}); "
        f"print(opened.light_curve('T4').num_rows, opened.light_curve({target_ids([3, 4])}, band='g').num_rows, "
        f"opened.cone({ra}, {dec}, 5, good=True).num_rows, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *rows, has_pandas = done.stdout.split()
    assert has_pandas == "False"
    assert min(map(int, rows)) > 0
