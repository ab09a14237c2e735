"""Collections as lsdb reads them: valid in hats' strict sense; cones, ids, pairs and light curves as by brute force."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import hats, other_python

from lake.export.hats import export_collection
from lake.query import Lake
from lake.science.sky import match, separation_arcsec
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
RADIUS = 9.9


@pytest.fixture(scope="module")
def lake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    other_python.python()
    root = tmp_path_factory.mktemp("edges") / "lake"
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    hats.fill(catalog)
    catalog.close()
    with Lake(root, load_settings(url=str(root))) as opened:
        yield opened  # type: ignore[misc]


def test_lsdb_gives_what_brute_force_gives(lake: Lake, tmp_path: Path) -> None:
    to = tmp_path / "edges"
    done = export_collection(lake, to, rows_per_file=150)
    assert done.partitions > 10
    targets = lake.sql("FROM targets ORDER BY target_id")
    ids, ra, dec = (targets[name].to_numpy() for name in ("target_id", "ra", "dec"))
    names = dict(zip(targets["name"].to_pylist(), ids.tolist(), strict=True))
    # About corners and edges of pixels, a pole, RA 0; and wide ones.
    centres = [*range(0, len(ids), 18)]
    cones = [(float(ra[n]), float(dec[n]), radius) for n in centres for radius in (9.0, 20_000.0)]
    looked_up = [int(one) for one in ids[::13]]
    named = [one for one in names if one is not None][::17]
    answers = other_python.ask(to, {"cones": cones, "target_id": looked_up, "name": named, "radius": RADIUS})

    assert answers["valid"]
    assert not [line for line in answers["warnings"] if "differ" in line or "not exist" in line]
    assert answers["ids"] == ids.tolist()
    for (east, north, radius), found in zip(cones, answers["cones"], strict=True):
        assert found == ids[separation_arcsec(east, north, ra, dec) <= radius].tolist(), (east, north, radius)
    assert max(map(len, answers["cones"])) > 5
    assert answers["target_id"] == [[one] for one in looked_up]
    assert answers["name"] == [[names[one]] for one in named]

    i, j, _ = match(ra, dec, ra, dec, RADIUS)
    pairs = sorted(zip(ids[i].tolist(), ids[j].tolist(), strict=True))
    assert [tuple(pair) for pair in answers["pairs"]] == pairs
    assert len(pairs) > 2 * len(ids)

    rows = hats.measured(lake)
    assert answers["one_list"] == len(rows) == done.rows
    assert sorted(answers["rows"], key=lambda row: row["target_id"]) == rows
    assert {row["quality"] for row in answers["rows"]} >= {hats.LARGE}, "a float would round it"


def test_the_blocks_of_the_page(lake: Lake, tmp_path: Path) -> None:
    export_collection(lake, tmp_path / "my-collection", sample="field")
    page = (ROOT / "docs" / "how-to" / "hats.md").read_text()
    (code,) = (one for one in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "import lsdb" in one)
    nearest = lake.sql("SELECT count(*) AS n FROM labels WHERE sample = 'field'")["n"][0].as_py()
    code += "\nprint(len(catalog.compute()), len(around), len(one), len(pairs), float(mean.max()))"
    *_, printed = other_python.run("-W", "ignore", "-c", code, cwd=tmp_path).splitlines()
    count, around, one, pairs, mean = printed.split()
    assert (int(count), int(one)) == (nearest, 1)
    assert int(around) >= 1
    assert int(pairs) == nearest, "each target finds itself"
    assert np.isfinite(float(mean))
