"""IceCube: the real IC40 season, what the published collector found, and files that are not as they should be."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord

from deployments.sandbox.icecube import write_folder, write_release
from lake.commit.targets import add_targets
from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.query import Lake
from lake.science.sky import hpx29
from lake.settings import load_settings
from tasks.pull import commit_batch, fetch_batch, plan_batches
from tasks.register import register_archive
from tasks.sources.base import Granule
from tasks.sources.icecube import archive as icecube

IC40 = {"max_search_radius_deg": 2.0, "seasons": ["IC40"]}

# Objects of the oracle whose place is known: its sample is Yang et al. 2018 (ApJ 862, 109) in NED's order, and
# the only one of its IC40 events that the shared half of the season holds is that of J0831+3646.
KNOWN_OBJECTS = {4: "J0831+3646"}


def targets_at(ra: object, dec: object) -> pa.Table:
    ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    pixel = hpx29(ra, dec)
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "ra": ra, "dec": dec, "hpx29": pixel}))


@pytest.fixture
def yang(data_dir: Path) -> pd.DataFrame:
    table = pd.read_csv(data_dir / "literature_samples" / "yang2018_yangg.cat", sep="\t", header=None)
    places = SkyCoord(table[1], table[2], unit=("hourangle", "deg"))
    return pd.DataFrame({"name": table[0], "ra": places.ra.deg, "dec": places.dec.deg})


@pytest.fixture
def ic40(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", str(data_dir / "icecube"))
    return np.loadtxt(data_dir / "icecube" / "events" / "IC40_exp.csv")


def pull(lake: Lake, targets: pd.DataFrame, **parameters: object) -> None:
    table = pa.Table.from_pandas(targets, preserve_index=False)
    add_targets(lake.catalog, table, "yang18", label="Yang 18")
    register_archive(lake, icecube.ARCHIVE)
    asked = icecube.ARCHIVE.with_defaults(parameters)
    url = str(lake.storage.root)
    for batch in plan_batches(lake, icecube.ARCHIVE, asked, ["yang18"], lake.storage.staging / "pull"):
        commit_batch(url, fetch_batch(batch))


def test_what_the_collector_published_comes_out_exactly(
    lake: Lake, yang: pd.DataFrame, ic40: np.ndarray, data_dir: Path
) -> None:
    """Both ways: its IC40 rows are ours, and we have none that would have been among its top three."""
    pull(lake, yang, seasons=["IC40"])
    oracle = pq.read_table(data_dir / "multiarchive_oracle" / "dflc_Faisst_May182023.parquet").to_pandas()
    oracle = oracle[oracle.band == "IceCube"]
    published = lake.sql("FROM fornax_as_published").to_pandas()
    compared = 0
    for objectid, name in KNOWN_OBJECTS.items():
        theirs = oracle[oracle.objectid == objectid]
        ours = published[published.objectid == lake.target_id(name)]
        held = theirs[theirs.time.isin(ic40[:, 0])]
        for row in held.itertuples():
            match = ours[ours.time == row.time]  # the same double, not nearly
            assert match[["label", "band", "flux", "err"]].to_numpy().tolist() == [
                ["Yang 18", "IceCube", row.flux, row.err]
            ]
            compared += 1
        brighter = ours[ours.flux > theirs.flux.min()]
        assert set(brighter.time) <= set(theirs.time)
    assert compared == 1


def test_every_event_within_both_radii_and_no_other(lake: Lake, yang: pd.DataFrame, ic40: np.ndarray) -> None:
    """Brute force over all 26 x 18,450 pairs, by astropy."""
    pull(lake, yang, seasons=["IC40"])
    events = SkyCoord(ic40[:, 3], ic40[:, 4], unit="deg")
    expected = {}
    for row in yang.itertuples():
        separation = SkyCoord(row.ra, row.dec, unit="deg").separation(events).deg
        inside = (separation <= 2) & (separation < ic40[:, 2])
        expected |= {(row.name, mjd): s for mjd, s in zip(ic40[inside, 0], separation[inside], strict=True)}
    found = lake.sql("SELECT name, mjd, separation_arcsec / 3600 AS separation, rank FROM target_lightcurves")
    found = found.to_pandas()
    assert {(row.name, row.mjd) for row in found.itertuples()} == set(expected)
    assert found.separation.to_numpy() == pytest.approx([expected[row.name, row.mjd] for row in found.itertuples()])
    for _, rows in found.groupby("name"):
        by_rank = rows.sort_values("rank")
        assert by_rank["rank"].tolist() == list(range(1, len(rows) + 1))
        assert by_rank.separation.is_monotonic_increasing
    status = lake.sql("SELECT name, status, n_sources, n_rows FROM coverage JOIN targets USING (target_id)").to_pandas()
    names = [name for name, _ in expected]
    assert dict(zip(status.name, status.n_sources, strict=True)) == {name: names.count(name) for name in yang.name}
    assert (status.status.eq("found") == status.n_sources.gt(0)).all()


def test_values_keep_their_own_units(ic40: np.ndarray) -> None:
    granule = Granule("icecube", icecube.RELEASE, IC40, targets_at(127.8844, 36.7714))
    harvest = icecube.fetch(granule, load_settings())
    event = ic40[np.isclose(ic40[:, 0], 54748.08563237, rtol=0, atol=1e-9)][0]
    row = harvest.lightcurves.filter(pa.compute.equal(harvest.lightcurves["source_id"], "IC40-54748.08563237"))
    row = row.to_pylist()[0]
    assert row["flux"] == pytest.approx(10 ** event[1])
    assert row["unit"] == "GeV"
    assert "flux_err" not in row
    assert row["mjd"] == event[0]
    assert 0 < abs(row["bmjd_tdb"] - row["mjd"]) * 86400 < 499 + 67
    source = harvest.sources.filter(pa.compute.equal(harvest.sources["source_id"], row["source_id"])).to_pylist()[0]
    assert source["position_err_arcsec"] == event[2] * 3600
    assert (source["ra"], source["dec"]) == (event[3], event[4])


def test_the_season_is_an_exposure_with_its_good_runs(ic40: np.ndarray, data_dir: Path) -> None:
    granule = Granule("icecube", icecube.RELEASE, IC40, targets_at(10.0, 10.0))
    runs = np.loadtxt(data_dir / "icecube" / "uptime" / "IC40_exp.csv")
    exposure = icecube.fetch(granule, load_settings()).exposures.to_pylist()[0]
    assert exposure["exposure_id"] == "IC40"
    assert exposure["mjd_start"] == runs[:, 0].min()
    # Abbasi et al. 2021 (arXiv:2101.09836), table 1: IC40 has 376.4 days of live time.
    assert exposure["exposure_s"] / 86400 == pytest.approx(376.4, abs=0.1)


def test_an_event_listed_twice_has_two_ids(tmp_path: Path) -> None:
    write_folder(tmp_path / "release", scale=0.01)
    file = tmp_path / "release" / "events" / "IC86_V_exp.csv"
    events = icecube.read_events({"IC86_V": (io.BytesIO(file.read_bytes()), None)}, "here")
    ids, counts = np.unique(events.source_ids(np.arange(len(events.mjd))).to_pylist(), return_counts=True)
    assert counts.max() == 1
    assert sum(str(name).endswith("-2") for name in ids) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b" 54572", b"154572"),  # where the first column begins elsewhere
        (b" 54572", b" 5457 "),  # no time, but a blank in it
        (b" 54572.", b" ABCDE."),
        (b"   3.31  ", b"   -     "),
        (b"   3.31  ", b" 203.31  "),
        (b"   3.31  ", b"    nan  "),
        (b"   3.31  ", b"         "),  # a line of too few values
        (b"   3.31  ", b"   3,31  "),
    ],
)
def test_columns_in_line_are_read_as_words_are(data_dir: Path, old: bytes, new: bytes) -> None:
    header, body = (data_dir / "icecube" / "events" / "IC40_exp.csv").read_bytes().split(b"\n", 1)
    body = body[: 3000 * (body.index(b"\n") + 1)]
    assert body.count(old)
    body = body.replace(old, new, 1)
    words = b"".join(b" ".join(line.split()) + b"\n" for line in body.splitlines())
    found = []
    for text in (body, words):
        try:
            events = icecube.read_events({"IC40": (io.BytesIO(header + b"\n" + text), None)}, "here")
        except ArchiveError as error:
            found.append(str(error))
            continue
        values = (events.mjd, events.log10_energy, events.angular_err_deg, events.ra, events.dec)
        ids = events.source_ids(np.arange(len(events.mjd))).to_pylist()
        found.append(f"{ids} {events.remark} {[value.tolist() for value in values]}")  # in which NaN is NaN
    assert found[0] == found[1]


def test_zip_and_folder_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = targets_at([10.0, 200.0], [5.0, -30.0])
    asked = icecube.ARCHIVE.with_defaults({"seasons": ["IC79", "IC86_I"]})
    harvests = []
    for path, write in ((tmp_path / "release.zip", write_release), (tmp_path / "release", write_folder)):
        write(path, scale=0.05, seed=7, targets=[(10.0, 5.0), (200.0, -30.0)])
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", str(path))
        harvests.append(icecube.fetch(Granule("icecube", icecube.RELEASE, asked, targets), load_settings()))
    assert harvests[0].lightcurves.equals(harvests[1].lightcurves)
    assert harvests[0].lightcurves.num_rows
    assert harvests[0].exposures.equals(harvests[1].exposures)


def test_a_missing_season_is_an_error_not_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = write_release(tmp_path / "release.zip", scale=0.01)
    smaller = tmp_path / "smaller.zip"
    with zipfile.ZipFile(release) as old, zipfile.ZipFile(smaller, "w") as new:
        for name in old.namelist():
            if "events/IC59" not in name:
                new.writestr(name, old.read(name))
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", str(smaller))
    granule = Granule("icecube", icecube.RELEASE, icecube.ARCHIVE.with_defaults(None), targets_at(1.0, 1.0))
    with pytest.raises(ArchiveError, match=r"no events/IC59_exp\.csv") as caught:
        icecube.fetch(granule, load_settings())
    assert not caught.value.transient
    assert str(smaller) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("AngErr", "Radius", 1), "release's header"),
        (lambda text: text[: len(text) // 2].rsplit(maxsplit=2)[0], "damaged"),
        (lambda text: text.split("\n")[0] + "\n", "damaged"),
        (lambda text: "<html>We will be back</html>", "release's header"),
    ],
    ids=["another column", "cut in a row", "no events", "a maintenance page"],
)
def test_a_file_that_is_not_the_releases_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object, message: str
) -> None:
    write_folder(tmp_path, scale=0.01)
    file = next(tmp_path.rglob("events/IC40_exp.csv"))
    file.write_text(damage(file.read_text()))
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", str(tmp_path))
    with pytest.raises(ArchiveError, match=message):
        icecube.fetch(Granule("icecube", icecube.RELEASE, IC40, targets_at(1.0, 1.0)), load_settings())


def test_a_release_that_is_not_there_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", str(tmp_path / "nowhere.zip"))
    with pytest.raises(ArchiveError, match="LIGHTLAKE_ENDPOINTS__ICECUBE"):
        icecube.fetch(Granule("icecube", icecube.RELEASE, IC40, targets_at(1.0, 1.0)), load_settings())


def test_a_changed_release_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", str(tmp_path / "release"))
    granule = Granule("icecube", icecube.RELEASE, IC40, targets_at(40.0, 40.0))
    found = []
    for seed in (1, 2):
        write_folder(tmp_path / "release", scale=0.05, seed=seed, targets=[(40.0, 40.0)])
        found.append(icecube.fetch(granule, load_settings()).lightcurves)
        shutil.rmtree(tmp_path / "release")
    assert not found[0].equals(found[1])
