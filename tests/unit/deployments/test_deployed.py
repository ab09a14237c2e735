"""What is deployed: every flow once, forms that say what is asked, clocks that keep archives fresh."""

from __future__ import annotations

import importlib
import pkgutil
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from helpers.archives import archive
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object
from prefect.utilities.templating import apply_values

import flows
from deployments import schedules
from deployments.deployed import NAME, as_yaml, deployed
from deployments.former import former_name
from tasks.sources.registry import REGISTRY

ROOT = Path(__file__).parents[3]
FROZEN = sorted(name for name, one in REGISTRY.items() if one.cadence == "frozen")


def forms() -> dict[str, dict[str, Any]]:
    return {one.flow.name: parameter_schema(one.flow).model_dump()["properties"] for one in deployed()}


def times(cron: str, count: int = 60) -> list[datetime]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return anyio.run(lambda: CronSchedule(cron=cron, timezone="UTC").get_dates(count, start=start))


def test_every_flow_is_deployed_once() -> None:
    modules = [importlib.import_module(f"flows.{module.name}") for module in pkgutil.iter_modules(flows.__path__)]
    there = {id(value): value.name for module in modules for value in vars(module).values() if isinstance(value, Flow)}
    assert sorted(one.flow.name for one in deployed()) == sorted(there.values())
    for one in deployed():
        assert load_flow_from_entrypoint(one.entrypoint) is one.flow


def test_a_deployment_is_named_for_what_it_does() -> None:
    names = [one.name for one in deployed()]
    assert len({*names}) == len(names)
    for one in deployed():
        assert len(one.name.split("-")) >= 3, "it can be read without the name of its flow"
        assert former_name(one.full_name) == f"{one.flow.name}/lightlake" != one.full_name
        served = one.as_runner()
        assert (served.name, served.description) == (one.name, one.flow.description)
        assert NAME in served.tags


def test_every_parameter_says_what_it_is() -> None:
    for flow, form in forms().items():
        for name, parameter in form.items():
            assert len(parameter.get("description", "")) > 10, f"{flow}: {name}"
            assert parameter["title"] == name
    for one in deployed():
        assert one.flow.description


def test_forms_offer_choices_defaults_and_bounds() -> None:
    form = forms()
    assert form["pull"]["archive"]["enum"] == sorted(REGISTRY)
    assert form["pull"]["again"] | {"position": 0} == {
        "default": False,
        "description": "Ask for what was answered before, too",
        "position": 0,
        "title": "again",
        "type": "boolean",
    }
    services = {one.service for one in REGISTRY.values() if one.service}
    items = next(one["items"] for one in form["refresh"]["archives"]["anyOf"] if one["type"] == "array")
    assert items["enum"] == sorted({*REGISTRY, *services})
    assert form["rxte"]["method"]["enum"] == ["products", "heasoft", "standard2"]
    assert form["rxte"]["method"]["default"] == "products"
    assert (form["rxte"]["radius_deg"]["exclusiveMinimum"], form["rxte"]["radius_deg"]["maximum"]) == (0, 5)
    assert form["virac"]["min_ks"]["minimum"] == 0
    nothing = {
        name: kind["title"]
        for name, one in form["pull"].items()
        for kind in one.get("anyOf", ())
        if kind["type"] == "null"
    }
    assert nothing == {"sample": "all targets", "lake": "LIGHTLAKE_URL", "release": "the one that the lake shows"}
    # Prefect's form has a box for JSON where there is no type, and nothing at all for a dictionary or None.
    assert not {"type", "anyOf"} & form["pull"]["parameters"].keys()
    required = {one.flow.name: parameter_schema(one.flow).required for one in deployed()}
    assert {name: asked for name, asked in required.items() if asked} == {"pull": ["archive"], "virac": ["tiles"]}


def test_a_table_of_the_settings_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "LIGHTLAKE_TABLES__XMMSSC", '{"radius_arcsec": 5, "error_column": null, "cadence": "live", "max_age_days": 100}'
    )
    assert "xmmssc" in forms()["pull"]["archive"]["enum"]
    assert "xmmssc" in [schedule.slug for schedule in deployed()[0].schedules]


def test_what_runs_by_itself_can_run() -> None:
    for one in deployed("/data/lake"):
        for schedule in one.schedules:
            one.flow.validate_parameters({**one.parameters, **schedule.parameters})
        for trigger in one.triggers:
            one.flow.validate_parameters({**one.parameters, **(trigger.parameters or {})})
            assert trigger.match.root["lightlake.lake"] == "/data/lake"


def test_live_archives_have_clocks_and_frozen_ones_a_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    pull, refresh = deployed()[:2]
    assert [one.parameters for one in pull.schedules] == [
        {"archive": name, "back_off": True} for name, one in sorted(REGISTRY.items()) if one.cadence == "live"
    ]
    assert refresh.triggers[0].parameters is not None
    assert refresh.triggers[0].parameters["archives"] == FROZEN
    assert [one.parameters for one in refresh.schedules] == [{"back_off": True, "newest": True}]
    monkeypatch.setenv("LIGHTLAKE_FOLLOW_RELEASES", "false")
    assert [one.parameters for one in deployed()[1].schedules] == [{"back_off": True, "newest": False}]
    when = {one.flow.name: [schedule.cron for schedule in one.schedules] for one in deployed()}
    assert len({night.date() for night in times(when["maintenance"][0], 30)}) == 30
    assert {(later - one).total_seconds() for one, later in pairwise(times(when["verify"][0]))} == {7 * 86400}


@pytest.mark.parametrize("days", [0.5, 1, 4, 7, 30, 400, None])
@pytest.mark.parametrize("place", [0, 1, 13, 250])
def test_a_live_archive_is_looked_at_before_its_answers_are_old(days: float | None, place: int) -> None:
    looks = times(schedules.cron(days, place))
    longest = max(later - one for one, later in pairwise(looks))
    assert longest <= timedelta(days=min(7, max((days or 4) / 4, 0.25)))


def test_no_two_archives_begin_together() -> None:
    live = [archive(name=f"live{n}", cadence="live", max_age_days=days) for n, days in enumerate([7, 7, 1, 90, 7, 0.2])]
    begins = [(time.hour, time.minute) for one in schedules.pulls(live) for time in set(times(one.cron or "", 1))]
    assert len(set(begins)) == len(live)
    assert schedules.pulls([archive()]) == ()


def test_prefect_yaml_is_in_step() -> None:
    """If not, run: lightlake deployments --to deployments/prefect.yaml."""
    there = (ROOT / "deployments/prefect.yaml").read_text()
    assert there == as_yaml()
    written = yaml.safe_load(there)
    outputs = {options["id"]: import_object(name)() for step in written["build"] for name, options in step.items()}
    told = {one["flow_name"]: apply_values(one, outputs) for one in written["deployments"]}
    for one in deployed():
        mine, served = told[one.flow.name], one.as_runner()
        assert (mine["name"], mine["entrypoint"], mine["version"], mine["tags"]) == (
            served.name,
            served.entrypoint,
            served.version,
            served.tags,
        )
        assert [each["cron"] for each in mine["schedules"]] == [each.schedule.cron for each in served.schedules or []]
        assert mine.get("concurrency_limit") == served.concurrency_limit == None  # noqa: E711
