"""A run started from the form in Prefect's UI, and read there, in a real browser."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from helpers.archives import register
from helpers.processes import child_environment, until
from helpers.servers import PrefectServer
from prefect.utilities.callables import parameter_schema

from deployments.deployed import deployed
from flows.pull import pull_archive
from lake.store.catalog import Catalog
from tasks.sources.registry import REGISTRY

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.server

NAMES = {one.flow.name: one.name for one in deployed()}


@contextmanager
def serving(root: str, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """`lightlake serve`, as soon as its deployments are registered."""
    log = folder / "serve.log"
    with log.open("w") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", "from lake.cli import main; main()", "serve", "--lake", root],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            # The server is asked each second what is to run, instead of every ten.
            env=child_environment(**environment, PREFECT_RUNNER_POLL_FREQUENCY="1"),
        )
    try:
        until(
            lambda: f"serving {len(deployed())} deployments" in log.read_text() or child.poll() is not None,
            log.read_text,
        )
        assert child.poll() is None, log.read_text()[-3000:]
        yield
        child.send_signal(signal.SIGTERM)
        assert child.wait(90) == 0, log.read_text()[-3000:]
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def custom_run(page: Page, flow: str) -> None:
    """Go to the form of a deployment's run, as a user would."""
    page.get_by_role("link", name="Deployments").first.click()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=flow, exact=True))
    row.get_by_role("link", name=NAMES[flow], exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_role("heading", name="Parameters").wait_for()


def field(page: Page, name: str) -> Locator:
    """What the form has for a parameter."""
    label = page.get_by_text(name, exact=True).or_(page.get_by_text(f"{name} (Optional)", exact=True))
    return page.locator("form div.group").filter(has=label).first


def read(page: Page, key: str) -> Locator:
    """Open an artifact of the run that the page shows."""
    page.locator(f"a[href$='/artifacts/key/{key}']").click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.get_by_role("button", name="Show Raw Data").wait_for()
    drawn = page.locator("main img[src]:not([src=''])")
    if key.startswith("plot-"):
        drawn.first.wait_for()
    for image in drawn.all():
        assert image.evaluate("async image => { await image.decode(); return image.naturalWidth }") > 0, key
    return page.locator("main")


def test_a_run_is_started_from_the_form_and_read_in_the_ui(
    prefect_on_postgres: PrefectServer,
    pull_settings: dict[str, str],
    catalog: Catalog,
    page: Page,
    tmp_path: Path,
    rows: Callable[..., list[dict[str, Any]]],
) -> None:
    register(catalog, range(6), "quasars")
    register(catalog, range(6, 9), "others")
    environment = {**pull_settings, **prefect_on_postgres.environment}

    def runs_of_virac() -> int:
        asked = {"flows": {"name": {"any_": ["virac"]}}}
        count: int = httpx.post(f"{prefect_on_postgres.api}/flow_runs/count", json=asked).json()
        return count

    before = runs_of_virac()
    with serving(str(catalog.storage.root), environment, tmp_path):
        page.goto(prefect_on_postgres.api.removesuffix("/api"))

        # The form says what each parameter is, what there is to choose from, and what nothing means.
        custom_run(page, "pull")
        for name, parameter in parameter_schema(pull_archive).properties.items():
            assert parameter["description"] in field(page, name).inner_text()
        assert "Only targets of this sample" in field(page, "sample").inner_text()
        chosen = field(page, "sample").get_by_role("tab", selected=True)
        assert chosen.inner_text() == "all targets"
        assert field(page, "lake").get_by_role("textbox").input_value() == str(catalog.storage.root)
        page.get_by_label("Select archive").click()
        page.get_by_role("option").first.wait_for()
        assert page.get_by_role("option").all_inner_texts() == sorted(REGISTRY)
        page.get_by_placeholder("Search...").fill("nowhere")
        page.get_by_text("No values found").wait_for()
        page.get_by_placeholder("Search...").fill("icec")
        page.get_by_role("option", name="icecube", exact=True).click()
        field(page, "sample").get_by_role("tab", name="text").click()
        field(page, "sample").get_by_role("textbox").fill("quasars")
        field(page, "parameters").get_by_role("textbox").click()
        page.keyboard.insert_text('{"max_search_radius_deg": 1.5}')
        page.get_by_role("button", name="Submit").click()

        # The run's page: its name, its end, its log.
        page.get_by_role("button", name="View run").click()
        page.wait_for_url("**/runs/flow-run/**")
        run = page.url.partition("/flow-run/")[2].partition("?")[0]
        until(
            lambda: httpx.get(f"{prefect_on_postgres.api}/flow_runs/{run}").json()["state_type"] == "COMPLETED",
            "the end of the run",
        )
        # The page hides what is old while it fetches what is new, for as long as the machine is busy.
        page.reload()
        page.get_by_text("Completed", exact=True).filter(visible=True).first.wait_for(timeout=60_000)
        page.get_by_text(f"pull icecube for quasars into {catalog.storage.root.name}", exact=True).filter(
            visible=True
        ).first.wait_for()
        (found,) = rows(
            "SELECT count(*) AS rows, count(DISTINCT source_id) AS sources FROM lightcurves WHERE archive = 'icecube'"
        )
        assert found["rows"] > 0
        # Prefect sends the lines of a run in the background, and the last ones may come late or never.
        page.get_by_text(f"icecube {REGISTRY['icecube'].release}: 6 targets to ask", exact=True).wait_for(
            timeout=60_000
        )

        # Its artifacts, each of which can be opened.
        page.get_by_role("tab", name="Artifacts").click()
        cards = page.locator("a[href*='/artifacts/key/']")
        cards.first.wait_for()
        keys = [(card.get_attribute("href") or "").rpartition("/")[2] for card in cards.all()]
        assert sorted(keys) == ["missing-icecube", "plot-icecube", "progress-icecube", "pull-icecube"]
        told: dict[str, str] = {}
        for key in keys:
            told[key] = read(page, key).inner_text()
            if key == "pull-icecube":
                names = page.get_by_role("columnheader").all_inner_texts()
                cells = [cell.strip() for cell in page.get_by_role("cell").all_inner_texts()]
            page.go_back()
            page.go_back()
            cards.first.wait_for()
        assert "Progress: 100%" in told["progress-icecube"]
        assert "Nothing is missing: 6 targets were asked for" in told["missing-icecube"]
        assert "The light curves with most measurements" in told["plot-icecube"]
        table = dict(zip(names, cells, strict=True))
        (asked,) = rows("SELECT count(*) AS n FROM coverage WHERE archive = 'icecube'")
        assert (table["archive"], table["asked"], table["failed"]) == ("icecube", str(asked["n"]), "0")
        assert (table["sources"], table["rows"]) == (str(found["sources"]), str(found["rows"]))
        # What the box for JSON said arrived, and the other sample was left alone.
        (attempt,) = rows("SELECT parameters, n_targets FROM ledger WHERE archive = 'icecube'")
        assert json.loads(attempt["parameters"])["max_search_radius_deg"] == 1.5
        assert attempt["n_targets"] == asked["n"] == 6

        # What cannot be is told, and nothing starts.
        custom_run(page, "virac")
        page.get_by_role("button", name="Submit").click()
        page.get_by_text("'tiles' is a required property", exact=True).wait_for()
        least = field(page, "min_ks").get_by_role("spinbutton")
        least.fill("-1")
        page.get_by_role("button", name="Submit").click()
        assert "greater than or equal to 0" in least.evaluate("input => input.validationMessage")
        assert "/run?" in page.url
        assert runs_of_virac() == before
