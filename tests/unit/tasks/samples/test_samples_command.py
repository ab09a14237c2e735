"""The command `samples`: what it lists, and what it adds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.literature import YANG, Literature

from deployments.sandbox.server import Sandbox
from lake.errors import ArchiveError, ConfigurationError
from lake.store.catalog import Catalog
from tasks.samples.cli import samples
from tasks.samples.literature import LITERATURE


@pytest.fixture(scope="module")
def services(data_dir: Path) -> Iterator[Literature]:
    with Sandbox() as box:
        made = Literature(box, data_dir)
        yield made
        made.close()


@pytest.fixture
def lake(services: Literature, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, url in services.endpoints.items():
        monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", url)
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
    return str(catalog.storage.root)


def run(*arguments: str) -> Any:
    return samples(list(arguments), result_action="return_value", print_error=False, exit_on_error=False)


def test_the_list_has_what_a_user_chooses_by(capsys):
    assert run("--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == LITERATURE.keys()
    row = rows["macleod19"]
    assert (row["bibcode"], row["service"], row["label"]) == ("2019ApJ...874....8M", "vizier", "MacLeod 19")
    assert (row["expected"], row["seen"]) == (17, "2026-11-28")
    assert run() == 0
    text = capsys.readouterr().out
    assert all(key in text for key in LITERATURE)


def test_samples_papers_quasars_and_names_are_added(lake, catalog, services, capsys):
    oids = list(services.alerce.objects)[:2]
    assert run("add", "ruan16", "Green", "--paper", YANG, "--label", "Y", "--lake", lake) == 0
    assert run("add", "sdss", "--num", "5", "--seed", "1", "--lake", lake, "--match-radius", "18") == 0
    assert run("add", "ztf", "--oid", oids[0], "--oid", oids[1], "--lake", lake) == 0
    said = capsys.readouterr().out
    catalog.refresh()
    rows = catalog.cursor().execute("SELECT sample, count(*) FROM labels GROUP BY 1 ORDER BY 1").fetchall()
    assert rows == [("Y", 20), ("green22", 16), ("ruan16", 3), ("sdss", 5), ("ztf_names", 2)]
    assert "ruan16: 3 rows of ned: 3 new targets" in said
    assert "note: 16 rows, where 19 were seen on 2026-11-28" in said
    radius = catalog.cursor().execute("SELECT parameters FROM ledger WHERE archive = 'sdss'").fetchall()[0][0]
    assert json.loads(radius)["match_radius_arcsec"] == 18.0


def test_the_radius_decides_what_is_one_target(lake, catalog):
    """The collector merges within 18 arcsec; of positions 0.7 arcsec apart a radius of half an arcsecond makes two."""
    assert run("add", "yang18", "ruan16", "--lake", lake, "--match-radius", "0.5") == 0
    catalog.refresh()
    near = "SELECT count(*) FROM targets WHERE abs(ra - 29.99) < 0.01"
    assert catalog.cursor().execute(near).fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no sample is named"),
        (("yang81",), "unknown sample 'yang81'"),
        (("sdss2",), "unknown sample"),
        (("csv",), "a command of its own"),
        (("--paper", YANG, "--label", "a", "--label", "b"), "1 paper and 2 labels"),
        (("--paper", YANG, "--service", "ads"), "service cannot be 'ads'"),
        (("--paper", YANG, "--service", "vizier"), "asked for tables"),
        (("--table", "J/ApJ/1/2/t", "ruan16"), "--table is of one paper"),
        (("ruan16", "--match-radius", "-1"), "--match-radius cannot be -1"),
    ],
)
def test_what_cannot_be_is_one_line(lake, arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        run("add", *arguments, "--lake", lake)


def test_samples_of_one_command_are_all_added_or_none(lake, catalog, services):
    services.box.fault("/simbad", "status:503")
    with pytest.raises(ArchiveError) as caught:
        run("add", "ruan16", "green22", "lopeznavas22", "--lake", lake)
    assert "LIGHTLAKE_ENDPOINTS__SIMBAD" in str(caught.value)
    assert "nothing was added" in str(caught.value)
    catalog.refresh()
    assert catalog.cursor().execute("SELECT count(*) FROM targets").fetchall() == [(0,)]
    assert catalog.cursor().execute("SELECT count(*) FROM ledger").fetchall() == [(0,)]
