"""Run the demo: a lake filled from simulated archives on this machine, by the flow that production runs."""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from deployments.sandbox import literature, papers, sesame, simbad
from deployments.sandbox.papers import Published
from deployments.sandbox.planet import wasp_126
from deployments.sandbox.server import ARCHIVES, SURVEYS, Sandbox
from flows.cli import by_prefect, check_prefect, quiet
from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.output import say, show, whole_file
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.text import counted
from lake.upkeep.maintenance import status
from tasks.doctor import endpoints
from tasks.pull.report import PullReport
from tasks.samples.collect import add_collected, collect
from tasks.samples.files import read_targets
from tasks.samples.literature import LITERATURE
from tasks.sources.registry import REGISTRY, find

SAMPLE = "demo"
# So many of the targets were observed by HST, by turns with COS's FUV and NUV, and with STIS.
OBSERVED = 4
SEED = 20210126
# A tenth of IceCube's events, generated in a second or two.
SCALE = 0.1
# Settings of archives that are not simulated lead there: to an answer of 404, or to no folder.
NOT_SIMULATED = "not-simulated"

# Well-known active galaxies and two Galactic landmarks; ICRS degrees, rounded to an arcsecond or so (SIMBAD).
TARGETS = (
    ("NGC 1275", 49.9507, 41.5117, "AGN"),
    ("NGC 1068", 40.6696, -0.0133, "AGN"),
    ("3C 66A", 35.6650, 43.0355, "blazar"),
    ("Mrk 1018", 31.5666, -0.2914, "changing look"),
    ("Mrk 590", 33.6398, -0.7667, "changing look"),
    ("Fairall 9", 20.9408, -58.8058, "AGN"),
    ("TXS 0506+056", 77.3582, 5.6931, "blazar"),
    ("Ark 120", 79.0476, -0.1498, "AGN"),
    ("Crab", 83.6331, 22.0145, "pulsar wind nebula"),
    ("NGC 2617", 128.9116, -4.0883, "changing look"),
    ("OJ 287", 133.7036, 20.1085, "blazar"),
    ("Mrk 421", 166.1138, 38.2088, "blazar"),
    ("NGC 4151", 182.6357, 39.4058, "changing look"),
    ("3C 273", 187.2779, 2.0524, "blazar"),
    ("M 87", 187.7059, 12.3911, "AGN"),
    ("3C 279", 194.0465, -5.7893, "blazar"),
    ("Cen A", 201.3651, -43.0191, "AGN"),
    ("NGC 5548", 214.4981, 25.1368, "AGN"),
    ("PKS 1424+240", 216.7516, 23.8000, "blazar"),
    ("PG 1553+113", 238.9294, 11.1901, "blazar"),
    ("Mrk 501", 253.4676, 39.7602, "blazar"),
    ("Sgr A*", 266.4168, -29.0078, "Galactic centre"),
    ("1ES 1959+650", 299.9994, 65.1485, "blazar"),
    ("PKS 2155-304", 329.7169, -30.2256, "blazar"),
    ("BL Lac", 330.6804, 42.2778, "blazar"),
    ("3C 454.3", 343.4906, 16.1482, "blazar"),
)

# A paper that lists two of them; the simulated NED has no others of it.
PAPER = "macleod16"
LISTED = ("Mrk 1018", "NGC 2617")

# Answers fit a terminal of 80 columns.
COVERAGE = ["archive", "release", "asked", "found", "empty", "failed", "sources", "rows"]
QUESTIONS = (
    (
        "Which archives have measurements of these targets, and in which bands?",
        """
        SELECT archive, string_agg(DISTINCT band, ' ' ORDER BY band) AS bands, count(DISTINCT name) AS targets,
            count(*) AS rows
        FROM target_lightcurves WHERE NOT regexp_matches(band, '_(ap|sap|raw)$') GROUP BY ALL ORDER BY ALL
        """,
    ),
    (
        "Which targets vary most in Gaia's G? (scatter of the good transits, 1 sigma)",
        """
        SELECT targets.name, n_good AS transits, mag_median::DECIMAL(6, 2) AS g_mag,
            flux_median::DECIMAL(9, 4) AS flux_mjy, (100 * flux_std / flux_mean)::DECIMAL(6, 1) AS scatter_percent
        FROM statistics
        JOIN matches USING (archive, release, source_id, hpx29)
        JOIN targets USING (target_id)
        WHERE archive = 'gaia' AND band = 'G' AND rank = 1 AND n_good > 1
        ORDER BY scatter_percent DESC LIMIT 8
        """,
    ),
    (
        "When did each archive see TXS 0506+056 first? (own time, and at the barycentre)",
        """
        SELECT DISTINCT ON (archive) archive, band, mjd::DECIMAL(10, 4) AS mjd, bmjd_tdb::DECIMAL(10, 4) AS bmjd_tdb,
            (1000 * flux)::DECIMAL(12, 3) AS flux_ujy, (1000 * flux_err)::DECIMAL(12, 3) AS err_ujy
        FROM cone(77.3582, 5.6931, 1) WHERE unit = 'mJy' AND good AND NOT regexp_matches(band, '_ap$')
        ORDER BY archive, bmjd_tdb
        """,
    ),
    (
        "How much do HST's light curves vary? (Poisson factor 1: as photons alone do)",
        """
        SELECT canonical_name AS target, instrument, detector, members AS exposures, total AS counts,
            poisson_factor::DECIMAL(6, 2) AS poisson_factor
        FROM hst_exposures JOIN hst_statistics USING (archive, release, source_id, product)
        WHERE product = 'composite' ORDER BY poisson_factor DESC
        """,
    ),
)


def run(folder: Path) -> int:
    """Run the demo in a folder; a second run finds nothing to do."""
    started = time.monotonic()
    os.environ["LIGHTLAKE_CACHE_DIR"] = str(folder / "cache")
    url = str(folder / "lake")
    with Sandbox.start(
        folder / "archives", archives=ARCHIVES, seed=SEED, scale=SCALE, targets=[(ra, dec) for _, ra, dec, _ in TARGETS]
    ) as sandbox:
        papers.mount(sandbox, {LITERATURE[PAPER].bibcode: [Published(*one[:3]) for one in TARGETS if one[0] in LISTED]})
        for name, endpoint in sandbox.endpoints.items():
            os.environ[f"LIGHTLAKE_ENDPOINTS__{name.upper()}"] = endpoint
        mast = sandbox.services["hst"]
        for name in list(mast.datasets)[OBSERVED : len(TARGETS)]:
            mast.remove(name)
        settings = load_settings(url=url)
        catalog = Catalog(Storage.from_url(url), settings)
        catalog.create()
        listing = _write_targets(folder / "targets.csv")
        found = read_targets(listing, label_column="class")
        added = add_targets(catalog, found.targets, SAMPLE, catalogue=listing.name)
        (listed,) = collect(PAPER, {}, settings)
        (of_paper,) = add_collected(catalog, [listed])
        catalog.close()
        say(f"archives: {len(REGISTRY)}, simulated on this machine")
        say(f"lake:     {url}, {counted(added.new, 'new target')} of {added.rows}")
        say(
            f"sample:   {PAPER}, {counted(of_paper.labels, 'new label')} of "
            f"{counted(of_paper.rows, 'row')} of a simulated {listed.service}"
        )
        failed = _refresh(url, sorted(REGISTRY))
        failed |= _bring_photons(url)
    with Lake(url) as lake:
        say("\nCoverage")
        coverage = status(lake.catalog.cursor()).select(COVERAGE)
        show(coverage, "table")
        for question, query in QUESTIONS:
            say(f"\n{question}")
            show(lake.sql(query), "table")
        page = folder / "light_curves.html"
        if not page.exists() or added.new:
            write_page(lake, page)
    near = _near(Path(url))
    say(f"\nLook at {_near(page)} in a browser. Done in {time.monotonic() - started:.0f} s. Try next:")
    say(f"  lightlake sql \"FROM fornax WHERE label = 'blazar' LIMIT 10\" --lake {near}")
    say(f'  lightlake sql "FROM fornax" --to light_curves.fits --lake {near}')
    say(f'  lightlake plot "TXS 0506+056" --to txs.html --lake {near}')
    say(f"  lightlake verify --lake {near}")
    say(f"  lightlake compact --lake {near}")
    say(f"  lightlake attach --lake {near}      # the lake in your own DuckDB")
    say("  lightlake init my-lake")
    say("  lightlake targets add my-targets.csv --sample mine --lake my-lake")
    return 1 if failed else 0


def _near(path: Path) -> Path:
    """Return a path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def serve_archives(folder: Path, archives: Sequence[str] | None, env: Path | None, scale: float) -> int:
    """Serve the demo's archives until SIGINT or SIGTERM; print or write the settings that lead to them."""
    ended = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    known = (*ARCHIVES, *SURVEYS)
    if unknown := set(archives or ()) - set(known):
        raise ConfigurationError(
            f"there is no simulated {', '.join(sorted(unknown))}", hint=f"there are: {', '.join(known)}"
        )
    say("generating data ..." if not folder.exists() else "reading data ...")
    positions = [(ra, dec) for _, ra, dec, _ in TARGETS]
    if set(archives or ARCHIVES) & set(literature.SERVICES):
        positions += literature.places()
    with Sandbox.start(folder, archives=archives or ARCHIVES, seed=SEED, scale=scale, targets=positions) as sandbox:
        literature.add(sandbox)
        if mast := sandbox.services.get("tess_kepler"):
            mast.add(wasp_126(SEED))
        # Many commands ask these two for names.
        if "simbad" not in sandbox.services:
            sandbox.services["simbad"] = names = simbad.mount(sandbox)
            sandbox.endpoints["simbad"] = names.url
        if "sesame" not in sandbox.services:
            sandbox.endpoints["sesame"] = sesame.mount(sandbox, folder)
        served = counted(len(sandbox.endpoints), "simulated service")
        lines = [f"LIGHTLAKE_ENDPOINTS__{name.upper()}={url}" for name, url in _all_endpoints(sandbox, folder)]
        if env is not None:
            with whole_file(env) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
            say(f"{env}: {served}, and no other is asked")
        else:
            say("\n".join(f"export {line}" for line in lines))
            say(f"{served}, and no other is asked")
        say("serving until Ctrl-C")
        sys.stdout.flush()
        ended.wait()
    return 0


def _all_endpoints(sandbox: Sandbox, folder: Path) -> list[tuple[str, str]]:
    """Return where each archive and service is: real measurements among simulated ones would be taken for them."""
    settings = load_settings().model_copy(update={"endpoints": dict(sandbox.endpoints)})
    found = dict(sandbox.endpoints)
    for one in endpoints(settings):
        if one.is_public:
            nowhere = folder / NOT_SIMULATED if one.url.startswith("s3://") else sandbox.url(NOT_SIMULATED)
            found[one.name] = f"{nowhere}/{one.name}"
    return sorted(found.items())


def _bring_photons(url: str) -> bool:
    """Bring HST's photons into the lake, in this process; return whether anything failed."""
    from flows.local import pull
    from tasks.sources.hst_timetag.options import HstOptions
    from tasks.sources.protocol import Request

    options = HstOptions(sample=SAMPLE)
    outcome = pull(url, Request("hst_timetag", options, options.sample, options.select))
    say(outcome.message if isinstance(outcome, PullReport) else str(outcome))
    return not isinstance(outcome, PullReport) or outcome.lost


def write_page(lake: Lake, path: Path) -> Path:
    """Write the page with the light curves of all targets."""
    from tasks.analysis.figures.gallery import figures
    from tasks.analysis.figures.page import write_page as write
    from tasks.analysis.figures.points import Look

    return write(figures(lake, Look()), "Light curves of the demo's targets", path)


def _write_targets(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "ra", "dec", "class"])
        writer.writerows(TARGETS)
    return path


def _refresh(url: str, archives: list[str]) -> bool:
    """Refresh the lake if any answers are missing; return whether anything failed."""
    quiet()
    from tasks.pull import count_to_ask, lake_at

    lake = lake_at(url)
    waiting = {name: count_to_ask(lake, find(name), find(name).with_defaults(None), None) for name in archives}
    if not any(waiting.values()):
        say("nothing to do: every archive has answered for every target")
        return False
    if not by_prefect(None):
        from flows.local import refresh as refresh_here

        done = refresh_here(url, archives)
        for line in done.lost or done.lines:
            say(line)
        return bool(done.lost)
    check_prefect()
    from flows.ready import run as run_flow
    from flows.refresh import refresh

    state = run_flow(lambda: refresh(archives, lake=url, return_state=True))
    for line in (state.message or "").split(" | "):
        say(line)
    return not state.is_completed()
