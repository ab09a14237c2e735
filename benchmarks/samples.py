"""Measure rows per second and memory for a large sample of SDSS: from the service's answers to targets of a lake.

``python -m benchmarks.samples`` gets 500,000 quasars from a stand-in of SkyServer in another process, page by page, and
registers them in an empty lake, in order of specObjID and drawn by a seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import fresh, print_result

_SERVE = """
import sys
from deployments.sandbox.server import Sandbox
from deployments.sandbox.sdss import SkyServer
with Sandbox() as box:
    print(SkyServer(box, int(sys.argv[1])).url, flush=True)
    sys.stdin.read()
"""


def sample(endpoint: str, root: str, num: int, seed: int | None) -> dict[str, int]:
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.samples.collect import add_collected, collect

    settings = load_settings(url=root, endpoints={"sdss": endpoint})
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.create()
    try:
        collected = collect("sdss", {"num": num, "seed": seed}, settings)
        (added,) = add_collected(catalog, collected)
        rows = catalog.cursor().execute("SELECT count(*) FROM labels WHERE length(name) >= 18").fetchall()
    finally:
        catalog.close()
    return {"rows": added.rows, "new": added.new, "labels": int(rows[0][0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    num = 500_000 // (10 if parser.parse_args().quick else 1)
    command = [sys.executable, "-c", _SERVE, str(num + num // 10)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        endpoint = server.stdout.readline().strip()
        results = {}
        for name, seed in (("in_order", None), ("drawn", 1)):
            with tempfile.TemporaryDirectory() as folder:
                run = fresh(sample, endpoint, str(Path(folder) / "lake"), num, seed)
            assert run.value["rows"] == run.value["labels"] == num, run.value
            results[name] = {
                **run.value,
                "seconds": run.seconds,
                "rows_per_s": num / run.seconds,
                "peak_rss_gb": run.peak_rss_mb / 1000.0,
            }
        server.terminate()
    slowest = min(results.values(), key=lambda one: one["rows_per_s"])
    peak = max(one["peak_rss_gb"] for one in results.values())
    print_result({"rows_per_s": slowest["rows_per_s"], "peak_rss_gb": peak, **results})


if __name__ == "__main__":
    main()
