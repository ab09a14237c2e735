"""What an observation of RXTE is called, where it lies, which bands it has, and which energies its channels are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from astropy.time import Time

from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.energies import channels, energy_range, std2_channel
from tasks.sources.rxte.mission import (
    ORIGIN,
    PRODUCTS,
    Observation,
    ao_number,
    archive_paths,
    gain_epoch,
    parse_obsid,
    product_of,
)

# The archive's own words for the edges.
EDGES = {2: "1996-03-21T18:33", 3: "1996-04-15T23:05", 4: "1999-03-22T17:37", 5: "2000-05-13T00:00"}


def tt(utc: str) -> float:
    return float(Time(utc, scale="utc").tt.mjd)


@pytest.mark.parametrize("epoch", EDGES)
def test_a_gain_epoch_begins_at_its_second_in_utc(epoch: int) -> None:
    edge = tt(EDGES[epoch])
    assert gain_epoch([edge - 0.1 / 86400, edge + 0.1 / 86400]).tolist() == [epoch - 1, epoch]


def test_the_missions_ends_are_ends() -> None:
    assert gain_epoch([tt("1995-12-30T00:00:01"), tt("2012-01-05T12:00")]).tolist() == [1, 5]
    # A time in days since the reference, a JD and a time without MJDREF are not of the mission; NaN is no time.
    for odd in (tt("1995-12-29T23:59"), tt("2012-01-06T00:01"), 1155.0, 2450508.5, np.nan):
        with pytest.raises(ValueError, match="not of RXTE's life"):
            gain_epoch([tt("2000-01-01"), odd])


def test_the_same_channels_are_other_energies_in_each_epoch() -> None:
    """B.6 item 13, and the numbers of B.4 for channels 5 to 10."""
    expected = {1: (1.51, 3.04), 2: (1.61, 3.44), 3: (1.94, 4.05), 4: (2.13, 4.63), 5: (2.06, 4.49)}
    assert {epoch: energy_range(5, 10, epoch) for epoch in expected} == expected
    assert energy_range(5, 10, 5, "PCU0") == (1.95, 4.53)


def test_energies_of_channels_that_standard2_packs_are_those_of_the_pack() -> None:
    assert energy_range(55, 55, 3) == energy_range(54, 55, 3) == (19.56, 20.30)
    assert energy_range(0, 255, 1) == (None, 74.99)
    for bad in ((10, 5, 1), (0, 256, 1), (-1, 5, 1), (5, 10, 6), (5, 10, 0)):
        with pytest.raises(ValueError, match=r"above|0 to 255|no gain epoch"):
            energy_range(*bad)
    with pytest.raises(ValueError, match="no gain epoch 4 with detector PCU0"):
        energy_range(5, 10, 4, "PCU0")


def test_standard2_packs_256_channels_into_129() -> None:
    packed = std2_channel(np.arange(256))
    known = {
        0: 0,
        4: 0,
        5: 1,
        53: 49,
        54: 50,
        55: 50,
        56: 51,
        134: 90,
        135: 90,
        136: 91,
        138: 91,
        139: 92,
        235: 124,
        237: 124,
        238: 125,
        241: 125,
        242: 126,
        249: 127,
        250: 128,
        255: 128,
    }
    assert {channel: int(packed[channel]) for channel in known} == known
    assert (np.diff(packed) >= 0).all()
    assert np.bincount(packed).tolist() == [5, *[1] * 49, *[2] * 41, *[3] * 34, *[4] * 3, 6]
    with pytest.raises(ValueError, match="0 to 255"):
        std2_channel(256)


def test_the_table_of_channels_agrees_with_the_ranges() -> None:
    table = channels()
    assert table.num_rows == 6 * 256
    assert table.group_by(["epoch", "detector", "channel"]).aggregate([]).num_rows == table.num_rows
    lower = table.filter(pc.is_null(table["emin_kev"]))
    assert set(lower["channel"].to_pylist()) == {0, 1, 2, 3, 4}
    for row in table.filter(pc.equal(table["channel"], 60)).to_pylist():
        given = energy_range(60, 60, row["epoch"], row["detector"])
        assert given == (row["emin_kev"], row["emax_kev"])
        assert row["std2_channel"] == 53
    ordered = table.filter(pc.is_valid(table["emin_kev"]))
    assert pc.all(pc.less(ordered["emin_kev"], ordered["emax_kev"])).as_py()


def test_an_obsid_says_what_it_is() -> None:
    one = parse_obsid("94002-01-15-00")
    assert (one.proposal, one.target, one.viewing, one.sequence, one.piece) == ("94002", "01", "15", "00", "")
    assert (one.stem, one.is_slew, one.is_scan, one.is_merged) == ("94002011500", False, False, False)
    assert [parse_obsid(f"94002-01-15-00{x}").is_slew for x in "AZSRC1"] == [True, True, *[False] * 4]
    assert [parse_obsid(f"94002-01-15-00{x}").is_scan for x in "AZSRC1"] == [False, False, True, True, False, False]
    merged = parse_obsid("20033-01_e3")
    assert (merged.stem, merged.is_merged, merged.viewing) == ("2003301_e3", True, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "94002-01",
        "94002-01-15",
        "94002-01-15-0",
        "94002-01-15-00a",
        "94002-01-15-00AZ",
        "94002-01-15-00 ",
        "94002-01-15-00\n",
        "9400-01-15-00",
        "94002_01_15_00",
        "٩4002-01-15-00",
        "20033-01_e6",
    ],
)
def test_what_is_no_obsid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no ObsID"):
        parse_obsid(text)
    with pytest.raises(ValueError, match="is no ObsID"):
        Observation(text)


@pytest.mark.parametrize(
    ("proposal", "ao"),
    [("00022", 0), ("10004", 1), ("20033", 2), ("80001", 8), ("90171", 9), ("91129", 10), ("96002", 15)],
)
def test_the_opportunity_follows_from_the_proposal(proposal: str, ao: int) -> None:
    assert ao_number(proposal) == ao


def test_paths_have_both_prefixes_and_believe_the_service() -> None:
    """B.6 item 14: no path is hard-coded, and the proposal comes from one place."""
    tail = "data/archive/AO13/P94002/94002-01-15-00Z/"
    assert archive_paths("94002-01-15-00Z") == (f"xte/{tail}", f"rxte/{tail}")
    assert archive_paths("94002-01-15-00", 12, "94003")[0] == "xte/data/archive/AO12/P94003/94002-01-15-00/"
    assert Observation("94002-01-15-00Z").paths == (f"xte/{tail}", f"rxte/{tail}")


def test_the_paths_of_eta_carinae_are_those_that_datalink_gives(data_dir: Path) -> None:
    with (data_dir / "heasarc" / "datalink_locate_data_eta_car_7.csv").open() as file:
        links = [row["aws"].removeprefix(f"{rxte.S3_BUCKET}/") for row in csv.DictReader(file)]
    compared = 0
    for link in links:
        name = link.rstrip("/").rpartition("/")[2]
        if len(name) >= 14:  # the others are folders of whole targets, and no ObsID
            assert archive_paths(name)[0] == link
            compared += 1
        else:
            with pytest.raises(ValueError, match="is no ObsID"):
                parse_obsid(name)
    assert (compared, len(links)) == (15, 18)


def test_every_product_has_a_file_and_a_band_of_its_own() -> None:
    assert len(PRODUCTS) == 33
    obsid = parse_obsid("90171-01-01-00A")
    names = {product.file_name(obsid) for product in PRODUCTS.values()}
    assert len(names) == 33
    assert {"xp90171010100A_n2a.lc.gz", "xp90171010100A_b2e.lc.gz", "xh90171010100A_s1c.lc.gz"} <= names
    for product in PRODUCTS.values():
        assert product_of(f"somewhere/stdprod/{product.file_name(obsid)}") == (obsid.stem, product)
        assert product_of(product.file_name(obsid).removesuffix(".gz")) == (obsid.stem, product)
    assert ORIGIN.band_units == dict.fromkeys(PRODUCTS, "count.s**-1")
    assert {"pca_a", "pca_e_src", "pca_c_bkg", "hexte0_a", "hexte1_c_bkg"} <= set(PRODUCTS)


@pytest.mark.parametrize(
    "name",
    [
        "x90171010100.gti.gz",
        "xp90171010100_s2.pha.gz",
        "xp90171010100.rsp.gz",
        "xp90171010100_n1.lc.gz",
        "xp90171010100_n0a.lc.gz",
        "xh90171010100_n2a.lc.gz",
        "xh90171010100_n0d.lc.gz",
        "xp90171010100_x2a.lc.gz",
        "FMI",
        "pca_a",
    ],
)
def test_files_of_other_kinds_are_no_products(name: str) -> None:
    assert product_of(name) is None


def test_the_product_of_a_real_file_is_known_by_its_name() -> None:
    assert product_of("xp2003301_e3_n2a.lc") == ("2003301_e3", PRODUCTS["pca_a"])
