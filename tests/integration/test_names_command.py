"""Targets by name, as a user types it: added, found by all of their names, and asked for once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.names import Services
from helpers.processes import Run

from deployments.sandbox import sesame, simbad
from deployments.sandbox.server import Sandbox
from deployments.sandbox.sesame import PATH
from deployments.sandbox.simbad import TAP_PATH
from lake import open as open_lake
from lake.errors import ArchiveError, ConfigurationError
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from tasks.sources.observed import check_target, target_of

LIST = "# quasars and others\n3C 273\nEta Car\n\nNGC 6079\nSDSS J015957.64+003310.4\nGJ 699\n"


@pytest.fixture
def here(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake that needs no --lake."""
    monkeypatch.setenv("LIGHTLAKE_URL", str(catalog.storage.root))
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "1")
    return Path(str(catalog.storage.root))


def rows(query: str) -> list[dict[str, Any]]:
    with open_lake() as opened:
        found: list[dict[str, Any]] = opened.sql(query).to_pylist()
    return found


def everything() -> list[list[dict[str, Any]]]:
    return [rows(f"FROM {name} ORDER BY ALL") for name in ("targets", "labels", "aliases")]


def test_a_list_of_names(run: Run, here: Path, services: Services) -> None:
    Path("names.txt").write_text(LIST)
    done = run("targets", "add", "names.txt", "--sample", "s")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("5 rows of names.txt: 5 new targets, 0 known, 5 new labels\n")
    assert rows("SELECT name, row_in_catalogue, catalogue FROM labels ORDER BY 2") == [
        {"name": name, "row_in_catalogue": row, "catalogue": "names.txt"}
        for row, name in enumerate(["3C 273", "Eta Car", "NGC 6079", "SDSS J015957.64+003310.4", "GJ 699"], 1)
    ]
    assert rows("SELECT name, ref_epoch, round(pm_ra) AS pm FROM targets WHERE pm_ra IS NOT NULL ORDER BY 1") == [
        {"name": "Eta Car", "ref_epoch": 2000.0, "pm": -11.0},
        {"name": "GJ 699", "ref_epoch": 2000.0, "pm": -802.0},
    ]
    with open_lake() as opened:
        for name in ("PG 1226+023", "pg 1226+023", "QSO B1226+0219", "3C 273"):
            assert len(opened.light_curve(name)) == 0
            assert opened.target_id(name) == opened.target_id("3C 273")
    # Again, by a command without services: nothing is asked for, and nothing changes.
    before = everything()
    services.stop()
    again = run("targets", "add", "names.txt", "--sample", "s")
    assert again.code == 0, again.err
    assert "0 new targets, 5 known, 0 new labels" in again.out
    assert everything() == before
    # What the lake has needs no list either.
    assert run("targets", "add", "PG 1226+023", "--sample", "t").code == 0
    assert rows("SELECT count(*) AS n FROM targets") == [{"n": 5}]
    assert run("targets", "rename", "hd 93308", "homunculus").code == 0
    removed = run("targets", "remove", "[HB89] 1226+023")
    assert (removed.code, removed.out.split(",")[0]) == (0, "removed 1 target")
    assert run("targets", "remove", "[HB89] 1226+023").code == 2
    checked = run("verify")
    assert checked.code == 0, checked.out


def test_names_as_arguments(run: Run, here: Path, services: Services) -> None:
    done = run("targets", "add", "3C 273", "Mrk 421", "--sample", "s")
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 names: 2 new targets, 0 known, 2 new labels")
    assert rows("SELECT DISTINCT catalogue, row_in_catalogue FROM labels") == [
        {"catalogue": None, "row_in_catalogue": None}
    ]
    assert "1 name: 0 new targets, 1 known, 0 new labels" in run("targets", "add", "3C 273", "--sample", "s").out
    exported = run("targets", "export", "out.csv")
    assert (exported.code, exported.out) == (0, "out.csv: 2 targets in 2 rows\n"), "other names are not those of lists"
    refused = run("targets", "add", "quasars.csv", "--sample", "s")
    assert (refused.code, "does not exist" in refused.err) == (2, True)


def test_unknown_names_are_bad_rows(run: Run, here: Path, services: Services) -> None:
    Path("names.txt").write_text("3C 273\nno such thing\n\nNGC 3642\nK Tau\n")
    before = everything()
    done = run("targets", "add", "names.txt", "--sample", "s")
    assert done.code == 2
    assert [line.partition(": ")[0] for line in done.out.splitlines()] == ["names.txt:2", "names.txt:4"]
    assert "2 of 4 rows of names.txt are bad; nothing was added" in done.err
    assert everything() == before
    shown = run("targets", "add", "names.txt", "--sample", "s", "--dry-run")
    assert (shown.code, "2 rows of names.txt are sound, 2 are bad" in shown.out) == (1, True)
    assert everything() == before
    assert run("targets", "add", "names.txt", "--sample", "s", "--skip-bad").code == 0
    assert Path("names.txt.bad.csv").read_text().splitlines()[1].startswith("2,")
    assert {row["name"] for row in rows("FROM targets")} == {"3C 273", "K Tau"}
    alone = run("targets", "add", "no such thing", "--sample", "s")
    assert (alone.code, "1 of 1 row of the names are bad" in alone.err) == (2, True)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (TAP_PATH, "status:503"),
        (PATH, "garbage"),
        pytest.param(TAP_PATH, "reset", marks=pytest.mark.long),
        pytest.param(PATH, "truncate", marks=pytest.mark.long),
    ],
)
def test_a_service_that_dies_in_the_middle_adds_nothing(
    run: Run, here: Path, services: Services, path: str, kind: str
) -> None:
    Path("names.txt").write_text(LIST)
    assert run("targets", "add", "Mrk 421", "--sample", "s").code == 0
    before = everything()
    # It answers once, and then no more.
    services.box.fault(path, "slow")
    services.box.fault(path, kind, times=20)
    done = run("targets", "add", "names.txt", "--sample", "s", "--skip-bad")
    assert done.code == 2
    assert done.err.startswith("lightlake: simbad: " if path == TAP_PATH else "lightlake: sesame: ")
    assert services.box.url(path).rstrip("/") in done.err
    assert everything() == before
    assert not Path("names.txt.bad.csv").exists()


def test_names_are_looked_up_again_on_request(run: Run, here: Path, services: Services) -> None:
    services.sesame.objects["N"]["sn 2030x"] = "%J 10.12345 +20.12345 = 00:40:29 +20:07:24\n%I.0 SN 2030X"
    assert run("targets", "add", "SN 2030x", "--sample", "s").code == 0
    services.sesame.objects["N"]["sn 2030x"] = "%J 10.12400 +20.12345 = 00:40:29 +20:07:24\n%I.0 SN 2030X"
    assert run("targets", "add", "SN 2030x", "--sample", "s").code == 0
    assert rows("SELECT ra FROM aliases") == [{"ra": 10.12345}]
    assert run("targets", "add", "SN 2030x", "--sample", "s", "--again", "--match-radius", "5").code == 0
    assert rows("SELECT ra FROM aliases") == [{"ra": 10.124}]
    assert rows("SELECT ra FROM targets") == [{"ra": 10.12345}], "a target stays where it is"


# --- pulls of one target ---


def test_a_survey_takes_a_name(here: Path, services: Services) -> None:
    with Lake(here, load_settings(), writable=True) as lake:
        assert check_target(lake, "Eta Car") == "Eta Car is * eta Car by SIMBAD, at 161.26477 -59.68443"
        assert check_target(lake, "161.26477 -59.68443") is None
        assert lake.sql("FROM targets").num_rows == 0
        assert lake.sql("FROM aliases").num_rows > 0
        services.stop()
        (star,) = target_of(lake, "Eta Car", "survey").to_pylist()
        assert (star["name"], star["ref_epoch"], star["pm_ra"]) == ("Eta Car", 2000.0, -11.0)
        assert lake.sql("SELECT sample, name FROM labels").to_pylist() == [{"sample": "survey", "name": "Eta Car"}]
        for name in ("Eta Car", "HD 93308", "hd 93308", "161.26477 -59.68443"):
            assert target_of(lake, name, "survey")["target_id"].to_pylist() == [star["target_id"]]
        assert lake.sql("FROM targets").num_rows == 1


def test_a_survey_refuses_a_name_that_nobody_knows(here: Path, services: Services) -> None:
    with Lake(here, load_settings(), writable=True) as lake:
        target_of(lake, "3C 273", "survey")
        before = lake.sql("FROM targets")
        for one in (check_target, lambda lake, name: target_of(lake, name, "survey")):
            with pytest.raises(ConfigurationError, match="SIMBAD, NED and VizieR know no such name") as caught:
                one(lake, "3C 2733")
            assert "did you mean 3C 273?" in str(caught.value)
        assert lake.sql("FROM targets") == before
        services.stop()
        with pytest.raises(ArchiveError) as away:
            check_target(lake, "3C 2733")
        assert str(away.value.hint).startswith("no target is named '3C 2733'")


@pytest.mark.usefixtures("pull_settings")
def test_photons_of_a_name(run: Run, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HST by a name that the lake does not have: found, matched, and no row of HST's names is taken for an object."""
    quasar = next(one for one in simbad.KNOWN if one.names[0] == "3C 273")
    with Sandbox.start(
        tmp_path / "box", archives=["hst", "sesame"], seed=4, scale=0.02, targets=[(quasar.ra, quasar.dec)]
    ) as box:
        for name in ("hst", "simbad", "sesame"):
            monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", box.endpoints[name])
        monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "cache"))
        for name in ("lref", "oref"):
            monkeypatch.delenv(name, raising=False)
        done = run("hst", "3C 273", "--local")
        assert done.code == 0, done.err
        assert done.out.startswith("3C 273 is 3C 273 by SIMBAD, at 187.27792 +2.05239\n")
        n = len(box.requests)
        assert run("hst", "PG 1226+023", "--local").code == 0
        assert not [one for one in box.requests[n:] if "sim" in one.path or sesame.PATH in one.path]
    assert rows(
        "SELECT name, status, sample FROM coverage JOIN targets USING (target_id) JOIN labels USING (name)"
    ) == [{"name": "3C 273", "status": "found", "sample": "hst_timetag"}]
    methods = {row["method"] for row in rows("FROM aliases")}
    assert {"identifier", "other_name"} < methods
    own = rows("FROM aliases WHERE method IN ('identifier', 'other_name') ORDER BY ALL")
    assert {row["target_id"] is None for row in rows("FROM aliases WHERE ra IS NULL")} == {True}
    assert run("hst", "reset", "aliases", "--yes").code == 0
    assert rows("FROM aliases ORDER BY ALL") == own
    plotted = run("plot", "PG 1226+023", "--to", "page.html")
    assert plotted.code == 0, plotted.err
