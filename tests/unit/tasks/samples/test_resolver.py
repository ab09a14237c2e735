"""Names become positions: what each service knows, what is kept, what is refused and why."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from helpers.names import Services

from deployments.sandbox.sesame import PATH
from deployments.sandbox.simbad import TAP_PATH
from lake.commit.aliases import keep_aliases
from lake.errors import ArchiveError
from lake.query import Lake
from tasks.samples import names
from tasks.samples.by_name import Names, names_given
from tasks.samples.names import Answers, plain, position_in, refusal, resolve


def ask(services: Services, tmp_path: Path, *given: str, **more: object) -> Answers:
    return resolve(given, services.settings(tmp_path, retries=0), **more)  # type: ignore[arg-type]


def keep(lake: Lake, *given: str, settings: object) -> None:
    found = Names(settings, lake).located(names_given(given))  # type: ignore[arg-type]
    assert found.aliases is not None
    keep_aliases(lake.catalog, found.aliases.drop_columns(["row"]))


def test_simbad_then_sesame_then_the_name_itself(services: Services, tmp_path: Path) -> None:
    said = ask(
        services, tmp_path, "3C 273", "Eta Carinae", "NGC 6079", "SDSS J015957.64+003310.4", "nobody", "pg1226+023"
    )
    found = {name: (one.canonical_name, one.service, one.method) for name, one in said.found.items()}
    assert found == {
        "3C 273": ("3C 273", "simbad", "identifier"),
        "pg1226+023": ("3C 273", "simbad", "identifier"),
        "Eta Carinae": ("* eta Car", "simbad", "sesame"),
        "NGC 6079": ("NGC 6079", "ned", "sesame"),
        "SDSS J015957.64+003310.4": ("SDSS J015957.64+003310.4", None, "position_in_name"),
    }
    assert list(said.unknown) == ["nobody"]
    quasar = said.found["3C 273"]
    assert (quasar.ra, quasar.dec, quasar.redshift) == (187.27791594049, 2.05238824055, 0.158339)
    assert (quasar.pm_ra, quasar.ref_epoch, quasar.object_type) == (None, None, "BLL")
    assert "PG 1226+023" in quasar.other_names
    star = said.found["Eta Carinae"]
    # From SIMBAD itself, with all of its names.
    assert (star.pm_ra, star.pm_dec, star.ref_epoch) == (-11.0, 4.1, 2000.0)
    assert "HD 93308" in star.other_names
    in_name = said.found["SDSS J015957.64+003310.4"]
    assert in_name.ra == pytest.approx(29.990167, abs=1e-6)
    assert in_name.dec == pytest.approx(0.552889, abs=1e-6)
    assert services.sesame.asked == ["Eta Carinae", "NGC 6079", "SDSS J015957.64+003310.4", "nobody"]


def test_case_is_sent_as_it_is(services: Services, tmp_path: Path, lake: Lake) -> None:
    settings = services.settings(tmp_path)
    keep(lake, "k Tau", settings=settings)
    said = resolve(["k Tau", "K Tau"], settings, lake)
    assert {name: one.canonical_name for name, one in said.found.items()} == {
        "k Tau": "* k Tau",
        "K Tau": "* kap01 Tau",
    }
    assert said.kept == 1


def test_coarse_positions_are_refused_or_told(services: Services, tmp_path: Path) -> None:
    said = ask(
        services, tmp_path, "NGC 3642", "three digits", "NAME Coarse", "SDSS J112218.01+590427.2", "PSO J112218+590427"
    )
    assert set(said.unknown) == {"NGC 3642", "PSO J112218+590427"}
    assert "vizier is rounded to 36 arcsec" in said.unknown["NGC 3642"]
    assert "rounded to 8 arcsec" in said.unknown["PSO J112218+590427"]
    # The name says it better than VizieR.
    assert said.found["SDSS J112218.01+590427.2"].method == "position_in_name"
    assert said.found["three digits"].rough_arcsec == pytest.approx(3.6)
    told = [line for line in said.remarks if "is good to" in line]
    assert len(told) == 2
    assert any("NAME Coarse" in line and "12 arcsec" in line for line in told)


def test_an_object_without_a_position_is_unknown(services: Services, tmp_path: Path) -> None:
    assert list(ask(services, tmp_path, "NAME Nowhere").unknown) == ["NAME Nowhere"]


def test_a_name_of_several_objects(services: Services, tmp_path: Path, lake: Lake) -> None:
    services.sesame.several.add("twins")
    assert "several objects" in ask(services, tmp_path, "twins").unknown["twins"]
    settings = services.settings(tmp_path)
    keep(lake, "3C 273", "Mrk 421", settings=settings)
    both = lake.sql("FROM aliases WHERE method = 'other_name' AND name IN ('PG 1226+023', 'UGC 6132')").to_pylist()
    keep_aliases(lake.catalog, pa.Table.from_pylist([one | {"name": "TWIN"} for one in both]))
    said = resolve(["TWIN"], settings, lake)
    for part in ("2 objects", "3C 273 at 187.27792 +2.05239", "Mrk 421 at 166.11381 +38.20883"):
        assert part in said.unknown["TWIN"]


def test_kept_answers_need_no_service(services: Services, tmp_path: Path, lake: Lake) -> None:
    settings = services.settings(tmp_path, retries=0)
    given = ["3C 273", "Eta Carinae", "NGC 6079", "SDSS J015957.64+003310.4"]
    before = resolve(given, settings)
    keep(lake, *given, settings=settings)
    services.stop()
    after = resolve([*given, "PG 1226+023", " 3C  273"], settings, lake)
    assert after.kept == len(given) + 1
    for name, one in before.found.items():
        again = after.found[name]
        for field in ("canonical_name", "service", "method", "ra", "dec", "pm_ra", "ref_epoch", "redshift"):
            assert getattr(again, field) == getattr(one, field)
    assert after.found["PG 1226+023"].canonical_name == "3C 273"
    with pytest.raises(ArchiveError):
        resolve(["M 87"], settings, lake)
    with pytest.raises(ArchiveError):
        resolve(["3C 273"], settings, lake, again=True)


def test_unknown_names_are_asked_for_again(services: Services, tmp_path: Path, lake: Lake) -> None:
    settings = services.settings(tmp_path)
    assert list(resolve(["new nova"], settings, lake).unknown) == ["new nova"]
    services.sesame.objects["N"]["new nova"] = "%J 10.12345 +20.12345 = 00:40:29 +20:07:24\n%I.0 NEW NOVA"
    assert resolve(["new nova"], settings, lake).found["new nova"].canonical_name == "NEW NOVA"


def test_many_names_are_asked_for_in_parts(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "NAMES", 2)
    monkeypatch.setattr(names, "OBJECTS", 1)
    said = ask(services, tmp_path, "3C 273", "Mrk 421", "GJ 699", "HD 26912", "NGC 6833")
    assert len(said.found) == 5
    assert len([one for one in services.simbad.queries if "script_infos" in one]) == 3
    assert services.sesame.asked == []


@pytest.mark.parametrize("path", [TAP_PATH, PATH])
def test_what_passes_is_tried_again(services: Services, tmp_path: Path, path: str) -> None:
    services.box.fault(path, "status:503")
    services.box.fault(path, "garbage")
    said = resolve(["3C 273", "NGC 6079"], services.settings(tmp_path, retries=3))
    assert len(said.found) == 2
    services.box.fault(path, "garbage", times=3)
    with pytest.raises(ArchiveError, match="maintenance"):
        resolve(["3C 273", "NGC 6079"], services.settings(tmp_path, retries=2))


def test_requests_to_sesame_keep_a_distance(services: Services, tmp_path: Path) -> None:
    waits: list[float] = []
    resolve(["a", "b", "c"], services.settings(tmp_path), sleep=waits.append)
    assert len(waits) == 2


def test_names_that_cannot_be_asked_for(services: Services, tmp_path: Path) -> None:
    odd = ["", "  ", "M\x1b[2J 87", "a\nb", "x" * 201, "a\ud800b", "a\ufffeb", "a\u202eb"]
    assert set(ask(services, tmp_path, *odd).unknown) == set(odd)
    assert services.box.requests == []
    assert refusal("x" * 200) is None
    assert plain("PKS\u00a00537\u2212441") == "PKS 0537-441"


@pytest.mark.parametrize(
    ("name", "arcsec"),
    [
        ("SDSS J015957.64+003310.4", 0.15),
        ("SDSSJ015957.64+003310.4", 0.15),
        ("J015957.6+003310", 1.5),
        ("[LM2015] J015957.64-003310.4", 0.15),
        ("PSO J112218+590427", 7.7),
        ("PKS B1510-089", None),
        ("PKS 151000.0-080000.0", None),
        ("2MASS J04372999-5228461", None),
        ("J256057.64+003310.4", None),
        ("J015957.64+993310.4", None),
        ("3C 273", None),
    ],
)
def test_positions_in_names(name: str, arcsec: float | None) -> None:
    found = position_in(name)
    assert (found is None) == (arcsec is None)
    if found is not None:
        assert found.rough_arcsec == pytest.approx(arcsec, abs=0.05)
        assert found.method == "position_in_name"
