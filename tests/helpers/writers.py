"""A writer in a process of its own: it brings granules into a lake until it is told to stop.

Where a connection is lost, DuckDB may end the whole process. To the lake that is a kill like any other.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from helpers.granules import committed, register
from helpers.processes import child_environment
from lake.errors import LightlakeError
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.compaction import compact

Brought = dict[str, dict[int, int]]


def write(folder: Path, writer: int, start: int, seed: int) -> None:
    """Commit, register and compact until the folder has a file `stop`; each granule is noted before it is committed."""
    generator = random.Random(f"{seed} {writer} {start}")
    settings = load_settings()
    catalog = Catalog(Storage.from_url(settings.url), settings)
    number = 0
    with (folder / f"{writer}-{start}.jsonl").open("w") as noted:
        while not (folder / "stop").exists():
            number += 1
            version = 1000 * start + number
            name = f"g{writer}-{version}"
            change = {10 * writer + source: version for source in generator.sample(range(10), 4)}
            noted.write(json.dumps([name, list(change.items())]) + "\n")
            noted.flush()
            with suppress(LightlakeError):  # whole or not at all, as the ledger says
                register(catalog, change, f"sample{number % 3}")
                committed(catalog, change, name)
                if generator.random() < 0.1:
                    compact(catalog)
    catalog.close()


def write_at_once(settings: Settings, folder: Path, going: Callable[[], bool], seed: int) -> Brought:
    """Let four processes write as long as it goes, and start anew those that end; return what each granule was."""
    environment = child_environment(
        LIGHTLAKE_URL=str(settings.url),
        LIGHTLAKE_CATALOG=str(settings.catalog),
        LIGHTLAKE_LOCK_TIMEOUT_S=str(settings.lock_timeout_s),
        LIGHTLAKE_DUCKDB_THREADS="1",
        PYTHONPATH=str(Path(__file__).parents[1]),
    )

    def begin(writer: int, start: int) -> subprocess.Popen[bytes]:
        code = "import sys; from pathlib import Path; from helpers.writers import write; "
        code += "write(Path(sys.argv[1]), *map(int, sys.argv[2:]))"
        command = [sys.executable, "-c", code, str(folder), str(writer), str(start), str(seed)]
        with (folder / f"{writer}-{start}.err").open("wb") as said:
            return subprocess.Popen(command, env=environment, stderr=said)

    starts = dict.fromkeys(range(4), 1)
    running = {writer: begin(writer, 1) for writer in starts}
    try:
        while going():
            for writer, process in running.items():
                try:
                    code = process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
                assert code < 0, (folder / f"{writer}-{starts[writer]}.err").read_text()
                starts[writer] += 1
                running[writer] = begin(writer, starts[writer])
    finally:
        (folder / "stop").touch()
        codes = [process.wait() for process in running.values()]
    assert all(code <= 0 for code in codes), [path.read_text() for path in folder.glob("*.err")]
    lines = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    return {name: dict(change) for name, change in lines}
