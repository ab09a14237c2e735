"""Another extractor's script is run on one tile, and its silence is no success."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.virac_published import published

_SCRIPT = """
import argparse, pathlib
parser = argparse.ArgumentParser()
for name in ("input-dir", "output-dir", "workers", "min-ks", "shard", "total-shards"):
    parser.add_argument(f"--{name}", required=True)
given = parser.parse_args()
(tile,) = pathlib.Path(given.input_dir).glob("n*_*.hdf5")
assert (given.workers, given.shard, given.total_shards) == ("1", "0", "1")
for number in range(int(tile.read_text()) - int(given.min_ks)):
    (pathlib.Path(given.output_dir) / f"{number}.csv").write_text("mjd")
"""


def _script(folder: Path) -> Path:
    script = folder / "extractor.py"
    script.write_text(_SCRIPT)
    return script


def test_its_light_curves_are_counted(tmp_path: Path) -> None:
    tile = tmp_path / "n1024_1.hdf5"
    tile.write_text("43")
    seconds, files = published(_script(tmp_path), tmp_path / "work", tile, 40)
    assert files == 3
    assert seconds > 0


def test_no_light_curve_is_an_error(tmp_path: Path) -> None:
    tile = tmp_path / "n1024_1.hdf5"
    tile.write_text("40")
    with pytest.raises(RuntimeError, match="0 light curves"):
        published(_script(tmp_path), tmp_path / "work", tile, 40)
