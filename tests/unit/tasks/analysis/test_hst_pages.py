"""Pages of HST light curves: which are where, links, hostile names, missing values, empty lists, what charts show."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from helpers.hst_survey import HOSTILE, Survey

import tasks.analysis.hst_charts as charts
from tasks.analysis.hst_pages import WRITTEN, Pages, from_table, write_pages
from tasks.analysis.html_pages import PAGES
from tasks.sources.hst_timetag.variability import Band

PNG = b"\x89PNG\r\n\x1a\n"
PAGES_OF_LISTS = ("interesting_hstlc.html", "boring_hstlc.html", "null_hstlc.html", "periodogram_subset.html")


class Parsed(HTMLParser):
    """Links, scripts, texts and cells of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.rows: list[list[str | None]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.tags.append(tag)
        self.links += [value for key, value in attributes if key in ("href", "src") and value is not None]
        if tag == "script":
            self.scripts.append(values)
        elif tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append(values["data-v"])

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(survey: Survey, folder: Path, **how: Any) -> Pages:
    statistics, exposures, bins = survey.tables()
    return write_pages(folder, statistics, exposures, from_table(bins), **how)


def specs(path: Path) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" id="chart\d+">(.*?)</script>', path.read_text(), re.DOTALL)
    return [json.loads(one) for one in found]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of four composites: interesting, periodic, boring with a hostile name and no flux, null."""
    survey, folder = Survey(), tmp_path_factory.mktemp("pages") / "new"
    survey.add("V* AE Aqr", factor=1.2)
    survey.add("LB 227", factor=3.5, period_s=30.0, configuration=("COS", "NUV", "G230L", 2950, "PSA"))
    survey.add(HOSTILE, factor=1.19, flux=None, configuration=("STIS", "FUV-MAMA", HOSTILE, 0, HOSTILE))
    survey.add("HD 1", factor=None, net=None, exposures=1)
    done = pages(survey, folder)
    assert (done.start, done.composites, done.without_bins) == (folder / "index.html", 4, 0)
    return folder


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write something in place of each picture: drawing takes longest, and `written` has the pictures themselves."""
    monkeypatch.setattr(charts, "chart_png", lambda chart: PNG)


def test_every_light_curve_is_in_one_table(written: Path) -> None:
    targets = {name: [row[0] for row in Parsed(written / name).rows if row] for name in PAGES_OF_LISTS}
    assert targets["interesting_hstlc.html"] == ["LB 227", "V* AE Aqr"]
    assert len(targets["boring_hstlc.html"]) == 1
    assert targets["null_hstlc.html"] == ["HD 1"]
    assert targets["periodogram_subset.html"] == ["LB 227"]


def test_tables_have_the_published_columns(written: Path) -> None:
    page = Parsed(written / "interesting_hstlc.html")
    values = page.rows[1][2:]
    assert values[:4] == ["COS/NUV", "G230L", "2950", "PSA"]
    assert [float(value or "nan") for value in values[4:]] == [240, 1000, 0.25, 3.5, 0.25, 0.25]
    assert "hlsp_hstlc_hst_cos-nuv_lb-227_g230l_2950_psa_v1_sci.fits" in page.text


@pytest.mark.usefixtures("without_pictures")
def test_names_are_never_taken_apart(tmp_path: Path) -> None:
    survey = Survey()
    survey.add("A_B", factor=2.0, exposures=1, bins=8, configuration=("COS", "NUV", "G230L", 2950, "P_S_A"))
    pages(survey, tmp_path)
    cells = Parsed(tmp_path / "interesting_hstlc.html").rows[1]
    assert (cells[0], cells[2:6]) == ("A_B", ["COS/NUV", "G230L", "2950", "P_S_A"])


def test_panels_are_labelled_with_what_they_show() -> None:
    survey = Survey()
    survey.add("A", exposures=1, bins=8)
    spec = charts.dashboard(survey.tables()[2]).to_dict()
    titles = [panel["encoding"]["y"] for panel in spec["vconcat"][:4]]
    axes = {one["field"]: " ".join(np.atleast_1d(one["title"])) for one in titles}
    assert "flux" in axes["flux"].lower()
    assert "erg" in axes["flux"]
    assert "net" in axes["net"].lower()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("threshold", [0.5, 10.0])
def test_the_threshold_is_a_parameter(threshold: float, tmp_path: Path) -> None:
    survey = Survey()
    survey.add("A", factor=1.2, exposures=1, bins=8)
    pages(survey, tmp_path, threshold=threshold)
    rows = {name: len(Parsed(tmp_path / name).rows) for name in PAGES_OF_LISTS[:2]}
    assert rows == dict(zip(PAGES_OF_LISTS[:2], (2, 0) if threshold < 1 else (0, 2), strict=True))


def test_all_links_lead_to_files_of_the_folder(written: Path) -> None:
    found = list(written.rglob("*.html"))
    assert len(found) == len(PAGES) + 1 + 4
    for path in found:
        for link in Parsed(path).links:
            assert "://" not in link
            assert (path.parent / unquote(link)).resolve().is_relative_to(written.resolve())
            assert (path.parent / unquote(link)).is_file(), (path, link)
    reached, ahead = set(), [written / "index.html"]
    while ahead:
        path = ahead.pop()
        if path not in reached and path.suffix == ".html":
            reached.add(path)
            ahead += [(path.parent / unquote(link)).resolve() for link in Parsed(path).links]
    assert {path.resolve() for path in reached} == {path.resolve() for path in found}


def test_pictures_are_there_of_each(written: Path) -> None:
    names = [path.name.removesuffix(".html") for path in (written / "composite").glob("*.html")]
    for name in names:
        for picture in (f"composite/{name}.png", f"periodograms/{name}_periodogram.png"):
            assert (written / picture).read_bytes().startswith(PNG)


def test_names_are_text_and_scripts_are_those_of_the_pages(written: Path) -> None:
    for path in written.rglob("*.html"):
        page = Parsed(path)
        assert "onerror" not in str(page.scripts)
        assert all(link != "x" for link in page.links)
        sources = [script["src"] for script in page.scripts if "src" in script]
        assert {Path(str(source)).name for source in sources} <= {"vega.js"}
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', path.read_text())
        assert policy is not None
        assert "'unsafe-inline'" not in policy[1].partition("style-src")[0]
        assert "\x1b" not in path.read_text()
        assert "\u202e" not in path.read_text()
    (hostile,) = (path for path in (written / "composite").glob("*.html") if "script" in path.name)
    assert "globalThis.ran = 1" in Parsed(hostile).text
    assert hostile.name.isascii()


def test_what_is_not_known_is_no_number(written: Path) -> None:
    cells = Parsed(written / "null_hstlc.html").rows[1]
    assert cells[-4:] == ["", "", "", ""]
    assert "nan" not in Parsed(written / "null_hstlc.html").text.lower()
    for path in (written / "composite").glob("*.html"):
        assert not re.search(r"\b(NaN|Infinity)\b", "".join(map(json.dumps, specs(path))))


def test_nothing_makes_pages_that_say_so(tmp_path: Path) -> None:
    empty = pa.table({"source_id": pa.array([], pa.string()), "product": pa.array([], pa.string())})
    done = write_pages(tmp_path, empty, empty, lambda name: empty)
    assert done.composites == 0
    for name in PAGES:
        if name != "index.html":
            assert "There are none." in Parsed(tmp_path / name).text


def test_a_composite_without_bins_is_counted_and_left_out(tmp_path: Path) -> None:
    survey = Survey()
    survey.add("A", exposures=1, bins=8)
    statistics, exposures, bins = survey.tables()
    done = write_pages(tmp_path, statistics, exposures, lambda name: bins.slice(0, 0))
    assert (done.composites, done.without_bins) == (0, 1)


def test_a_dashboard_has_five_panels_over_one_time_axis(written: Path) -> None:
    (path,) = (written / "composite").glob("*lb-227*.html")
    (spec,) = specs(path)
    assert [panel["encoding"]["y"]["field"] for panel in spec["vconcat"][:4]] == ["gross", "net", "flux", "error"]
    assert spec["resolve"]["scale"]["x"] == "shared"
    # There is no background here, which the fifth panel says.
    assert "no background" in json.dumps(spec["vconcat"][4])
    colours = spec["vconcat"][0]["encoding"]["color"]["scale"]
    assert len(colours["domain"]) == 2
    assert len(set(colours["range"])) == 2


def test_datasets_have_colours_in_turn(tmp_path: Path) -> None:
    survey = Survey()
    survey.add("A", exposures=8, bins=3)
    spec = charts.dashboard(survey.tables()[2]).to_dict()
    scale = spec["vconcat"][0]["encoding"]["color"]["scale"]
    assert [name.split(" · ")[0] for name in scale["domain"]] == [str(number) for number in range(1, 9)]
    assert scale["range"][:6] == list(charts.COLOURS)
    assert scale["range"][6:] == list(charts.COLOURS[:2])


def test_a_flux_that_is_none_breaks_no_picture() -> None:
    none = [None, float("nan"), float("inf")]
    survey = Survey()
    survey.add("A", exposures=1, bins=6)
    bins = survey.tables()[2]
    place = bins.column_names.index("flux")
    some = bins.set_column(place, "flux", pa.array([none[0], 1e-15, none[1], 2e-15, 3e-15, none[2]], pa.float64()))
    for table in (some, bins.set_column(place, "flux", pa.array(none * 2, pa.float64())), bins.slice(0, 1)):
        assert charts.figure_png(table).startswith(PNG)
        assert "NaN" not in charts.dashboard(table).to_json()


def test_many_bins_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "MOST_POINTS", 50)
    survey = Survey()
    survey.add("A", exposures=2, bins=60)
    frame, every = charts.drawable(survey.tables()[2])
    assert (len(frame), every) == (40, 3)
    assert frame["mjd"].is_monotonic_increasing


def test_peaks_stay_where_periods_are_thinned() -> None:
    powers = np.zeros(20_000)
    powers[12_345] = 0.9
    kept = charts._highest_of_each(np.arange(20_000.0), powers)
    assert len(kept) == 3_000
    assert 12_345 in kept


def test_a_periodogram_shows_mean_threshold_and_significant_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(charts, "chart_png", lambda chart: drawn.append(chart.to_dict()) or PNG)
    survey = Survey()
    survey.add("A", exposures=1, bins=300, period_s=30.0)
    bins = survey.tables()[2]
    found = charts.periods(bins)
    charts.periodogram_png(bins, found, "A")
    curve, short, *_ = drawn[0]["vconcat"]
    assert len(drawn[0]["vconcat"]) == 4
    assert curve["encoding"]["y"]["field"] == "net"
    data = [drawn[0]["datasets"][layer["data"]["name"]] for layer in short["layer"]]
    assert any(abs(row["period"] - 30.0) < 2.5 for row in data[0])
    assert len(data[1]) == 300
    band: Band = found["short"]
    assert [row["power"] for row in data[2]] == pytest.approx([band.powers.mean(), band.threshold])


def test_bars_are_of_the_thirty_longest() -> None:
    spec = charts.exposure_times({f"T{n}": float(n) for n in range(40)}).to_dict()
    (rows,) = spec["datasets"].values()
    assert [row["target"] for row in rows] == [f"T{n}" for n in range(39, 9, -1)]


def test_rings_are_of_detectors_that_have_composites() -> None:
    spec = charts.configurations({"COS FUV": {"G140L/1105": 2, "G130M/1291": 1}, "COS NUV": {}}).to_dict()
    (ring,) = spec["concat"]
    assert ring["title"] == "COS FUV"
    assert ring["layer"][0]["encoding"]["color"]["scale"]["domain"] == ["G140L/1105  (2)", "G130M/1291  (1)"]


def test_bars_of_elements_are_of_exposures_by_instrument(written: Path) -> None:
    spec = charts.optical_elements({("COS", "G230L"): 2, ("STIS", "G230L"): 3, ("COS", "G140L"): 4}).to_dict()
    assert spec["encoding"]["x"]["sort"] == ["G230L", "G140L"]
    (written_spec,) = specs(written / "opt_elem.html")
    (rows,) = written_spec["datasets"].values()
    assert {(row["instrument"], row["element"]): row["exposures"] for row in rows if row["instrument"] == "COS"} == {
        ("COS", "G140L"): 3,
        ("COS", "G230L"): 2,
    }


@pytest.mark.usefixtures("without_pictures")
def test_a_composite_without_a_row_of_its_own_is_known_by_its_exposures(tmp_path: Path) -> None:
    survey = Survey()
    survey.add("V* AE Aqr", exposures=1, bins=8)
    statistics, exposures, bins = survey.tables()
    single = exposures.filter(pc.equal(exposures["product"], "exposure"))
    write_pages(tmp_path, statistics, single, from_table(bins))
    (path,) = (tmp_path / "composite").glob("*.html")
    assert path.name == "hlsp_hstlc_hst_cos-fuv_v-ae-aqr_g140l_1105_psa_v1_sci.html"
    assert "V* AE Aqr · COS/FUV G140L/1105 PSA" in Parsed(path).text


@pytest.mark.usefixtures("without_pictures")
def test_pages_of_unchanged_composites_are_kept_without_their_bins(tmp_path: Path) -> None:
    survey = Survey()
    names = [survey.add(target, exposures=1, bins=8, factor=2.0) for target in ("A", "B")]
    statistics, exposures, bins = survey.tables()
    asked: list[str] = []

    def watched(source_id: str) -> pa.Table:
        asked.append(source_id)
        return from_table(bins)(source_id)

    write_pages(tmp_path, statistics, exposures, watched)
    first = (tmp_path / "interesting_hstlc.html").read_text()
    asked.clear()
    done = write_pages(tmp_path, statistics, exposures, watched, unchanged=names[:1])
    assert (asked, done.composites) == (names[1:], 2)
    assert (tmp_path / "interesting_hstlc.html").read_text() == first
    next((tmp_path / "composite").glob("*_a_*.png")).unlink()
    asked.clear()
    write_pages(tmp_path, statistics, exposures, watched, unchanged=names)
    assert asked == names[:1]


@pytest.mark.usefixtures("without_pictures")
def test_tables_list_the_periods_of_the_statistics(tmp_path: Path) -> None:
    survey = Survey()
    survey.add("A", exposures=1, bins=8, periodogram=True)
    survey.statistics[0] |= {"period_s_short": 33.25, "power_short": 0.5}
    pages(survey, tmp_path)
    cells = Parsed(tmp_path / "periodogram_subset.html").rows[1]
    assert cells[5:] == ["33.25", "0.5", "", "", "", ""]


@pytest.mark.usefixtures("without_pictures")
def test_pages_of_a_composite_that_is_no_more_go_and_nothing_else_does(tmp_path: Path) -> None:
    folder, kept = tmp_path / "pages", tmp_path / "kept.png"
    both, one = Survey(), Survey()
    for survey, targets in ((both, ("stays", "goes")), (one, ("stays",))):
        for target in targets:
            survey.add(target, bins=8, exposures=1)
    pages(both, folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    gone = {name for name in files if "_goes_" in name}
    assert len(gone) == 3
    kept.write_bytes(b"mine")
    (folder / "composite" / "mine_goes_.png").write_bytes(b"mine")
    names = [*json.loads((folder / WRITTEN).read_text()), "../../kept", "mine_goes_", 3]
    (folder / WRITTEN).write_text(json.dumps(names))
    pages(one, folder)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == files - gone | {"composite/mine_goes_.png"}
    assert kept.read_bytes() == b"mine"
