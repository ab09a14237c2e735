"""What a terminal gets of names and values: text, whatever is in it; a file gets the values."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.cli import main
from lake.output import say, show
from lake.store.failures import DiskFull
from lake.terminal import table_text
from lake.text import counted
from tasks.analysis.figures.page import Packed, write_page

NAMES = [
    "[red]M 87[/red]",
    "[/]",
    "[link=x]y",
    "\x1b[2J\x1b]0;x\x07",
    "a\nb\r",
    "\u202egnp",
    "\x9b31m",
    ":smile:",
    "\x7f",
]
TABLE = pa.table({"na[b]me": NAMES, "n": list(range(len(NAMES)))})


def test_a_table_has_the_names_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLE, "table")
    told = capsys.readouterr().out
    for name in (
        "na[b]me",
        "[red]M 87[/red]",
        "[/]",
        "[link=x]y",
        r"\x1b[2J\x1b]0;x\x07",
        r"a\nb\r",
        r"\u202egnp",
        r"\x9b31m",
        ":smile:",
        r"\x7f",
    ):
        assert name in told
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)


@given(st.lists(st.text(max_size=20), max_size=4), st.text(max_size=8))
def test_any_value_can_be_drawn(values: list[str], name: str) -> None:
    drawn = table_text(pa.table({name: pa.array(values, pa.string()), "n": list(range(len(values)))}))
    assert drawn.endswith(counted(len(values), "row") if values else "no rows")
    assert "\x1b" not in drawn


@contextmanager
def no_file_grows(limit: int) -> Iterator[None]:
    """As on a disk that has room for so many bytes."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


LONG = pa.table({"n": pa.array(np.random.default_rng(1).random(1000))})
FIGURE = Packed("M 87", "", (), painted=False, content="", cite=())
WRITERS: dict[str, Callable[[Path], object]] = {
    **{output: partial(show, LONG, output) for output in ("csv", "json", "table", "parquet", "vot", "fits", "ecsv")},
    "plot": partial(write_page, [FIGURE], "M 87"),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_file_that_the_user_names_is_written_whole_or_not_at_all(what: str, tmp_path: Path) -> None:
    write = WRITERS[what]
    path, link = tmp_path / "out", tmp_path / "link"
    for old in (None, b"old"):
        if old is not None:
            path.write_bytes(old)
            path.chmod(0o640)
            link.symlink_to(path)
        there = sorted(tmp_path.iterdir())
        with no_file_grows(400), pytest.raises(DiskFull) as error:
            write(link if old else path)
        assert str(tmp_path) in error.value.message
        assert sorted(tmp_path.iterdir()) == there
        assert old is None or path.read_bytes() == old
    write(link)
    assert path.stat().st_size > 400
    assert (stat.S_IMODE(path.stat().st_mode), link.is_symlink()) == (0o640, True)
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_devices_and_pipes_are_written_straight_and_new_files_follow_the_umask(tmp_path: Path) -> None:
    with pytest.raises(DiskFull):
        show(LONG, "csv", Path("/dev/full"))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    reading, writing = os.pipe()
    show(TABLE, "parquet", Path(f"/dev/fd/{writing}"))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pq.read_table(pa.BufferReader(pipe.read())).equals(TABLE)
    show(TABLE, "csv", tmp_path / "new")
    (tmp_path / "plain").touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("to_file", [True, False])
def test_json_csv_and_parquet_keep_the_values(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, to_file: bool
) -> None:
    path = tmp_path / "out" if to_file else None

    def told(output: str) -> str:
        show(TABLE, output, path)  # type: ignore[arg-type]
        return path.read_bytes().decode() if path else capsys.readouterr().out

    text = told("json")
    assert [row["na[b]me"] for row in json.loads(text)] == NAMES
    assert not re.search(r"[^\x20-\x7e\n]", text)
    assert [row["na[b]me"] for row in csv.DictReader(io.StringIO(told("csv"), newline=""))] == NAMES
    if path:
        show(TABLE, "parquet", path)
        assert pq.read_table(path).equals(TABLE)


def test_csv_on_a_terminal_does_nothing_to_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    show(TABLE, "csv")
    say("a\x1bb")
    told = capsys.readouterr().out
    assert r"\x1b[2J" in told
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)


@pytest.mark.parametrize("arguments", [["status", "--lake", "x\x1b[2J\ny"], ["\x1b[2J"], ["status", "--\x1b]0;x\x07"]])
def test_an_error_is_one_line_of_text(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(arguments)
    told = capsys.readouterr().err
    assert re.fullmatch(r"lightlake: [^\x00-\x1f\x7f-\x9f]+\n", told), told
