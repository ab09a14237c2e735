"""TESS, Kepler and K2 in the lake: real files to the last bit, whose light curves a target has, what is new alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from upath import UPath

from deployments.sandbox.mast_stars import KINDS as KINDS_THERE
from deployments.sandbox.mast_stars import NAMES, Star, star
from deployments.sandbox.server import Sandbox
from deployments.sandbox.tess_kepler import DOWNLOAD, INVOKE, Service
from lake.commit.commit import Receipt, commit
from lake.commit.targets import add_targets
from lake.errors import ArchiveError, TruncatedAnswer
from lake.model.schema import TABLES
from lake.query import Lake
from lake.science.sky import apply_proper_motion, hpx29, separation_arcsec
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull import fetch_batch, fetch_granule, plan_batches
from tasks.register import register_archive
from tasks.sources.base import FetchResult, Granule
from tasks.sources.registry import REGISTRY
from tasks.sources.tess_kepler import archive as tess_kepler
from tasks.sources.tess_kepler.archive import ARCHIVE, named_ids, places_of
from tasks.sources.tess_kepler.mast_fits import read_product
from tasks.sources.tess_kepler.mast_products import BAND_UNITS, Product

SEED = 3
PLACES = [((7.0 + 31 * n) % 360, 60 * np.sin(n)) for n in range(8)]
KINDS = {"tess2018": "spoc", "hlsp_tess": "tess_spoc", "kplr": "kepler", "ktwo": "k2"}
BROKEN = "HAT-P-11_Kepler_Q0_snippet.fits"
HAT_P_11 = ("kplr010748390-2009131105131_llc.fits", 10748390, (297.7102, 48.0809))

Target = tuple[str | None, float, float]


def targets_of(targets: list[Target], **more: Any) -> pa.Table:
    names, ra, dec = zip(*targets, strict=True)
    pixel = hpx29(ra, dec)
    columns = {"target_id": pixel, "name": pa.array(names, pa.string()), "ra": ra, "dec": dec, "hpx29": pixel, **more}
    return TABLES["targets"].cast(pa.table(columns)).sort_by("hpx29")


def granule(targets: list[Target], **parameters: Any) -> Granule:
    return Granule("tess_kepler", ARCHIVE.release, ARCHIVE.with_defaults(parameters), targets_of(targets))


def at_places(numbers: range = range(8)) -> list[Target]:
    return [(f"T{number}", *PLACES[number]) for number in numbers]


def rows_of(harvest: FetchResult, name: str = "lightcurves") -> list[dict[str, Any]]:
    return TABLES[name].cast(getattr(harvest, name)).to_pylist()


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path / "mast", archives=["tess_kepler"], seed=SEED, scale=0.02, targets=PLACES) as box:
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__TESS_KEPLER", box.endpoints["tess_kepler"])
        monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
        yield box


@pytest.fixture
def service(box: Sandbox) -> Service:
    served: Service = box.services["tess_kepler"]
    return served


@pytest.fixture
def reached(box: Sandbox) -> Settings:
    return load_settings(timeout_s=10.0)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A MAST without any star."""
    with Sandbox.start(tmp_path / "mast", archives=["tess_kepler"], seed=SEED, scale=0.02) as box:
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__TESS_KEPLER", box.endpoints["tess_kepler"])
        monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
        yield box


def pulled(lake: Lake, asked: Granule) -> Receipt:
    return commit(lake.catalog, fetch_granule(ARCHIVE, asked, lake.storage.staging / asked.id))


def downloads(box: Sandbox) -> list[str]:
    return [seen.path.rsplit("/", 1)[-1] for seen in box.requests if seen.path.startswith(DOWNLOAD)]


# --- real files ---


@pytest.fixture(scope="module")
def real(data_dir: Path) -> dict[str, Product]:
    folder = data_dir / "kepler_k2_tess"
    return {path.name: read_product(path, path.name) for path in sorted(folder.iterdir()) if path.name != BROKEN}


def lake_equals(lake: Lake, products: dict[str, Product]) -> None:
    """Check that the lake has all cadences of all files, and in its types what was read of them."""
    table = lake.sql("FROM lightcurves ORDER BY exposure_id, band, mjd")
    places = {
        (row["exposure_id"], row["band"]): row
        for row in lake.sql(
            "SELECT exposure_id, band, count(*) AS n FROM lightcurves GROUP BY ALL ORDER BY ALL"
        ).to_pylist()
    }
    ends = np.cumsum([row["n"] for row in places.values()]).tolist()
    n = 0
    for product in products.values():
        for band, curve in product.curves.items():
            place = places[product.exposure_id, band]
            rows = table.slice(ends[list(places).index((product.exposure_id, band))] - place["n"], place["n"])
            assert set(rows["source_id"].to_pylist()) == {product.source_id}
            n += rows.num_rows
            for name in ("mjd", "bmjd_tdb"):
                np.testing.assert_array_equal(rows[name].to_numpy(), product.mjd, strict=True)
            for name, values in (("flux", curve.flux), ("flux_err", curve.error), ("background", product.background)):
                kept = rows[name].to_numpy()
                np.testing.assert_array_equal(kept, values.astype(np.float32), strict=True)
                if name == "flux":
                    np.testing.assert_array_equal(kept[~np.isnan(kept)].astype(float), values[~np.isnan(values)])
            np.testing.assert_array_equal(rows["quality"].to_numpy().astype(float), product.quality)
            np.testing.assert_array_equal(rows["good"].to_numpy(), ~np.isnan(curve.flux) & product.is_good)
            assert rows["flux"].null_count == int(np.isnan(curve.flux).sum())
            assert set(rows["unit"].to_pylist()) == {BAND_UNITS[band]}
    assert table.num_rows == n


@pytest.mark.parametrize("by", ["id", "place", "folder"])
def test_every_real_file_is_in_the_lake(
    lake: Lake, empty: Sandbox, real: dict[str, Product], data_dir: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Service = empty.services["tess_kepler"]
    folder = data_dir / "kepler_k2_tess"
    for name in real:
        kind = next(kind for start, kind in KINDS.items() if name.startswith(start))
        service.add_file(folder / name, name, kind)
    name, number, place = HAT_P_11
    service.add(Star("kepler", number, 1, place, name, (folder / BROKEN).read_bytes))
    if by == "folder":
        monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__TESS_KEPLER", str(folder))
    known = {product.source_id: (product.ra, product.dec) for product in real.values()} | {f"KIC {number}": place}
    # By its id, a target is found wherever the user thinks it is.
    targets: list[Target] = [
        (source if by != "place" else f"star {source}", ra, dec + (0.5 if by == "id" and abs(dec) < 89 else 0.0))
        for source, (ra, dec) in known.items()
    ]
    add_targets(lake.catalog, targets_of(targets).select(["name", "ra", "dec"]), "stars")
    receipt = pulled(lake, granule(targets))
    lake_equals(lake, real)
    assert receipt.n_sources == len(known) - 1
    assert lake.sql("FROM exposures").num_rows == len(real)
    ledger = lake.sql("SELECT status, reason FROM ledger").to_pylist()[0]
    assert ledger["status"] == "done"
    if by != "folder":  # where its name says nothing, it is not found
        assert f"files rejected: 1 ({name}: CREATOR is absent" in ledger["reason"]
    told = {row["name"]: row for row in lake.sql("FROM coverage JOIN targets USING (target_id)").to_pylist()}
    assert [row["status"] for row in told.values() if str(number) in row["name"]] == ["empty"]
    assert {row["status"] for row in told.values() if str(number) not in row["name"]} == {"found"}
    matches = lake.sql("FROM matches JOIN targets USING (target_id)").to_pylist()
    assert {row["source_id"] for row in matches} == set(known) - {f"KIC {number}"}
    wanted = 1800.0 if by == "id" else 0.0
    assert [row["separation_arcsec"] for row in matches] == pytest.approx([wanted] * len(matches), abs=1e-6)
    asked = [name for name, _ in service.asked]
    assert asked == {"id": ["Mast.Caom.Filtered", "Mast.Caom.Products"], "folder": []}.get(
        by, ["Mast.Caom.Crossmatch", "Mast.Caom.Filtered", "Mast.Caom.Products"]
    )


# --- whose light curves a target has ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TIC 25155310", ("TIC", 25155310)),
        ("tic-0025155310", ("TIC", 25155310)),
        ("KIC8462852", ("KIC", 8462852)),
        ("EPIC_211436265", ("EPIC", 211436265)),
        (" KIC 1 ", ("KIC", 1)),
        ("TOI 700", None),
        ("TIC", None),
        ("25155310", None),
        ("KIC 8462852 b", None),
        ("TIC 12345678901234567", None),
        ("", None),
        (None, None),
    ],
)
def test_names_that_say_a_number(name: str | None, said: tuple[str, int] | None) -> None:
    assert named_ids(targets_of([(name, 1.0, 2.0)])) == [said]


def test_targets_move_to_the_catalogues_epoch() -> None:
    more = {"pm_ra": [1000.0, None, 1000.0], "pm_dec": [-500.0, 3.0, 1.0], "ref_epoch": [2016.0, 2016.0, None]}
    targets: list[Target] = [("a", 10.0, 20.0), ("b", 30.0, 40.0), ("c", 50.0, 60.0)]
    table = targets_of(targets, **{name: pa.array(values, pa.float64()) for name, values in more.items()})
    ra, dec = places_of(table)
    moved = {name: (ra[n], dec[n]) for n, name in enumerate(table["name"].to_pylist())}
    assert moved["a"] == tuple(apply_proper_motion(10.0, 20.0, 1000.0, -500.0, 2016.0, 2000.0))
    assert separation_arcsec(10.0, 20.0, *moved["a"]) == pytest.approx(16 * np.hypot(1.0, 0.5), rel=1e-4)
    assert (moved["b"], moved["c"]) == ((30.0, 40.0), (50.0, 60.0))


def test_all_sources_within_the_radius_are_kept_and_ranked(empty: Sandbox) -> None:
    service: Service = empty.services["tess_kepler"]
    for number, arcsec in ((1, 0.9), (2, 0.3), (3, 1.1)):
        service.add(star("qlp", number, 1, (50.0, 10.0 + arcsec / 3600)))
    service.add(star("kepler", 4, 1, (50.0, 10.0 - 0.5 / 3600)))
    reached = load_settings()
    result = tess_kepler.fetch(granule([("here", 50.0, 10.0), ("TIC 3", 50.0, 10.0 + 0.2 / 3600)]), reached)
    by_target = {row["target_id"]: row for row in targets_of([("here", 50.0, 10.0)]).to_pylist()}
    matches = [row for row in rows_of(result, "matches") if row["target_id"] in by_target]
    assert [row["source_id"] for row in matches] == ["TIC 2", "KIC 4", "TIC 1"]
    assert [row["separation_arcsec"] for row in matches] == pytest.approx([0.3, 0.5, 0.9], abs=1e-6)
    assert [row["rank"] for row in matches] == [1, 2, 3]
    (own,) = [row for row in rows_of(result, "matches") if row["target_id"] not in by_target]
    assert (own["source_id"], own["rank"]) == ("TIC 3", 1)
    assert own["separation_arcsec"] == pytest.approx(0.9, abs=1e-6)
    assert {row["source_id"] for row in rows_of(result)} == {"TIC 1", "TIC 2", "TIC 3", "KIC 4"}
    wide = tess_kepler.fetch(granule([("here", 50.0, 10.0)], radius_arcsec=0.4), reached)
    assert [row["source_id"] for row in rows_of(wide, "matches")] == ["TIC 2"]


def test_what_only_has_the_same_number_is_left_where_it_is(empty: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of which the cross-match does not say the catalogue may be of any; positions tell."""
    service: Service = empty.services["tess_kepler"]
    near = star("k2sff", 210000009, 5, (50.0, 10.0))
    service.add(near)
    service.add(star("qlp", 210000009, 1, (150.0, -10.0)))
    rows_as_they_are = service._rows

    def rows(name: str, params: dict[str, Any], data: Any) -> list[dict[str, Any]]:
        less = {"project": None, "obs_collection": "HLSP", "target_name": "210000009"}
        found = rows_as_they_are(name, params, data)
        return [row | less for row in found] if name == "Mast.Caom.Crossmatch" else found

    monkeypatch.setattr(service, "_rows", rows)
    result = tess_kepler.fetch(granule([("here", 50.0, 10.0)]), load_settings())
    assert [row["source_id"] for row in rows_of(result, "sources")] == ["EPIC 210000009"]
    assert downloads(empty) == [near.name]


def test_the_choice_is_the_parameters(box: Sandbox, reached: Settings) -> None:
    def exposures(**parameters: Any) -> set[str]:
        result = tess_kepler.fetch(granule(at_places(), **parameters), reached)
        keys = [(row["source_id"], row["band"], row["mjd"]) for row in rows_of(result)]
        assert len(set(keys)) == len(keys)
        units = {(row["band"], row["unit"]) for row in rows_of(result)}
        assert units == {(band, BAND_UNITS[band]) for band, _ in units}
        return {"-".join(row["exposure_id"].split("-")[n] for n in (1, -1)) for row in rows_of(result, "exposures")}

    usual = {
        "s0001-120s",
        "s0002-120s",
        "s0003-qlp",
        "s0037-tess_spoc",
        "s0038-qlp",
        "s0014-qlp",
        "q01-d0131",
        "q02-d0224",
        "c05-d2240",
        "c06-everest",
        "c07-k2sff",
    }
    assert exposures() == usual
    assert exposures(tess_cadence_s=20) == usual - {"s0002-120s"} | {"s0002-20s"}
    assert exposures(authors=["Kepler"], kepler_cadence="short") == {"q02-d0224"}
    assert exposures(authors=["K2SFF", "QLP"]) == {
        "c05-k2sff",
        "c06-k2sff",
        "c07-k2sff",
        "s0001-qlp",
        "s0002-qlp",
        "s0003-qlp",
        "s0037-qlp",
        "s0038-qlp",
        "s0014-qlp",
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"authors": ["spock"]}, r"parameter authors cannot be \['spock'\].*it is of SPOC, TESS-SPOC"),
        ({"authors": []}, "parameter authors cannot be"),
        ({"kepler_cadence": "medium"}, "kepler_cadence cannot be 'medium'.*long, short"),
        ({"tess_cadence_s": 60}, "tess_cadence_s cannot be 60.*120, 20"),
        ({"radius_arcsec": -1.0}, "radius_arcsec cannot be -1"),
    ],
)
def test_parameters_that_make_no_sense(
    box: Sandbox, reached: Settings, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        tess_kepler.fetch(granule(at_places(range(1)), **parameters), reached)
    assert not caught.value.transient
    assert not box.requests


# --- in the lake ---


def test_overlapping_pulls_change_nothing_and_bands_are_told(lake: Lake, box: Sandbox) -> None:
    add_targets(lake.catalog, targets_of(at_places()).select(["name", "ra", "dec"]), "stars")
    assert register_archive(lake, ARCHIVE)
    pulled(lake, granule(at_places(range(5))))
    shared = (
        "SELECT * FROM lightcurves WHERE source_id IN (SELECT source_id FROM matches WHERE target_id IN ?) ORDER BY ALL"
    )
    both = [hpx29(*PLACES[number]).item() for number in (2, 3, 4)]
    before = lake.sql(shared, [both]).to_pylist()
    second = pulled(lake, granule(at_places(range(2, 8))))
    assert (second.replaced, second.kept) == (0, 4), "two sources of Kepler's target, one of each other"
    assert lake.sql(shared, [both]).to_pylist() == before, "their granule, too"
    whole = tess_kepler.fetch(granule(at_places()), load_settings())
    assert lake.sql("FROM lightcurves").num_rows == whole.lightcurves.num_rows
    assert lake.sql("FROM exposures").num_rows == whole.exposures.num_rows
    assert {row["status"] for row in lake.sql("FROM coverage").to_pylist()} == {"found"}
    known = lake.sql("SELECT band, unit, fornax_band FROM bands WHERE archive = 'tess_kepler'").to_pylist()
    assert {row["band"] for row in known} == set(BAND_UNITS)
    assert {row["band"]: row["fornax_band"] for row in known if row["fornax_band"]} == {
        "tess_spoc_pdcsap": "TESS",
        "kepler_pdcsap": "Kepler",
        "k2_pdcsap": "K2",
    }
    assert not [finding for finding in verify(lake.catalog) if finding.is_error]


def test_a_new_sector_is_one_download(lake: Lake, box: Sandbox, service: Service) -> None:
    asked = granule(at_places(range(4)))
    add_targets(lake.catalog, targets_of(at_places(range(4))).select(["name", "ra", "dec"]), "stars")
    pulled(lake, asked)
    before = lake.sql("SELECT * EXCLUDE granule FROM lightcurves ORDER BY ALL").to_pylist()
    first = next(one for one in service._stars.values() if one.kind == "tess_spoc")
    tic = first.target
    service.add(star("tess_spoc", tic, 39, first.place, seed=SEED, n=service.n))
    box.requests.clear()
    receipt = pulled(lake, asked)
    assert downloads(box) == [f"hlsp_tess-spoc_tess_phot_{tic:016d}-s0039_tess_v1_lc.fits"]
    assert (receipt.replaced, receipt.kept) == (1, 4)
    after = lake.sql("SELECT * EXCLUDE granule FROM lightcurves ORDER BY ALL").to_pylist()
    new = [row for row in after if row["exposure_id"] == f"tess-s0039-{tic:016d}-600s-tess_spoc"]
    assert len(new) > 50
    assert sorted(map(str, [row for row in after if row not in new])) == sorted(map(str, before))
    box.requests.clear()
    again = pulled(lake, asked)
    assert (downloads(box), again.replaced, again.kept) == ([], 0, 5)


def test_broken_files_do_not_lose_the_others(lake: Lake, box: Sandbox, service: Service) -> None:
    cut = next(one for one in service._stars.values() if one.kind == "tess_spoc")
    whole = cut.make()
    service.add(Star(cut.kind, cut.target, cut.sequence, cut.place, cut.name, lambda: whole[: len(whole) // 2]))
    other = next(one for one in service._stars.values() if one.kind == "everest" and one.sequence == 6)
    wrong = star("everest", other.target + 1, 6, other.place).make()
    service.add(Star(other.kind, other.target, other.sequence, other.place, other.name, lambda: wrong))
    add_targets(lake.catalog, targets_of(at_places()).select(["name", "ra", "dec"]), "stars")
    pulled(lake, granule(at_places()))
    (ledger,) = lake.sql("SELECT status, reason FROM ledger").to_pylist()
    assert ledger["status"] == "done"
    assert "files rejected: 2 (" in ledger["reason"]
    assert f"{cut.name}: it is cut short" in ledger["reason"]
    assert f"{other.name}: it is of EPIC {other.target + 1}" in ledger["reason"]
    assert lake.sql("FROM exposures").num_rows == 22 - 2
    assert lake.sql("SELECT DISTINCT source_id FROM sources").num_rows == 10


def test_nothing_there_is_an_answer(lake: Lake, empty: Sandbox) -> None:
    add_targets(lake.catalog, targets_of([("TIC 7", 1.0, 2.0), ("x", 3.0, 4.0)]).select(["name", "ra", "dec"]), "stars")
    receipt = pulled(lake, granule([("TIC 7", 1.0, 2.0), ("x", 3.0, 4.0)]))
    assert (receipt.status, receipt.n_rows, receipt.reason) == ("empty", 0, None)
    assert {row["status"] for row in lake.sql("FROM coverage").to_pylist()} == {"empty"}


def test_two_files_of_one_exposure(empty: Sandbox, tmp_path: Path) -> None:
    """Kepler's names do not say the quarter, so that only reading tells."""
    service: Service = empty.services["tess_kepler"]
    one = star("kepler", 5, 1, (50.0, 10.0))
    twin = Star("kepler", 5, 1, one.place, one.name.replace("2010166", "2010167"), one.make)
    service.add(one)
    service.add(twin)
    result = tess_kepler.fetch(granule([("KIC 5", 50.0, 10.0)]), load_settings())
    assert result.exposures.num_rows == 1
    assert f"files rejected: 1 ({twin.name}: it is of kepler-q01-000000005" in (result.remark or "")


# --- failures, and what is too much ---


def test_a_file_that_cannot_be_had_fails_the_granule(box: Sandbox, reached: Settings) -> None:
    box.fault(DOWNLOAD, "status:404", 50)
    with pytest.raises(ArchiveError, match="HTTP 404") as caught:
        tess_kepler.fetch(granule(at_places()), reached)
    assert not caught.value.transient
    box._faults.clear()
    box.fault(DOWNLOAD, "status:503", 1)
    with pytest.raises(ArchiveError, match="HTTP 503") as caught:
        tess_kepler.fetch(granule(at_places()), reached)
    assert caught.value.transient
    assert tess_kepler.fetch(granule(at_places()), reached).exposures.num_rows == 22


def test_a_file_that_is_gone_from_the_cache(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gone(path: Path, name: str) -> Product:
        raise FileNotFoundError(2, "No such file", str(path))

    monkeypatch.setattr(tess_kepler, "read_product", gone)
    with pytest.raises(ArchiveError, match="cannot be read") as caught:
        tess_kepler.fetch(granule(at_places(range(1))), reached)
    assert caught.value.transient


@pytest.fixture
def on_lake(catalog: Catalog, settings: Settings, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    with Lake(settings.url, load_settings(), writable=True) as lake:
        yield lake


def fetched(lake: Lake, folder: UPath) -> list[dict[str, Any]]:
    """Pull as the flow does; rows of the ledger."""
    parameters = ARCHIVE.with_defaults(None)
    for batch in plan_batches(lake, ARCHIVE, parameters, None, folder):
        for manifest in fetch_batch(batch):
            commit(lake.catalog, manifest)
    return lake.sql("SELECT status, reason, n_targets FROM ledger ORDER BY started_at").to_pylist()


def test_too_much_for_a_granule_is_halved_down_to_one_target(
    on_lake: Lake, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = at_places(range(4))
    add_targets(on_lake.catalog, targets_of(targets).select(["name", "ra", "dec"]), "stars")
    whole = tess_kepler.fetch(granule(targets), load_settings())
    monkeypatch.setattr(tess_kepler, "MOST_BYTES", 1)
    with pytest.raises(TruncatedAnswer, match=r"11 files of .* MB, more than a granule holds"):
        tess_kepler.fetch(granule(targets), load_settings())
    ledger = fetched(on_lake, on_lake.storage.staging / "test")
    assert [row["status"] for row in ledger].count("done") == len(targets)
    assert {row["n_targets"] for row in ledger if row["status"] == "done"} == {1}
    assert [row["status"] for row in ledger].count("split") == 3
    assert on_lake.sql("FROM lightcurves").num_rows == whole.lightcurves.num_rows


def test_a_cut_search_is_split_and_a_failed_one_is_noted(
    on_lake: Lake, box: Sandbox, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_targets(on_lake.catalog, targets_of(at_places(range(2))).select(["name", "ra", "dec"]), "stars")
    service.lost_rows = 1
    ledger = fetched(on_lake, on_lake.storage.staging / "cut")
    assert [row["status"] for row in ledger] == ["split", "failed", "failed"]
    assert "rows came" in ledger[0]["reason"]
    service.lost_rows = 0
    box.fault(INVOKE, "status:503")
    ledger = fetched(on_lake, on_lake.storage.staging / "away")[3:]
    assert [row["status"] for row in ledger] == ["failed"]
    assert {row["status"] for row in on_lake.sql("FROM coverage").to_pylist()} == {"failed"}
    assert fetched(on_lake, on_lake.storage.staging / "back")[-1]["status"] == "done"
    assert {row["status"] for row in on_lake.sql("FROM coverage").to_pylist()} == {"found"}


def test_what_the_archive_says_of_itself() -> None:
    assert REGISTRY["tess_kepler"] is ARCHIVE
    assert (ARCHIVE.time_scale, ARCHIVE.time_frame, ARCHIVE.cadence) == ("TDB", "barycentre", "live")
    assert ARCHIVE.endpoint == "https://mast.stsci.edu"
    assert "equal to bmjd_tdb" in ARCHIVE.corrections
    assert {"good:", "quality,"} <= set(ARCHIVE.quality.split())
    for word in ("authors", "kepler_cadence", "tess_cadence_s"):
        assert word in ARCHIVE.matching
    assert ARCHIVE.with_defaults({"authors": ["QLP"], "radius_arcsec": 2})["radius_arcsec"] == 2.0
    assert set(NAMES) == set(KINDS_THERE)
