"""What a figure shows, read back from its Vega-Lite specification."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import vl_convert

from lake.errors import ConfigurationError
from tasks.analysis.figures.bands import styles
from tasks.analysis.figures.light_curve import About, light_curve
from tasks.analysis.figures.points import Fold, Look, points
from tasks.analysis.figures.saving import encoded, format_of

STYLES = styles(
    [
        ("ztf", "ztf_g", 474.6),
        ("ztf", "ztf_r", 636.6),
        ("wise", "W1", 3352.6),
        ("tess", "tess", 786.5),
        ("rxte", "pca_a", None),
        ("icecube", "IceCube", None),
        ("grbm", "GRBM", None),
    ],
    ["grbm", "icecube", "rxte", "tess", "wise", "ztf"],
)
TEXT, NUMBER = pa.string(), pa.float64()
SCHEMA = pa.schema(
    [
        *((name, TEXT) for name in ("archive", "band", "unit", "mag_system")),
        *((name, NUMBER) for name in ("mjd", "bmjd_tdb", "flux", "flux_err", "mag", "mag_err", "exposure_s")),
        *((name, pa.bool_()) for name in ("detected", "good")),
    ]
)


def rows() -> pa.Table:
    """A target as the lake has it: five units, limits, negative fluxes, bad measurements."""
    found: list[dict[str, Any]] = []

    def add(archive: str, band: str, unit: str | None, n: int, **more: Any) -> None:
        for i in range(n):
            values = {"flux": 1.0 + 0.01 * i, "flux_err": 0.05, "detected": True, "good": True, "mjd": 58000.0 + 10 * i}
            values |= {"bmjd_tdb": values["mjd"] + 0.003, "mag": 16.4, "mag_err": 0.05, "mag_system": "AB"}
            found.append({"archive": archive, "band": band, "unit": unit, **values, **more})

    add("ztf", "ztf_g", "mJy", 60)
    add("ztf", "ztf_r", "mJy", 40)
    add("ztf", "ztf_r", "mJy", 2, good=False)
    add("wise", "W1", "mJy", 7, flux=-0.2)
    add("wise", "W1", "mJy", 3, detected=False)
    add("tess", "tess", "electron.s**-1", 30, flux=4000.0, mag=None)
    add("rxte", "pca_a", "count.s**-1", 12, exposure_s=1600.0, mag=None)
    add("icecube", "IceCube", "GeV", 4, flux=900.0, flux_err=None, mag=None)
    add("grbm", "GRBM", None, 2, flux=None, flux_err=None, mag=None)
    return pa.Table.from_pylist(found, SCHEMA)


def drawn(look: Look | None = None, table: pa.Table | None = None) -> dict[str, Any]:
    look = look or Look()
    made = points(rows() if table is None else table, look)
    about = About("M 87", "12h30m49.4s +12d23m28s (ICRS)", ("Zwicky Transient Facility, release DR24: 2 sources.",))
    return light_curve(made, about, look, STYLES)


def views(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All named views of a figure, however deep."""
    if "name" in part and not part.get("vconcat"):
        yield part
    for inner in part.get("vconcat", ()):
        yield from views(inner)


def view(spec: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (one for one in views(spec) if one["name"] == name)
    return found


def layer(spec: dict[str, Any], name: str, mark: str) -> dict[str, Any]:
    return next(one for one in view(spec, name)["layer"] if one["mark"]["type"] == mark)


def test_units_have_panels_below_each_other() -> None:
    spec = drawn()
    assert [one["name"] for one in views(spec)] == [
        "dates",
        "panel_mJy",
        "zoom_ztf",
        "panel_count_s___1",
        "exposures",
        "panel_electron_s___1",
        "panel_GeV",
    ]
    names = [one["name"] for one in views(spec) if "layer" in one]
    titles = {name: layer(spec, name, "point")["encoding"]["y"]["title"] for name in names}
    assert titles["panel_mJy"] == titles["zoom_ztf"] == "Flux (mJy)"
    assert titles["panel_electron_s___1"] == "Flux (e⁻/s)"
    assert titles["panel_GeV"] == "Energy (GeV)"
    assert titles["panel_count_s___1"] == "Rate (counts/s)"
    ticks = layer(spec, "panel_GeV", "point")["encoding"]["y"]["axis"]["values"]
    assert all(one in {10.0**n for n in range(-9, 9)} for one in ticks)
    energies = [row["y"] for row in spec["datasets"]["panel_GeV"]]
    assert ticks[0] <= min(energies)
    assert 10 * ticks[-1] >= max(energies)
    assert layer(spec, "panel_GeV", "point")["encoding"]["y"]["scale"]["type"] == "log"


def test_every_flux_is_in_the_data_with_its_error() -> None:
    data = drawn()["datasets"]
    kinds = {name: Counter(row["kind"] for row in some) for name, some in data.items()}
    assert kinds["panel_mJy"] == {"point": 107, "limit": 3}
    assert kinds["panel_electron_s___1"] == {"point": 30}
    assert kinds["panel_GeV"] == {"point": 4}
    assert kinds["events"] == {"event": 2}
    assert all(row["err"] == 0.05 for row in data["panel_mJy"])
    assert sum(row["y"] < 0 for row in data["panel_mJy"]) == 10 - 3, "negative fluxes are fluxes"
    bars = layer(drawn(), "panel_mJy", "rule")
    assert bars["encoding"]["y"]["field"] == "low"
    assert bars["encoding"]["y2"]["field"] == "high"


def test_the_caption_counts_what_is_not_drawn() -> None:
    first, second, *others = drawn()["usermeta"]["caption"]
    assert first.startswith("160 measurements. Drawn: 153 good")
    assert second == "Not drawn: 2 not good."
    assert "release DR24" in others[-1]
    both = drawn(Look(with_bad=True))["usermeta"]["caption"]
    assert not any(line.startswith("Not drawn") for line in both)


def test_the_zoom_has_a_running_mean_of_each_band() -> None:
    spec = drawn(Look(mean_width_d=60.0))
    means = spec["datasets"]["mean_ztf"]
    assert {row["series"] for row in means} == {"ztf_g", "ztf_r"}
    assert means[0]["x"] == 58000.0
    assert means[1]["x"] - means[0]["x"] == 15.0
    assert "60 d" in view(spec, "zoom_ztf")["title"]["text"]
    assert {"filter": "datum.zoomed === 1"} in layer(spec, "zoom_ztf", "point")["transform"]
    assert {row["series"] for row in spec["datasets"]["panel_mJy"] if row["zoomed"]} == {"ztf_g", "ztf_r"}


def test_colours_go_by_wavelength_in_the_legend() -> None:
    for look in (Look(), Look(bands=("W1", "ztf_g"))):
        colour = layer(drawn(look), "panel_mJy", "point")["encoding"]["color"]["scale"]
        order = [name for name in ("ztf_g", "ztf_r", "tess", "W1", "IceCube", "pca_a") if name in colour["domain"]]
        assert colour["domain"] == order
        known = {band: style.colour for (_, band), style in STYLES.items()}
        assert dict(zip(colour["domain"], colour["range"], strict=True)) == {name: known[name] for name in order}


def test_events_are_lines_and_limits_are_arrows() -> None:
    spec = drawn()
    lines = view(spec, "panel_mJy")["layer"][-1]
    assert (lines["mark"]["type"], lines["data"]["name"]) == ("rule", "events")
    arrows = [one for one in view(spec, "panel_mJy")["layer"] if one["mark"].get("shape") == "arrow"]
    assert [one["mark"]["angle"] for one in arrows] == [180]
    magnitudes = view(drawn(Look(axis="magnitude")), "panel_AB_mag")
    assert [one["mark"]["angle"] for one in magnitudes["layer"] if one["mark"].get("shape") == "arrow"] == [0]
    assert (
        next(one for one in magnitudes["layer"] if one["mark"]["type"] == "point")["encoding"]["y"]["scale"]["reverse"]
        is True
    )


@pytest.mark.parametrize("scale", [*(pytest.param(one, marks=pytest.mark.long) for one in ("linear", "symlog")), "log"])
def test_the_axis_is_as_asked_for(scale: Any) -> None:
    axis = layer(drawn(Look(scale=scale)), "panel_mJy", "point")["encoding"]["y"]["scale"]
    assert axis["type"] == scale
    lines = drawn(Look(scale=scale))["usermeta"]["caption"]
    assert any("7 not positive" in line for line in lines) == (scale == "log")


def test_dates_stand_above_the_axis_in_mjd_and_phases_have_none() -> None:
    dates = view(drawn(), "dates")["encoding"]["x"]
    assert dates["axis"]["orient"] == "top"
    assert dates["scale"]["domain"] == layer(drawn(), "panel_mJy", "point")["encoding"]["x"]["scale"]["domain"]
    folded = drawn(Look(fold=Fold(2.5, 58000.0)))
    assert "dates" not in [one["name"] for one in views(folded)]
    assert layer(folded, "panel_mJy", "point")["encoding"]["x"]["scale"]["domain"] == [-0.5, 0.5]


@pytest.mark.parametrize(
    ("span_d", "mjd", "date"),
    [(0.03, "58000.015", "2017-09-04 00:21:36"), (2.0, "58000.8", "2017-09-04 12:00"), (900.0, "58300", "2018-03-23")],
)
def test_ticks_have_as_many_digits_as_they_need(span_d: float, mjd: str, date: str) -> None:
    """MJD 58000 is 2017-09-04 (aa.usno.navy.mil/data/JulianDate); 0.015 d later it is 00:21:36."""
    times = [58000 + span_d * i / 39 for i in range(40)]
    table = pa.Table.from_pylist(
        [
            dict.fromkeys(SCHEMA.names)
            | {"archive": "ztf", "band": "ztf_g", "unit": "mJy", "mjd": time, "flux": 1.0}
            | {"detected": True, "good": True}
            for time in times
        ],
        SCHEMA,
    )
    svg = vl_convert.vegalite_to_svg(drawn(table=table))
    labels = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    days, dates = ([one for one in labels if re.match(pattern, one)] for pattern in (r"5\d{4}", r"20\d\d-"))
    assert mjd in days
    assert date in dates
    assert len(days) >= 2 * 4  # of two axes
    assert (len({*days}), len({*dates})) == (len(days) / 2, len(dates))


def test_files_are_of_the_kind_that_their_name_says(tmp_path: Path) -> None:
    spec = drawn()
    assert encoded(spec, "png").startswith(b"\x89PNG")
    assert encoded(spec, "pdf").startswith(b"%PDF")
    svg = encoded(spec, "svg").decode()
    assert "160 measurements" in svg, "the caption is below it"
    assert json.loads(encoded(spec, "json"))["datasets"] == json.loads(json.dumps(spec["datasets"]))
    assert [format_of(tmp_path / f"x.{kind}") for kind in ("HTML", "png")] == ["html", "png"]
    for wrong in ("x.gif", "x", "png"):
        with pytest.raises(ConfigurationError, match=r"\.html, \.png"):
            format_of(tmp_path / wrong)


def test_rates_alone_have_their_exposures_and_no_zoom() -> None:
    table = rows().filter(pa.compute.equal(rows()["band"], "pca_a"))
    many = pa.concat_tables([table] * 4)
    spec = drawn(table=many)
    assert [one["name"] for one in views(spec)] == ["dates", "panel_count_s___1", "exposures"]
    shown = spec["datasets"]["panel_count_s___1"]
    assert [row["exposure_s"] for row in shown if row["kind"] == "point"] == [1600.0] * many.num_rows
    below = view(spec, "exposures")
    assert below["encoding"]["y"]["field"] == "exposure_s"
    above = layer(spec, "panel_count_s___1", "point")["encoding"]["x"]["scale"]["domain"]
    assert below["encoding"]["x"]["scale"]["domain"] == above


@pytest.mark.parametrize("band", ["B'</script>", 'x"; alert(1)//', "\u2028 {{7*7}}", ""])
def test_any_name_of_a_band_can_be_drawn(band: str) -> None:
    table = rows().filter(pa.compute.equal(rows()["band"], "ztf_g"))
    named = table.set_column(1, "band", pa.array([band] * table.num_rows))
    found = styles([("ztf", band, None)])
    made = points(named, Look())
    vl_convert.vegalite_to_svg(light_curve(made, About(band), Look(), found))


def test_a_target_without_measurements_has_an_empty_figure() -> None:
    spec = drawn(table=rows().slice(0, 0))
    assert spec["datasets"] == {}
    assert spec["usermeta"]["caption"][0] == "No measurements."
    for kind in ("svg", "png", "pdf"):
        assert encoded(spec, kind)
