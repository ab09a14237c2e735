"""Sesame's text about a name: what is read from it, and what is a failure rather than an unknown name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.sandbox import sesame as stand_in
from deployments.sandbox.server import Request, Response, Sandbox
from deployments.sandbox.sesame import PATH, Sesame
from lake.errors import ArchiveError
from lake.settings import Settings, load_settings
from tasks.services.sesame import Object, SeveralObjects, look_up, read_answer

# Texts as astropy's tests and its users have them.
NGC_3642 = """# NGC 3642    #Q22523669
#=S=Simbad (via url):    1
%@ 503952
%I.0 NGC 3642
%C.0 LIN
%C.N0 15.15.01.00
%J 170.5750583 +59.0742417 = 11:22:18.01 +59:04:27.2
%V z 1593 0.005327 [0.000060] D 2002LEDA.........0P
%D 1.673 1.657 75 (32767) (I) C 2006AJ....131.1163S
%T 5 =32800000 D 2011A&A...532A..74B
%#B 140


#====Done (2013-Feb-12,16:37:11z)====
"""
BY_VIZIER = """# NGC 3642    #Q22523677
#=V=VizieR (local):    1
%J 170.56 +59.08 = 11:22.2     +59:05
%I.0 {NGC} 3642



#====Done (2013-Feb-12,16:37:42z)====
"""
NOTHING = "# IC 12000#Q2672097\n#! *** Nothing found *** \n#====Done (2016-Mar-04,17:43:13z)====\n"


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture
def service(box: Sandbox) -> Sesame:
    return stand_in.serve(box)


@pytest.fixture
def reached(service: Sesame, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints={"sesame": service.url}, timeout_s=10.0)


def test_what_simbad_says() -> None:
    found = read_answer(NGC_3642)
    assert found == Object(
        "simbad", "NGC 3642", 170.5750583, 59.0742417, pytest.approx(3.6e-4), None, None, 0.005327, "LIN"
    )


def test_vizier_rounds() -> None:
    found = read_answer(BY_VIZIER)
    assert found is not None
    assert (found.resolver, found.main_id, found.ra, found.dec) == ("vizier", "NGC 3642", 170.56, 59.08)
    assert found.step_arcsec == pytest.approx(36.0)
    trimmed = read_answer(BY_VIZIER.replace("+59.08 =", "+59.08123 ="))
    assert trimmed is not None
    assert trimmed.step_arcsec == pytest.approx(0.036), "a trailing zero may be missing"


def test_motion_and_velocity() -> None:
    text = NGC_3642.replace("%V z 1593 0.005327", "%V v 7449.84363").replace("%@", "%P -11.0 4.1 [.1 .1 0]\n%@")
    found = read_answer(text)
    assert found is not None
    assert (found.pm_ra, found.pm_dec) == (-11.0, 4.1)
    assert found.redshift == pytest.approx(7449.84363 / 299792.458)


def test_unknown_is_said_and_never_guessed() -> None:
    assert read_answer(NOTHING) is None
    for broken in (
        "",
        "<html><body><h1>503 Service Unavailable</h1></body></html>",
        NOTHING.partition("#====")[0],
        NGC_3642.partition("%V")[0],
        NGC_3642.replace("+59.0742417", "north"),
        NGC_3642.replace("+59.0742417", "+99.0742417"),
        NGC_3642.replace("#=S=Simbad (via url):    1\n", ""),
    ):
        with pytest.raises(ValueError, match="it has"):
            read_answer(broken)


def test_several_objects() -> None:
    with pytest.raises(SeveralObjects):
        read_answer(NOTHING.replace("Nothing found", "Multiple objects"))


def test_names_are_sent_as_they_are(reached: Settings, service: Sesame) -> None:
    for name in ("PG 1226+023", "a&b=c?d#e%41/f", "α Cen", "'; DROP TABLE x"):
        assert look_up(name, reached) is None
    assert service.asked == ["PG 1226+023", "a&b=c?d#e%41/f", "α Cen", "'; DROP TABLE x"]
    found = look_up("ngc 6079", reached)
    assert found is not None
    assert (found.resolver, found.ra, found.dec) == ("ned", 241.1216, 69.66578)


@pytest.mark.parametrize("kind", ["status:429", "status:503", "garbage", "short", "truncate", "reset", "hang"])
def test_failures_of_the_service_are_no_unknown_names(
    box: Sandbox, reached: Settings, service: Sesame, kind: str
) -> None:
    box.fault(PATH, kind)
    with pytest.raises(ArchiveError) as caught:
        look_up("no such thing", reached.model_copy(update={"timeout_s": 0.5}))
    assert caught.value.transient
    assert (caught.value.archive, caught.value.endpoint) == ("sesame", service.url)
    assert look_up("no such thing", reached) is None


def test_a_database_that_is_away_is_a_failure(reached: Settings, service: Sesame) -> None:
    service.away = {"N"}
    with pytest.raises(ArchiveError, match="connection refused") as caught:
        look_up("no such thing", reached)
    assert caught.value.transient
    # Another one knows it.
    found = look_up("NGC 3642", reached)
    assert found is not None
    assert found.resolver == "vizier"


def test_a_wrong_address_is_told(box: Sandbox, tmp_path: Path) -> None:
    box.mount("/old", lambda request: _moved(request))
    with pytest.raises(ArchiveError, match="HTTP 410") as caught:
        look_up("M 1", load_settings(url=str(tmp_path), endpoints={"sesame": box.url("/old")}))
    assert not caught.value.transient
    assert "LIGHTLAKE_ENDPOINTS__SESAME" in (caught.value.hint or "")


def _moved(request: Request) -> Response:
    return Response(request.path.encode(), 410, "text/plain")
