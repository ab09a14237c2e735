"""Samples of the literature come whole or not at all, as their papers and services have them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import literature as real
from helpers.granules import errors
from helpers.literature import Literature

from deployments.sandbox.papers import Published
from deployments.sandbox.server import Sandbox
from deployments.sandbox.vizier import Catalogue
from lake.errors import ArchiveError, ConfigurationError, TruncatedAnswer
from lake.science.sky import separation_arcsec
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from tasks.samples.answers import Answer, position_in
from tasks.samples.collect import add_collected, collect, known_samples, sample_key, translated
from tasks.samples.literature import LITERATURE
from tasks.samples.sample import Collected
from tasks.samples.services import NED, SERVICES, VIZIER

OF_POSITIONS = ("macleod16", "green22", "lamassa15", "yang18", "ruan16")


@pytest.fixture(scope="module")
def services(data_dir: Path) -> Iterator[Literature]:
    with Sandbox() as box:
        made = Literature(box, data_dir)
        yield made
        made.close()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "services" in request.fixturenames:
        served = request.getfixturevalue("services")
        for one in (served.ned, served.vizier, served.sdss, served.alerce):
            one.faults.waiting.clear()
        served.box._faults.clear()


@pytest.fixture
def reached(services: Literature, settings: Settings) -> Settings:
    update = {"endpoints": services.endpoints, "retries": 1, "retry_delay_s": 0.0, "timeout_s": 5.0}
    return settings.model_copy(update=update)


def one(name: str, settings: Settings, **parameters: object) -> Collected:
    (got,) = collect(name, parameters, settings)
    return got


def contents(catalog: Catalog) -> tuple[list, list]:
    cursor = catalog.cursor()
    return tuple(cursor.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in ("targets", "labels"))


def test_the_known_positions_of_five_papers_come_out_and_keep_all_their_labels(reached, catalog, data_dir):
    got = [one(name, reached) for name in OF_POSITIONS]
    added = add_collected(catalog, got)
    rows = (
        catalog.cursor()
        .execute("SELECT target_id, ra, dec, label FROM labels JOIN targets USING (target_id)")
        .fetchall()
    )
    known = real.positions(data_dir)
    assert len(known) == 57
    at = {}
    for ra, dec, label in known:
        near = {row[0] for row in rows if row[3] == label and separation_arcsec(ra, dec, row[1], row[2]) <= 1.0}
        assert len(near) == 1, (ra, dec, label)
        at.setdefault(near.pop(), set()).add(label)
    assert sorted(map(len, at.values()), reverse=True)[:5] == [4, 3, 2, 2, 1]
    assert {"MacLeod 16", "LaMassa 15", "Yang 18", "Ruan 16"} in at.values(), "J015957.64+003310.4 is in four papers"
    assert sum(one.labels for one in added) == len({(row[0], row[3]) for row in rows})
    assert errors(catalog) == []


def test_each_row_keeps_paper_catalogue_and_row(reached, catalog):
    add_collected(catalog, [one("green22", reached), one("ruan16", reached)])
    rows = (
        catalog.cursor()
        .execute("SELECT DISTINCT sample, label, bibcode, catalogue FROM labels ORDER BY ALL")
        .fetchall()
    )
    assert rows == [("green22", "Green 22", real.GREEN, real.GREEN_TABLE), ("ruan16", "Ruan 16", real.RUAN, "NED")]
    numbers = (
        catalog.cursor().execute("SELECT row_in_catalogue FROM labels WHERE sample = 'green22' ORDER BY ALL").fetchall()
    )
    assert [number for (number,) in numbers] == list(range(1, 32, 2)), "every other row is of another spectrum"


def test_what_the_table_says_selects_the_rows(reached):
    got = one("macleod19", reached)
    assert (got.targets.num_rows, got.answered, got.expected, got.seen) == (17, 262, 17, date(2026, 11, 28))
    assert got.service == "vizier"
    assert "CLQ? > 0 and Nsigma > 3" in got.query
    assert not any("were seen" in remark for remark in got.remarks)
    lopez = one("lopeznavas22", reached)
    assert sorted(lopez.targets["redshift"].to_pylist()) == [0.0849, 0.1022, 0.1083, 0.2375]
    assert lopez.answered == 6


def test_a_list_by_reference_code_is_not_the_papers(reached):
    """NED has 17 objects of MacLeod et al. 2016, of which 10 are the paper's."""
    listed, own = one("macleod16", reached), one("macleod16_own", reached)
    assert (listed.targets.num_rows, own.targets.num_rows) == (17, 10)
    assert any("10 changing-look quasars" in remark for remark in listed.remarks)
    assert min(own.targets["dec"].to_pylist()) > -1.0, "NGC 1097 and NGC 7582 are in the south"


def test_the_object_of_lamassa_is_found_by_its_position(reached, services):
    got = one("lamassa15", reached)
    assert got.answered == 3
    assert got.targets["ra"].to_pylist() == [29.99]
    services.ned.papers[real.LAMASSA].append(Published("later", 0.5, 0.5))
    try:
        assert one("lamassa15", reached).targets["ra"].to_pylist() == [29.99]
    finally:
        services.ned.papers[real.LAMASSA].pop()


def test_another_number_than_expected_is_said_and_written_down(reached, catalog):
    got = one("yang18", reached)
    assert got.targets.num_rows == 20
    assert "20 rows, where 31 were seen on 2026-11-28" in got.remarks
    add_collected(catalog, [got], match_radius_arcsec=2.0, run_id="run-1")
    (row,) = catalog.cursor().execute("FROM ledger").to_arrow_table().to_pylist()
    assert (row["archive"], row["status"], row["n_targets"], row["n_sources"]) == ("ned", "done", 20, 20)
    assert row["endpoint"].endswith("/ned/cgi-bin/objsearch")
    assert "where 31 were seen" in row["reason"]
    assert real.YANG in row["parameters"]
    assert row["started_at"] == got.asked_at
    assert (row["run_id"], row["attempt"]) == ("run-1", 1)


def test_a_sample_added_twice_changes_nothing(reached, catalog):
    names = ("yang18", "macleod19", "lopeznavas22", "green22")
    first = add_collected(catalog, [one(name, reached) for name in names])
    before = contents(catalog)
    again = add_collected(catalog, [one(name, reached) for name in names])
    assert contents(catalog) == before
    assert sum(one.new for one in first) > 50
    assert [(one.new, one.labels) for one in again] == [(0, 0)] * 4
    attempts = catalog.cursor().execute("SELECT attempt, count(*) FROM ledger GROUP BY 1 ORDER BY 1").fetchall()
    assert attempts == [(1, 4), (2, 4)]
    assert errors(catalog) == []


def test_with_a_radius_of_zero_rows_are_known_again_by_number_or_name(reached, services, catalog):
    oids = list(services.alerce.objects)[:3]

    def all_of_them() -> list[Collected]:
        got = [one(name, reached) for name in ("yang18", "ruan16", "green22")]
        return [*got, one("ztf_names", reached, oids=oids), one("sdss", reached, num=5, seed=2)]

    first = add_collected(catalog, all_of_them(), match_radius_arcsec=0.0)
    assert [added.new for added in first] == [20, 3, 16, 3, 5]
    services.ned.papers[real.RUAN].append(Published("first by right ascension", 0.1, 0.1))
    try:
        again = add_collected(catalog, all_of_them(), match_radius_arcsec=0.0)
    finally:
        services.ned.papers[real.RUAN].pop()
    assert [(added.new, added.labels) for added in again] == [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)]
    assert errors(catalog) == []


def test_what_ned_lists_meanwhile_moves_rows_and_no_labels(reached, services, catalog):
    add_collected(catalog, [one("ruan16", reached)])
    services.ned.papers[real.RUAN].append(Published("first by right ascension", 0.1, 0.1))
    try:
        (added,) = add_collected(catalog, [one("ruan16", reached)])
    finally:
        services.ned.papers[real.RUAN].pop()
    assert (added.new, added.known, added.labels) == (1, 3, 1)


def test_more_than_ten_samples_are_one_transaction(reached, catalog):
    """So many rows of the ledger come as a file, not in the catalogue."""
    names = ("yang18", "macleod16", "macleod16_own", "ruan16", "lamassa15", "green22")
    got = [one(name, reached) for name in names]
    got += [one("sdss", reached, num=3, seed=seed, sample=f"draw {seed}") for seed in range(6)]
    snapshots = "SELECT count(*) FROM ducklake_snapshots('lake')"
    before = catalog.cursor().execute(snapshots).fetchall()[0][0]
    add_collected(catalog, got)
    assert catalog.cursor().execute(snapshots).fetchall()[0][0] == before + 1
    assert catalog.cursor().execute("SELECT count(*) FROM ledger").fetchall() == [(12,)]
    assert errors(catalog) == []


def test_services_are_no_archives_in_the_status(reached, catalog):
    from lake.upkeep.maintenance import status

    add_collected(catalog, [one("ruan16", reached)])
    assert status(catalog.cursor()).num_rows == 0


# Path below which the sandbox spoils answers, and the sample that asks there.
ASKED = {
    "ned": ("/ned", "ruan16", {}),
    "vizier": ("/vizier", "macleod19", {}),
    "simbad": ("/simbad", "lopeznavas22", {}),
    "sdss": ("/skyserver", "sdss", {"num": 50}),
    "alerce": ("/alerce", "ztf_names", {}),
}
PASSING = ("status:429", "status:503", "garbage", "short", "truncate", "reset")
OWN_PASSING = [
    ("ned", "error"), ("ned", "empty"), ("ned", "numbers"), ("vizier", "no-server"), ("vizier", "empty"),
    ("sdss", "error"), ("sdss", "empty"), ("sdss", "header"), ("sdss", "cut"), ("alerce", "empty"),
]  # fmt: skip
OWN_FINAL = [
    ("ned", "zero"), ("ned", "refused"), ("vizier", "refused"), ("vizier", "truncated"), ("sdss", "refused"),
    ("sdss", "disorder"), ("sdss", "float"), ("alerce", "refused"), ("alerce", "no-items"), ("alerce", "strange"),
]  # fmt: skip


def ask(service: str, services: Literature, settings: Settings) -> Collected:
    _, name, parameters = ASKED[service]
    if service == "alerce":
        parameters = {"oids": list(services.alerce.objects)[:5]}
    return one(name, settings, **parameters)


def check_line(error: ArchiveError, service: str, services: Literature) -> None:
    """One line that names the service and its address, and says what to do."""
    assert error.archive == service
    assert error.endpoint.startswith(services.endpoints[service])
    line = str(error)
    assert "\n" not in line
    assert f"sample {ASKED[service][1]} is not whole, and nothing was added" in line


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("service", ASKED)
def test_what_may_pass_is_asked_again(service, kind, reached, services):
    """No answer is kept: the second request reaches the service."""
    services.box.fault(ASKED[service][0], kind)
    assert ask(service, services, reached).targets.num_rows > 2


@pytest.mark.parametrize(("service", "kind"), OWN_PASSING)
def test_bad_answers_of_a_service_are_asked_again(service, kind, reached, services):
    getattr(services, service).faults.add(kind)
    assert ask(service, services, reached).targets.num_rows > 2


@pytest.mark.parametrize("kind", [*PASSING, "status:403", "status:404"])
@pytest.mark.parametrize("service", ASKED)
def test_what_stays_is_one_line_that_says_what_to_do(service, kind, reached, services):
    services.box.fault(ASKED[service][0], kind, 3)
    with pytest.raises(ArchiveError) as caught:
        ask(service, services, reached)
    check_line(caught.value, service, services)
    left = len([path for path, _ in services.box._faults if path == ASKED[service][0]])
    assert left == (2 if kind in ("status:403", "status:404") else 1), "one retry, if it may help"
    if kind != "status:404":
        assert SERVICES[service].setting in str(caught.value)


@pytest.mark.parametrize(("service", "kind"), [*OWN_FINAL, *OWN_PASSING])
def test_bad_answers_that_stay_are_one_line(service, kind, reached, services):
    getattr(services, service).faults.add(kind, 4)
    with pytest.raises(ArchiveError) as caught:
        ask(service, services, reached)
    check_line(caught.value, service, services)


def test_a_cut_table_is_noticed_by_its_number_of_rows(reached, services):
    services.vizier.faults.waiting += ["", "cut", "cut"]
    with pytest.raises(ArchiveError, match="131 of the 262 rows"):
        one("macleod19", reached)


def test_fifty_rows_may_be_vizier_s_limit(reached, services, data_dir):
    """Where it does not say how many there are."""
    services.vizier.catalogues["J/X/1/t"] = Catalogue("2020ApJ...900....1X", real.macleod19(data_dir).slice(0, 50))
    asked = {"paper": "2020ApJ...900....1X", "table": "J/X/1/t"}
    try:
        assert one("paper", reached, **asked).targets.num_rows == 50
        services.vizier.faults.add("unlisted")
        with pytest.raises(ArchiveError, match="does not say how many"):
            one("paper", reached, **asked)
    finally:
        del services.vizier.catalogues["J/X/1/t"]


def test_simbad_that_overflows_is_not_taken(reached, services):
    services.simbad.hard_limit = 3
    try:
        with pytest.raises(TruncatedAnswer) as caught:
            one("lopeznavas22", reached)
    finally:
        services.simbad.hard_limit = None
    check_line(caught.value, "simbad", services)


def test_a_service_that_hangs_is_given_up(reached, services):
    services.box.fault("/ned", "hang", 2)
    impatient = reached.model_copy(update={"timeout_s": 0.3})
    with pytest.raises(ArchiveError, match=r"no answer for 0\.3 s"):
        one("ruan16", impatient)


def test_a_service_that_dies_in_the_middle_adds_nothing(reached, services, catalog):
    add_collected(catalog, [one("ruan16", reached)])
    before = contents(catalog)
    services.box.fault("/vizier", "status:503", 9)
    with pytest.raises(ArchiveError):
        add_collected(catalog, [one(name, reached) for name in ("yang18", "macleod16", "macleod19")])
    assert contents(catalog) == before


def test_a_sample_that_cannot_be_written_adds_no_other(reached, catalog):
    good = one("ruan16", reached)
    bad = Collected("bad", pa.table({"ra": [1.0], "dec": [95.0]}), "ned", "there", "all")
    with pytest.raises(ConfigurationError, match="no position"):
        add_collected(catalog, [good, bad])
    assert contents(catalog) == ([], [])
    assert catalog.cursor().execute("SELECT count(*) FROM ledger").fetchall() == [(0,)]


@pytest.mark.parametrize("names", [{"CLQ?": "CLQ_"}, {"CLQ?": "CLQ", "_RA": "_RAJ2000", "_DE": "_DEJ2000"}, "upper"])
def test_columns_are_found_under_each_name_that_any_version_gives(names, reached, services, data_dir):
    rows = real.macleod19(data_dir)
    renamed = [name.upper() if names == "upper" else names.get(name, name) for name in rows.column_names]
    before = services.vizier.catalogues[real.MACLEOD19_TABLE]
    services.vizier.catalogues[real.MACLEOD19_TABLE] = Catalogue(real.MACLEOD19, rows.rename_columns(renamed))
    try:
        assert one("macleod19", reached).targets.num_rows == 17
    finally:
        services.vizier.catalogues[real.MACLEOD19_TABLE] = before


def test_neds_columns_of_2013_are_read_too(reached, services):
    today = one("macleod16", reached).targets
    columns = services.ned.columns
    services.ned.of_2013()
    try:
        assert one("macleod16", reached).targets.equals(today)
    finally:
        services.ned.columns = columns


def test_the_saved_answer_of_ned_is_read(data_dir, reached):
    from tasks.samples import ned
    from tasks.services.http import Reply, Session

    body = (data_dir / "literature_samples" / "ned_query_refcode.xml").read_bytes()
    with Session("ned", "http://there", 1.0, 1.0) as session:
        answer = ned._read(Reply("http://there", 200, "", {}, body), session.budget(), "1997A&A...323...31K")
        assert answer.table.num_rows == 36
        ra, dec = answer.positions(("RA", "RA(deg)"), ("DEC", "DEC(deg)"))
        assert (ra[-1], dec[-1]) == (351.98635, 8.77904)
        assert answer.redshifts("Redshift")[-1].as_py() == 0.028924
        error = (data_dir / "literature_samples" / "ned_error.xml").read_bytes()
        with pytest.raises(ArchiveError, match="No note found") as caught:
            ned._read(Reply("http://there", 200, "", {}, error), session.budget(), "any")
        assert not caught.value.transient


def test_the_saved_answers_of_vizier_are_read(data_dir):
    from tasks.samples import vizier
    from tasks.services.http import Reply, Session

    folder = data_dir / "literature_samples"
    with Session("vizier", "http://there", 1.0, 1.0) as session:
        found = Reply("http://there", 200, "", {}, (folder / "vizier_find_kangapj70683.xml").read_bytes())
        assert vizier._read_tables(found, session.budget()) == {"J/ApJ/706/83/ysos": 737}
        away = Reply("http://there", 200, "", {}, (folder / "vizier_no_server.xml").read_bytes())
        with pytest.raises(ArchiveError, match="not currently reachable") as caught:
            vizier._read(away, session.budget())
        assert caught.value.transient


def test_columns_in_other_units_are_noticed_by_names_that_carry_a_position(reached, services, data_dir):
    """A right ascension in hours, read as degrees, is on the sky, too."""
    rows = real.macleod19(data_dir)
    hours = rows.set_column(0, "_RA", pa.array(rows["_RA"].to_numpy() / 15.0))
    before = services.vizier.catalogues[real.MACLEOD19_TABLE]
    services.vizier.catalogues[real.MACLEOD19_TABLE] = Catalogue(real.MACLEOD19, hours)
    try:
        with pytest.raises(ArchiveError, match="its name is SDSS J"):
            one("macleod19", reached)
    finally:
        services.vizier.catalogues[real.MACLEOD19_TABLE] = before


def test_a_table_without_columns_of_positions_may_have_names_that_carry_them(reached, services):
    names = ["CRTS J014415.3−002349.6", "CRTS J015957.6+003310.5"]
    table = LITERATURE["graham19"].table
    rows = pa.table({"Class": ["a", "b"], "CRTSname": names})
    services.vizier.catalogues[table] = Catalogue(LITERATURE["graham19"].bibcode, rows)
    try:
        got = one("graham19", reached)
        services.vizier.catalogues[table] = Catalogue(LITERATURE["graham19"].bibcode, rows.select(["Class"]))
        with pytest.raises(ArchiveError, match="no column of positions, and no names"):
            one("graham19", reached)
    finally:
        del services.vizier.catalogues[table]
    assert got.targets["name"].to_pylist() == names
    assert got.targets["dec"].to_pylist() == pytest.approx([-0.39711, 0.55292], abs=1e-5)
    assert "2 rows, where the paper says 111" in got.remarks


def test_positions_in_sexagesimal_text_and_in_names(data_dir):
    text = pa.table({"RAJ2000": ["01 59 57.64", "23:36:02.98"], "DEJ2000": ["-00 33 10.4", "+00:17:28.7"]})
    ra, dec = Answer(VIZIER, text, "").positions(("RAJ2000",), ("DEJ2000",))
    assert np.allclose(ra, [29.99017, 354.01242], atol=1e-5)
    assert np.allclose(dec, [-0.55289, 0.29131], atol=1e-5)
    assert position_in("CRTS J014415.3−002349.6")[1] == pytest.approx(-0.39711, abs=1e-5)
    assert position_in("SDSS J0159+0033") is None
    assert position_in("2MASX J20232535+1131352") is None
    with pytest.raises(ArchiveError, match="1 of 2 rows have no position"):
        Answer(NED, pa.table({"RA": [1.0, None], "DEC": [1.0, 2.0]}), "").positions(("RA",), ("DEC",))
    with pytest.raises(ArchiveError, match="no column RA or RA"):
        Answer(NED, pa.table({"lon": [1.0]}), "").column("RA", "RA(deg)")


def test_any_paper_by_its_bibcode(reached, catalog):
    got = one("paper", reached, paper=real.YANG, label="CLAGN of Yang")
    assert got.sample == "CLAGN of Yang"
    assert set(got.targets["label"].to_pylist()) == {"CLAGN of Yang"}
    by_simbad = one("paper", reached, paper=real.YANG, service="simbad")
    assert by_simbad.targets.num_rows == got.targets.num_rows
    assert by_simbad.sample == real.YANG
    remarks = one("paper", reached, paper=real.MACLEOD16).remarks
    assert "macleod16_own" in remarks[-1]
    with pytest.raises(ConfigurationError, match="no bibcode"):
        one("paper", reached, paper="Yang 2018")
    with pytest.raises(ArchiveError, match="No objects found"):
        one("paper", reached, paper="2001ApJ...000....1X")


def test_a_selection_that_holds_on_no_row_says_how_to_get_all(reached, services):
    kept = services.ned.papers[real.LAMASSA]
    services.ned.papers[real.LAMASSA] = kept[1:]
    try:
        with pytest.raises(ArchiveError) as caught:
            one("lamassa15", reached)
    finally:
        services.ned.papers[real.LAMASSA] = kept
    assert "--paper" in caught.value.hint


def test_objects_of_ztf_by_name(reached, services):
    oids = list(services.alerce.objects)
    got = one("ztf_names", reached, oids=[*oids, oids[0]])
    assert got.targets["name"].to_pylist() == oids, "in the order that was asked for, over several requests"
    assert got.targets["ra"].to_pylist() == [services.alerce.objects[oid][0] for oid in oids]
    assert got.requests == 3
    services.alerce.page_size = 7
    try:
        assert one("ztf_names", reached, oids=oids[:30]).targets["name"].to_pylist() == oids[:30]
    finally:
        services.alerce.page_size = None
    with pytest.raises(ArchiveError, match="does not know 1 of 2 names: ZTF99zzzzzzz"):
        one("ztf_names", reached, oids=[oids[0], "ZTF99zzzzzzz"])
    with pytest.raises(ConfigurationError, match="no name of ZTF"):
        one("ztf_names", reached, oids=["3C 273"])


def test_a_list_in_a_file_is_a_sample(tmp_path, catalog):
    settings = load_settings(url=str(tmp_path / "x"))
    path = tmp_path / "mine.csv"
    path.write_text("name,ra,dec,class\nA,1,2,QSO\nB,3,4,\n")
    got = one("file", settings, path=str(path), label="AGN", label_column="class")
    assert got.sample == "mine"
    assert got.targets["label"].to_pylist() == ["QSO", "AGN"]
    assert add_collected(catalog, [got])[0].new == 2
    path.write_text("name,ra,dec\nA,1,2\nB,400,4\n")
    with pytest.raises(ConfigurationError, match="line 3"):
        one("file", settings, path=str(path))


def test_the_collectors_names_and_parameters_are_known():
    theirs = "lamassa macleod16 ruan macleod19 sheng green lyu lopeznavas hon yang sanchezsaez graham"
    assert {sample_key(name) for name in theirs.split()} == LITERATURE.keys() - {"macleod16_own"}
    assert [sample_key(name) for name in ("SDSS", "ZTF_objectid", "papers_list", "paper", "csv", "Yang18")] == [
        "sdss", "ztf_names", "paper", "paper", "file", "yang18",
    ]  # fmt: skip
    assert translated("green", {}) == [("green22", {})]
    assert translated("ZTF_objectid", {"objectids": ["ZTF18aabtxvd"]}) == [("ztf_names", {"oids": ["ZTF18aabtxvd"]})]
    assert translated("csv", {"csv_path": "a.csv", "label": "x", "ra_colname": "RA", "dec_colname": "DE"}) == [
        ("file", {"path": "a.csv", "label": "x", "ra": "RA", "dec": "DE"})
    ]
    assert translated("SDSS", {"num": 0}) == []
    with pytest.raises(ConfigurationError, match="did you mean yang"):
        sample_key("yangg")
    for name, model in known_samples().items():
        assert model.model_fields.keys() >= {"sample", "label"}, name


def test_a_wrong_name_or_parameter_is_one_line(reached):
    with pytest.raises(ConfigurationError, match="unknown sample 'yang81'"):
        collect("yang81", {}, reached)
    with pytest.raises(ConfigurationError, match="num cannot be 0"):
        collect("sdss", {"num": 0}, reached)
    with pytest.raises(ConfigurationError, match="nonsense"):
        collect("yang18", {"nonsense": 1}, reached)
