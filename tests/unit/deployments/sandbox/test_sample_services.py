"""The stand-ins of the services that samples are got from, as astroquery's own clients see them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from astropy.utils.exceptions import AstropyWarning
from astroquery import cache_conf
from pyvo.dal import TAPService

from deployments.sandbox import papers
from deployments.sandbox.papers import Published
from deployments.sandbox.server import Sandbox
from deployments.sandbox.simbad import serve
from deployments.sandbox.vizier import Catalogue

BIBCODE = "2020ApJ...900....1X"
OBJECTS = [Published("Mrk 1018", 31.5666, -0.2914, 0.043), Published("SDSS J0001+0000 & co", 0.25, 0.0)]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox() as made, cache_conf.set_temp("cache_active", False):
        made.services["simbad"] = serve(made, [("NGC  1", "NGC 1")])
        papers.mount(made, {BIBCODE: OBJECTS})
        yield made


def test_ned(box, monkeypatch):
    from astroquery.exceptions import RemoteServiceError
    from astroquery.ipac.ned import Ned

    monkeypatch.setattr(Ned, "OBJ_SEARCH_URL", f"{box.endpoints['ned']}/objsearch")
    found = Ned.query_refcode(BIBCODE)
    assert found.colnames[:4] == ["No.", "Object Name", "RA", "DEC"]
    assert [tuple(row)[:4] for row in found] == [
        (1, "SDSS J0001+0000 & co", 0.25, 0.0),
        (2, "Mrk 1018", 31.5666, -0.2914),
    ]
    assert found["Redshift"].mask.tolist() == [True, False]
    with pytest.raises(RemoteServiceError, match="No objects found"):
        Ned.query_refcode("2000ApJ...000....0X")


def test_vizier(box, monkeypatch):
    from astroquery.vizier import Vizier, VizierClass

    url = f"{box.endpoints['vizier']}/votable"
    monkeypatch.setattr(VizierClass, "_server_to_url", lambda self, return_type="votable": url)
    rows = pa.table({"_RA": [float(n) for n in range(70)], "CLQ?": list(range(70)), "Notes": ["CLQ", None] * 35})
    box.services["vizier"].catalogues["J/ApJ/900/1/table2"] = Catalogue(BIBCODE, rows)
    assert list(Vizier.find_catalogs(BIBCODE)) == ["J/ApJ/900/1"]
    assert list(Vizier.find_catalogs("2000ApJ...000....0X")) == []
    assert len(Vizier.get_catalogs("J/ApJ/900/1/table2")[0]) == 50, "its limit, of which nothing is said"
    (whole,) = VizierClass(row_limit=-1).get_catalogs("J/ApJ/900/1")
    assert whole.colnames == ["_RA", "CLQ?", "Notes"]
    assert len(whole) == 70
    box.services["vizier"].faults.add("no-server")
    assert len(VizierClass(row_limit=-1).get_catalogs("J/ApJ/900/1")) == 0, "an error is an empty list for astroquery"


def test_simbads_papers(box):
    service = TAPService(box.services["simbad"].url)
    query = (
        'SELECT basic."main_id", basic."ra", ref."bibcode", has_ref."obj_freq" FROM basic JOIN has_ref ON '
        'basic."oid" = has_ref."oidref" JOIN ref ON has_ref."oidbibref" = ref."oidbib" WHERE bibcode = '
    )
    rows = service.search(f"{query}'{BIBCODE}' ORDER BY ra").to_table()
    assert list(rows["main_id"]) == ["SDSS J0001+0000 & co", "Mrk 1018"]
    assert rows["obj_freq"].mask.all()
    assert len(service.search(f"{query}'none'").to_table()) == 0
    named = service.search("SELECT main_id FROM basic JOIN ident ON oid = oidref WHERE id = 'Mrk 1018'").to_table()
    assert list(named["main_id"]) == ["Mrk 1018"]


def test_skyserver(box, monkeypatch):
    from astroquery.exceptions import RemoteServiceError
    from astroquery.sdss import SDSS, conf

    monkeypatch.setattr(conf, "skyserver_baseurl", box.endpoints["sdss"])
    query = "SELECT TOP 20 s.specObjID, s.ra, s.z FROM SpecObj AS s WHERE s.class = 'QSO' ORDER BY s.specObjID DESC"
    with pytest.warns(AstropyWarning, match="specObjID"):
        found = SDSS.query_sql(query, data_release=16, cache=False)
    assert found.colnames == ["specObjID", "ra", "z"]
    assert len(found) == 20
    assert found["specObjID"].dtype.kind == "u"
    assert int(found["specObjID"][0]) > 2**63
    for wrong in ("SELECT nothing FROM SpecObj", "SELECT"):
        with pytest.raises(RemoteServiceError):
            SDSS.query_sql(wrong, data_release=16, cache=False)


def test_alerce_gives_ten_unless_more_are_asked_for(box):
    import httpx

    oids = list(box.services["alerce"].objects)[:12]
    url = f"{box.endpoints['alerce']}/objects"
    asked = [("oid", oid) for oid in [*oids, "ZTF99zzzzzzz"]]
    first = httpx.get(url, params=asked).json()
    assert (len(first["items"]), first["has_next"], first["total"]) == (10, True, None)
    second = httpx.get(url, params=[*asked, ("page", "2")]).json()
    assert (len(second["items"]), second["has_next"]) == (2, False)
    got = [item["oid"] for item in (*first["items"], *second["items"])]
    assert got != oids
    assert sorted(got) == sorted(oids)
