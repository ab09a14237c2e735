"""Lists of names: which files are such lists, which rows they have, and which targets their objects are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from helpers.names import Services

from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.science.sky import apply_proper_motion, separation_arcsec
from tasks.samples.by_name import NameList, Names, file_of, names_given, read_list, read_names
from tasks.samples.target_file import TargetFile

GIVEN = ["3C 273", "Eta Car", "NAME Barnard's star"]
# Barnard's star in Gaia DR3, at epoch 2016.0.
BARNARD_2016, BARNARD_PM = (269.44850252543836, 4.739420051112412), (-801.5509783684709, 10362.394206546573)


def listed(path: Path, text: str, **more: str) -> NameList:
    path.write_text(text, encoding="utf-8")
    found = read_names(path, **more)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "3C 273\nEta Car\nNAME Barnard's star\n",
        "# mine\n\n  3C 273 \r\nEta Car\r\nNAME Barnard's star",
        'name\n3C 273\nEta Car\n"NAME Barnard\'s star"\n',
        "Target\n3C 273\nEta Car\nNAME Barnard's star\n",
    ],
)
@pytest.mark.parametrize("suffix", ["txt", "csv", "dat"])
def test_one_name_a_line(tmp_path: Path, text: str, suffix: str) -> None:
    found = listed(tmp_path / f"names.{suffix}", text)
    assert found.names == GIVEN
    lines = text.replace("\r", "").split("\n")
    assert [lines[line - 1].strip().strip('"') for line in found.lines] == GIVEN
    assert list(found.rows or ()) == [1, 2, 3]


def test_a_first_name_that_looks_like_a_header_is_a_name(tmp_path: Path) -> None:
    assert listed(tmp_path / "t.txt", "Eta Car\nAlpha Cen\n").names == ["Eta Car", "Alpha Cen"]
    assert listed(tmp_path / "t.txt", "NAME LMC\nNAME SMC\n").names == ["NAME LMC", "NAME SMC"]
    assert listed(tmp_path / "t.txt", "Vega\n").names == ["Vega"]
    assert listed(tmp_path / "t.txt", "Vega\nn/a\n").names == ["Vega", None]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "name,z,kind\n3C 273,0.158,QSO\nEta Car,,LBV\nNAME Barnard's star,0,star\n"),
        ("t.tsv", "kind\tz\tSource_name\nQSO\t0.158\t3C 273\nLBV\t\tEta Car\nstar\t0\tNAME Barnard's star\n"),
        (
            "t.txt",
            "name z kind\n'3C 273' 0.158 QSO\n".replace("'", '"')
            + '"Eta Car" nan LBV\n"NAME Barnard\'s star" 0 star\n',
        ),
    ],
)
def test_tables_of_text(tmp_path: Path, name: str, text: str) -> None:
    found = listed(tmp_path / name, text, label_column="kind")
    assert found.names == GIVEN
    assert found.labels == ["QSO", "LBV", "star"]
    assert found.redshifts is not None
    assert (found.redshifts[0], found.redshifts[2]) == (0.158, 0.0)
    assert found.lines == [2, 3, 4]


@pytest.mark.parametrize(
    ("name", "options"), [("t.ecsv", {}), ("t.fits", {}), ("t.vot", {"format": "votable"}), ("t.parquet", {})]
)
def test_other_formats(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"main_id": GIVEN, "flag": [1, 2, 3]}), path)
    else:
        Table({"main_id": GIVEN, "flag": [1, 2, 3]}).write(path, **options)
    found = read_names(path)
    assert found is not None
    assert (found.names, found.unused) == (GIVEN, ("flag",))


def test_broken_rows_are_bad_once(tmp_path: Path) -> None:
    found = listed(tmp_path / "t.csv", 'name,kind\n3C 273,QSO\nEta Car\n"M 87,LINER\n-,none\n')
    assert found.names == ["3C 273", None]
    assert [row.line for row in found.bad_rows] == [3, 4]


def test_what_is_no_list_of_names(tmp_path: Path, services: Services) -> None:
    names = Names(services.settings(tmp_path))
    for text, pattern in (
        ("a,b\n1,2\n3,4\n", "no columns that are known to hold positions"),
        ("M87 187.7 12.39\nM31 10.68 41.27\n", "no columns that are known to hold positions"),
        ("ra,dec,ra_icrs,de_icrs,raj2000,dej2000\n1,2,3,4,5,6\n", "more than one place"),
        ("# only a comment\n", "no rows"),
    ):
        path = tmp_path / "t.txt"
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=pattern):
            read_list(path, names)
    path.write_text("name\n3C 273\n")
    with pytest.raises(ConfigurationError):
        read_list(path, names, ra_column="x", dec_column="y")
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_list(tmp_path / "none.txt", names)
    assert services.box.requests == []


def test_positions_are_read_and_not_asked_for(tmp_path: Path, services: Services) -> None:
    path = tmp_path / "t.csv"
    path.write_text("name,ra,dec\n3C 273,10,20\n")
    found = read_list(path, Names(services.settings(tmp_path)))
    assert found.targets["ra"].to_pylist() == [10.0]
    assert found.aliases is None
    assert services.box.requests == []


def test_files_and_names_among_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quasars").write_text("3C 273\n")
    (tmp_path / "M31").mkdir()
    assert file_of(["quasars"]) == Path("quasars")
    for one in ("none.csv", "none.vot.gz", "./none", "/none", "M31/none"):
        assert file_of([one]) == Path(one)
    for one in ("3C 273", "M31", "[HB89] 1226+023", "a/b", "x" * 300, "a\0b", "2MASS J12290669+0203085"):
        assert file_of([one]) is None
    for wrong in ([], ["quasars", "3C 273"]):
        with pytest.raises(ConfigurationError):
            file_of(wrong)


def located(services: Services, lake: Lake, *names: str, radius: float = 1.0) -> TargetFile:
    return Names(services.settings(Path(str(lake.storage.root))), lake, False, radius).located(names_given(names))


def test_targets_have_what_simbad_says(services: Services, lake: Lake) -> None:
    found = located(services, lake, "GJ 699", "3C 273", "nobody")
    star, quasar = found.targets.to_pylist()
    assert (star["name"], star["pm_ra"], star["pm_dec"], star["ref_epoch"]) == ("GJ 699", -801.551, 10362.394, 2000.0)
    assert (quasar["name"], quasar["pm_ra"], quasar["ref_epoch"], quasar["redshift"]) == (
        "3C 273",
        None,
        None,
        0.158339,
    )
    assert [(row.line, row.text) for row in found.bad_rows] == [(3, "nobody")]
    assert found.aliases is not None
    of = {row["name"]: row["row"] for row in found.aliases.to_pylist()}
    assert (of["HIP 87937"], of["GJ 699"], of["PG 1226+023"]) == (0, 0, 1)


def test_a_star_lies_where_it_was_when_an_archive_observed(services: Services, lake: Lake) -> None:
    found = located(services, lake, "GJ 699")
    add_targets(lake.catalog, found.targets, "s", aliases=found.aliases)
    (star,) = lake.sql("SELECT ra, dec, pm_ra, pm_dec, ref_epoch FROM targets").to_pylist()
    at = apply_proper_motion(star["ra"], star["dec"], star["pm_ra"], star["pm_dec"], star["ref_epoch"], 2016.0)
    assert separation_arcsec(*at, *BARNARD_2016) < 0.01
    assert separation_arcsec(star["ra"], star["dec"], *BARNARD_2016) > 160.0


def test_an_object_is_the_target_that_a_list_has_at_another_epoch(services: Services, lake: Lake) -> None:
    of_gaia = pa.table(
        {
            "name": ["Gaia DR3 4472832130942575872"],
            **{key: [value] for key, value in zip(("ra", "dec"), BARNARD_2016, strict=True)},
            **{key: [value] for key, value in zip(("pm_ra", "pm_dec"), BARNARD_PM, strict=True)},
            "ref_epoch": [2016.0],
        }
    )
    add_targets(lake.catalog, of_gaia, "gaia")
    one = lake.target_id("Gaia DR3 4472832130942575872")
    found = located(services, lake, "GJ 699", "3C 273")
    added = add_targets(lake.catalog, found.targets, "s", aliases=found.aliases)
    assert (added.new, added.known) == (1, 1)
    assert lake.target_id("HIP 87937") == one
    assert lake.sql("SELECT ra, ref_epoch FROM targets WHERE target_id = ?", [one]).to_pylist() == [
        {"ra": BARNARD_2016[0], "ref_epoch": 2016.0}
    ]
    apart = located(services, lake, "GJ 699", radius=0.0)
    assert apart.targets["ref_epoch"].to_pylist() == [2000.0]
    assert add_targets(lake.catalog, apart.targets, "t", radius_arcsec=0.0).new == 1


def test_a_name_that_a_list_gave_is_that_target(services: Services, lake: Lake) -> None:
    add_targets(
        lake.catalog, pa.table({"name": ["3C 273", "TWIN", "TWIN"], "ra": [10.0, 20.0, 30.0], "dec": [5.0] * 3}), "s"
    )
    one, twins = (
        lake.target_id("3C 273"),
        [
            lake.target_id(name)
            for name in lake.sql("SELECT target_id FROM targets WHERE name = 'TWIN' ORDER BY 1")["target_id"]
            .cast("string")
            .to_pylist()
        ],
    )
    found = located(services, lake, "3C 273", "TWIN", "Mrk 421")
    assert [row.line for row in found.bad_rows] == [2]
    assert all(str(twin) in found.bad_rows[0].reason for twin in twins)
    added = add_targets(lake.catalog, found.targets, "t", aliases=found.aliases)
    assert (added.new, added.known) == (1, 1)
    assert lake.target_id("3C 273") == one
    assert not [query for query in services.simbad.queries if "3C 273" in query]
    assert "PG 1226+023" not in lake.sql("FROM aliases")["name"].to_pylist()
    # On request it is looked up; then the name is of two targets, because the list has it elsewhere.
    again = Names(services.settings(Path(str(lake.storage.root))), lake, True).located(names_given(["3C 273"]))
    assert again.targets["ra"].to_pylist() == [187.27791594049]
