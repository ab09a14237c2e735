"""A newer release of an archive: told of, pulled when asked for, shown once it has all targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import register
from helpers.processes import Run
from prefect.states import State

from deployments.sandbox import ztf
from flows.pull import pull_archive
from flows.refresh import refresh
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.archives.estimates import plans
from tasks.pull import lake_at

Rows = Callable[..., list[dict[str, Any]]]

pytestmark = pytest.mark.usefixtures("prefect_server", "pull_settings")

SHOWN = "SELECT release, count(*) AS n FROM target_lightcurves WHERE archive = 'ztf' GROUP BY ALL"


@pytest.fixture
def ztf_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Rows) -> Callable[[str, int], None]:
    """Give a function that writes a release of ZTF beside the others."""
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", f"{tmp_path}/ztf/{{release}}/hats")

    def write(release: str, seed: int) -> None:
        places = [(row["ra"], row["dec"]) for row in rows("SELECT ra, dec FROM targets ORDER BY target_id")]
        ztf.write_collection(tmp_path / "ztf" / release / "hats", places, seed=seed, n_field=200)

    return write


def pull(**more: Any) -> State[Any]:
    return pull_archive("ztf", **more, return_state=True)


def test_a_release_is_told_of_pulled_when_asked_for_and_takes_over_whole(
    catalog: Catalog, lake: Lake, rows: Rows, ztf_at: Callable[[str, int], None]
) -> None:
    register(catalog, range(6), "first")
    register(catalog, range(6, 10), "second")
    ztf_at("dr24", 1)
    assert "newer" not in pull().message
    (old,) = rows(SHOWN)
    assert old["release"] == "DR24"

    ztf_at("dr25", 2)
    told = pull()
    assert told.is_completed()
    assert told.message == (
        "ztf: nothing to do, every target has its answer. There is a newer release: lightlake pull ztf --release DR25"
    )
    assert rows(SHOWN) == [old]

    # Of half of the targets: it is kept beside the old one, which is still what is seen.
    half = pull(sample="first", release="DR25")
    assert half.message.startswith("ztf: 6 of 6 targets answered")
    assert "DR25 is beside the release before it" in half.message
    assert rows(SHOWN) == [old]
    both = rows("SELECT release, count(DISTINCT target_id) AS n FROM matches GROUP BY ALL ORDER BY ALL")
    assert both == [{"release": "DR24", "n": 10}, {"release": "DR25", "n": 6}]
    assert set(lake.light_curve("T001", archive="ztf")["release"].to_pylist()) == {"DR24"}

    rest = pull(release="DR25")
    assert rest.message.startswith("ztf: 4 of 4 targets answered")
    assert "beside" not in rest.message
    (new,) = rows(SHOWN)
    assert new["release"] == "DR25"
    assert new["n"] != old["n"]
    assert set(lake.light_curve("T001", archive="ztf")["release"].to_pylist()) == {"DR25"}

    # From now on that release is asked for new targets, and nothing else.
    register(catalog, range(10, 12), "third")
    assert pull().message.startswith("ztf: 2 of 2 targets answered")
    assert rows("SELECT count(*) AS n FROM coverage WHERE release = 'DR24'") == [{"n": 10}]
    assert rows(SHOWN)[0]["release"] == "DR25"
    assert rows("SELECT release, endpoint FROM archives WHERE archive = 'ztf'") == [
        {"release": "DR25", "endpoint": "s3://ipac-irsa-ztf/ztf/enhanced/dr25/lc/hats"}
    ]
    assert [finding.message for finding in verify(catalog) if finding.is_error] == []


def test_a_refresh_follows_releases_if_told_to(
    catalog: Catalog,
    rows: Rows,
    ztf_at: Callable[[str, int], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(catalog, range(3), "first")
    ztf_at("dr24", 1)
    ztf_at("dr25", 2)

    def planned(**more: Any) -> list[tuple[str, int]]:
        return [(one.release, one.waiting.total) for one in plans(lake_at(str(catalog.storage.root)), ["ztf"], **more)]

    def told(**more: Any) -> list[str]:
        state = refresh(["ztf"], **more, return_state=True)
        assert state.is_completed()
        return str(state.message).split(" | ")

    # A lake without any release begins with the newest.
    assert planned() == [("DR24", 3)]
    assert planned(newest=True) == [("DR25", 3)]
    (first,) = told(newest=True)
    assert first.startswith("DR25 of ztf: 3 of 3 targets answered")
    assert rows("SELECT DISTINCT release FROM coverage") == [{"release": "DR25"}]

    ztf_at("dr26", 3)
    register(catalog, range(3, 5), "second")
    (first,) = told()
    assert first.startswith("ztf: 2 of 2 targets answered")
    assert first.endswith("There is a newer release: lightlake pull ztf --release DR26")
    assert planned(newest=True) == [("DR25", 0), ("DR26", 5)]
    assert pull(release="newest").message.startswith("ztf: 5 of 5 targets answered")
    assert rows(SHOWN)[0]["release"] == "DR26"
    assert told(newest=True) == ["ztf: nothing to do, every target has its answer"]

    # Where releases cannot be listed, the one that there is goes on.
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", "https://archive.invalid/{release}/hats")
    lake_at.cache_clear()
    assert planned(newest=True) == [("DR26", 0)]
    assert "newer releases of ztf are not known" in caplog.text


def test_the_command_line_lists_releases_and_refuses_one_without_address(
    catalog: Catalog, ztf_at: Callable[[str, int], None], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(catalog, range(2))
    ztf_at("dr24", 1)
    ztf_at("dr25", 1)
    (tmp_path / "unwise").mkdir()
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", f"{tmp_path}/ztf/{{release}}/hats")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__WISE", f"{tmp_path}/unwise/{{release}}")
    listed = run("archives", "--releases", "--json")
    assert listed.code == 0
    assert json.loads(listed.out) == [
        {"archive": "wise", "pulled": "neo7", "found": []},
        {"archive": "ztf", "pulled": "DR24", "found": ["DR24", "DR25"]},
    ]
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", f"{tmp_path}/ztf/dr24/hats")
    refused = run("pull", "ztf", "--release", "DR25", "--lake", catalog.storage.root)
    assert refused.code != 0
    assert "LIGHTLAKE_ENDPOINTS__ZTF" in refused.err
