"""Measure rows per second and memory for large lists, read from CSV and registered in an empty lake.

``python -m benchmarks.targets`` takes 500,000 positions spread like SDSS's, and 100,000 at one position, each in a
fresh process.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import fresh, print_result


def register(path: str, root: str, radius_arcsec: float) -> int:
    from lake.commit.targets import add_targets
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from tasks.samples.files import read_targets

    settings = load_settings(url=root)
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.create()
    try:
        added = add_targets(catalog, read_targets(path).targets, "s", catalogue="list", radius_arcsec=radius_arcsec)
    finally:
        catalog.close()
    return added.new


def write_list(path: Path, n: int, *, same_position: bool) -> None:
    rng = np.random.default_rng(17)
    ra, dec = rng.uniform(110.0, 260.0, n), np.degrees(np.arcsin(rng.uniform(-0.05, 0.9, n)))
    if same_position:
        ra, dec = 150.0 + rng.normal(0.0, 0.1 / 3600.0, n), 2.0 + rng.normal(0.0, 0.1 / 3600.0, n)
    rows = zip(ra.tolist(), dec.tolist(), strict=True)
    path.write_text("name,ra,dec\n" + "".join(f"s{i},{x!r},{y!r}\n" for i, (x, y) in enumerate(rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    share = 10 if parser.parse_args().quick else 1
    results = {}
    for name, n, same_position in (("sdss_like", 500_000, False), ("one_place", 100_000, True)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "list.csv"
            write_list(path, n // share, same_position=same_position)
            run = fresh(register, str(path), str(Path(folder) / "lake"), 1.0)
        results[name] = {
            "rows": n // share,
            "new": run.value,
            "rows_per_s": n // share / run.seconds,
            "peak_rss_gb": run.peak_rss_mb / 1000.0,
        }
    print_result(results)


if __name__ == "__main__":
    main()
