"""Fields of the HCV: neighbouring targets are asked for at once, and get what they get alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sandbox.server import Request, Response, Sandbox
from lake.model.schema import TABLES
from lake.science.sky import hpx29, separation_arcsec
from lake.settings import Settings, load_settings
from tasks.sources.base import FetchResult, Granule
from tasks.sources.hcv import archive as hcv
from tasks.sources.hcv import fields
from tasks.sources.hcv.archive import ARCHIVE

# Two fields, at RA 0 and at a pole, and a target far from both.
NEAR = [(359.9 + 0.02 * n, 10.0 + 0.03 * (n % 4)) for n in range(10)]
POLE = [(36.0 * n, 89.9) for n in range(10)]
PLACES = [(ra % 360, dec) for ra, dec in (*NEAR, *POLE, (120.0, -40.0))]


def targets_at(places: list[tuple[float, float]]) -> pa.Table:
    ra, dec = (np.array(values, float) for values in zip(*places, strict=True))
    pixel = hpx29(ra, dec)
    table = TABLES["targets"].cast(pa.table({"target_id": pixel, "ra": ra, "dec": dec, "hpx29": pixel}))
    return table.sort_by("hpx29")


def granule(places: list[tuple[float, float]], **parameters: Any) -> Granule:
    return Granule("hcv", ARCHIVE.release, ARCHIVE.with_defaults(parameters), targets_at(places))


def tables_of(result: FetchResult) -> list[list[str]]:
    return [sorted(map(str, getattr(result, name).to_pylist())) for name in ("sources", "matches", "lightcurves")]


def alone(places: list[tuple[float, float]], settings: Settings, **parameters: Any) -> list[list[str]]:
    """Fetch each target by itself."""
    made = [tables_of(hcv.fetch(granule([place], **parameters), settings)) for place in places]
    return [sorted({row for tables in made for row in tables[which]}) for which in range(3)]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("hcv")
    with Sandbox.start(root, archives=["hcv"], seed=5, scale=0.002, targets=PLACES) as served:
        yield served


@pytest.fixture
def reached(box: Sandbox, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints=dict(box.endpoints), timeout_s=10.0)


def searches(box: Sandbox, since: int) -> list[str]:
    return [one.path for one in box.requests[since:] if "hcvsummary" in one.path]


def test_neighbours_are_one_question_and_get_what_they_get_alone(box: Sandbox, reached: Settings) -> None:
    wanted = alone(PLACES, reached)
    before = len(box.requests)
    result = hcv.fetch(granule(PLACES), reached)
    assert tables_of(result) == wanted
    assert len(searches(box, before)) == 3
    assert len(wanted[1]) > len(PLACES)
    assert result.remark is None


@pytest.mark.parametrize("most", [1, 20])
def test_where_there_are_too_many_rows_each_target_is_asked_for(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    wanted = alone(PLACES, reached)
    monkeypatch.setattr(fields, "FIELD_ROWS", most)
    before = len(box.requests)
    assert tables_of(hcv.fetch(granule(PLACES), reached)) == wanted
    asked = searches(box, before)
    assert 3 < len(asked) <= 2 * len(PLACES)
    if most == 1:
        radii = [float(path.split("radius=")[1].split("&")[0]) for path in asked]
        assert sum(radius < 0.001 for radius in radii) == len(PLACES)


@pytest.mark.parametrize("odd", [{"RA": None}, {"Dec": 91.0}, {"MatchID": None}])
def test_a_row_without_a_place_is_in_the_remark_as_when_its_target_is_asked_for_alone(
    box: Sandbox, reached: Settings, odd: dict[str, Any]
) -> None:
    """The service has it in one target's cone, and so in its field."""
    service, where = box.services["hcv"], NEAR[3]

    def answered(request: Request) -> Response:
        reply = service._handle(request)
        if "hcvsummary" in request.path:
            params, _ = request.form()
            ra, dec, radius = (float(params[name]) for name in ("RA", "DEC", "RADIUS"))
            if separation_arcsec(ra, dec, where[0] % 360, where[1]) / 3600 <= radius:
                answer = json.loads(reply.body)
                names = [column["name"] for column in answer["info"]]
                extra = dict(zip(names, answer["data"][0], strict=True)) | {"MatchID": 3, **odd}
                answer["data"].append([extra[name] for name in names])
                return replace(reply, body=json.dumps(answer).encode())
        return reply

    box.mount("/odd", lambda request: answered(replace(request, path=request.path.replace("/odd", service._path))))
    settings = reached.model_copy(update={"endpoints": {"hcv": box.url("/odd")}})
    result = hcv.fetch(granule(PLACES), settings)
    assert tables_of(result) == alone(PLACES, reached)
    assert "rows of the summary without an id or a place, left out: 1" in str(result.remark)


def test_a_source_between_targets_is_nobodys(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remark on one with two positions is that of its own target, and of no neighbour."""
    service, (ra, dec) = box.services["hcv"], PLACES[0]
    twice = int(np.argmin(separation_arcsec(ra, dec, service.ra, service.dec)))
    for name, more in (("ids", 0), ("ra", 0.0001), ("dec", 0)):
        values = getattr(service, name)
        monkeypatch.setattr(service, name, np.append(values, values[twice] + more))
    places = [((ra - 0.1) % 360, dec), ((ra + 0.09) % 360, dec + 0.005)]
    before = len(box.requests)
    result = hcv.fetch(granule(places), reached)
    assert (len(searches(box, before)), result.sources.num_rows, result.remark) == (1, 0, None)
    with_its_own = hcv.fetch(granule([*places, PLACES[0]]), reached)
    assert f"sources with two positions, rejected: 1 ({service.ids[twice]})" in str(with_its_own.remark)


@given(
    st.lists(st.tuples(st.floats(0, 360, exclude_max=True), st.floats(-1, 1)), min_size=1, max_size=30),
    st.sampled_from([89.5, 0.0, -30.0]),
    st.floats(0.001, 0.2),
    st.sampled_from([0.5, 0.05]),
)
def test_every_cone_is_in_one_field_that_holds_it(
    around: list[tuple[float, float]], dec: float, radius: float, most: float
) -> None:
    cones = [
        {"ra": ra if dec > 80 else ra / 100, "dec": min(dec + offset, 90.0), "radius": min(radius, most)}
        for ra, offset in around
    ]
    made = fields.fields(cones, most)
    assert sorted(map(str, (cone for field in made for cone in field))) == sorted(map(str, cones))
    for field in made:
        if len(field) > 1:
            whole = fields._around(field)
            assert whole["radius"] <= most
            assert 0 <= whole["ra"] <= 360
            for cone in field:
                apart = separation_arcsec(whole["ra"], whole["dec"], cone["ra"], cone["dec"]) / 3600
                assert apart + cone["radius"] < whole["radius"]


def test_a_dense_sample_has_few_fields() -> None:
    """Quasars of the SDSS: 50 in a square degree, in granules of 100."""
    rng = np.random.default_rng(3)
    ra, dec = 150 + rng.uniform(0, 4, 800), 30 + rng.uniform(0, 4 * np.cos(np.radians(32)), 800)
    order = np.argsort(hpx29(ra, dec))
    cones = [{"ra": ra[place], "dec": dec[place], "radius": 0.001} for place in order]
    n = sum(len(fields.fields(cones[start : start + 100])) for start in range(0, 800, 100))
    assert n <= 60
