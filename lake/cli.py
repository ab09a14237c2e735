"""The `lightlake` command."""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from cyclopts import App, CycloptsError, Parameter

from lake.errors import ConfigurationError, LightlakeError
from lake.settings import load_settings

app = App(
    name="lightlake",
    version=version("lightlake"),
    help="Every public light curve of your targets, in one Parquet lake that DuckDB can query.",
)

export = App(name="export", help="Write light curves in the forms that other software takes.")
app.command(export)

LakeURL = Annotated[
    str | None, Parameter(name=["--lake", "-l"], help="The lake; default: LIGHTLAKE_URL, else ./lightlake.")
]
Output = Literal["table", "csv", "json", "parquet"]

# Commands of the layers above plug in by name, so that the core never imports them. They are imported
# only when called: Prefect alone takes seconds.
for _command in entry_points(group="lightlake.commands"):
    app.command(_command.value, name=_command.name)


@app.command
def init(url: str | None = None) -> int:
    """Make a lake, or bring an older one to this version. Doing it again changes nothing.

    Parameters
    ----------
    url
        Folder of the lake; default: LIGHTLAKE_URL, else ./lightlake.
    """
    from lake.catalog import Catalog
    from lake.storage import Storage

    settings = load_settings()
    catalog = Catalog(Storage.from_url(url or settings.url), settings)
    changed = catalog.create()
    say(f"{'made' if changed else 'nothing to do:'} the lake at {catalog.storage.root}, catalogue {catalog.location}")
    catalog.close()
    return 0


@app.command
def status(
    archive: str | None = None,
    *,
    lake: LakeURL = None,
    output: Output = "table",
    watch: bool = False,
    every_s: float = 5.0,
) -> int:
    """Show, for each archive: targets asked, found, empty, failed; rows, bytes, age.

    Parameters
    ----------
    archive
        Show how the granules of this one get on instead: done and failed, rate and expected end, memory, the slowest.
    watch
        Go on showing it until all are through, or until Ctrl-C.
    every_s
        Seconds between two looks.
    """
    from lake import progress
    from lake.maintenance import status as read_status
    from lake.query import Lake

    if watch and archive is None:
        raise ConfigurationError("--watch watches one archive", hint="name it: lightlake status virac --watch")
    with Lake(lake) as opened:
        if archive is None:
            show(read_status(opened.catalog.cursor()), output)
        elif watch:
            progress.watch(opened, archive, say, every_s)
        elif output == "table":
            say(progress.as_text(progress.progress(opened, archive)))
        else:
            show(progress.progress(opened, archive).as_table(), output)
        if archive is not None and output == "table":
            show(progress.slowest(opened, archive), output)
    return 0


@app.command
def verify(*, lake: LakeURL = None, quick: bool = False, output: Literal["text", "json"] = "text") -> int:
    """Check files, checksums, the plain Hive tree, constraints and coverage; exit with 1 if anything is wrong.

    Parameters
    ----------
    quick
        Do not read the files' content.
    """
    from lake.maintenance import verify as run_verify
    from lake.query import Lake

    with Lake(lake) as opened:
        findings = run_verify(opened.catalog, quick=quick)
        errors = sum(finding.is_error for finding in findings)
        if output == "json":
            say(json.dumps([vars(finding) for finding in findings], indent=2))
        else:
            for finding in findings:
                say(f"{finding.level}: {finding.check}: {finding.message} ({finding.hint})")
            say(f"{opened.storage.root}: {errors} errors, {len(findings) - errors} notes")
    return 1 if errors else 0


@app.command
def compact(*, lake: LakeURL = None) -> int:
    """Bring the lake to rest: few large sorted files, and a plain tree equal to the catalogue."""
    from lake.maintenance import compact as run_compact
    from lake.query import Lake

    with Lake(lake) as opened:
        done = run_compact(opened.catalog)
    say(
        f"{done.files_before} files became {done.files_after} ({done.bytes_after / 1e6:.1f} MB), "
        f"{done.orphans} orphans removed, in {done.seconds:.1f} s"
    )
    return 0


@app.command
def sql(query: str, *, lake: LakeURL = None, output: Output = "table", to: Path | None = None) -> int:
    """Run SQL in the lake.

    Parameters
    ----------
    query
        DuckDB's SQL, such as "FROM target_lightcurves LIMIT 5".
    to
        File to write to; Parquet needs one.
    """
    from lake.query import Lake

    with Lake(lake) as opened:
        show(opened.sql(query), output, to)
    return 0


@app.command
def attach(*, lake: LakeURL = None) -> int:
    """Print what a stock DuckDB client runs to have this lake."""
    from lake.query import Lake

    with Lake(lake) as opened:
        say(opened.attach_snippet())
    return 0


@export.command
def virac_csv(
    *,
    to: Path,
    lake: LakeURL = None,
    source: Annotated[list[str] | None, Parameter(negative=())] = None,
    sources_file: Path | None = None,
    where: str | None = None,
    release: str | None = None,
    again: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write light curves of VIRAC as the published CSVs: a file for each source, ID[:3]/ID[3:6]/ID.csv.

    An export that was stopped goes on when it is run again: files that are there with all their rows are kept.

    Parameters
    ----------
    to
        Folder to write to.
    source
        Id of a source; may be given several times. Without any, and no file of them: all that have a light curve.
    sources_file
        Text file with the id of a source in each line.
    where
        Only sources for which this SQL is true, on the columns of table sources: "dec > -30 AND NOT duplicate".
    release
        Release of VIRAC; default: the one that the lake has.
    again
        Write files anew that are there already.
    """
    from lake.query import Lake
    from lake.virac_csv import Written, export_virac_csv, read_ids

    ids = None if source is None and sources_file is None else list(source or [])
    if ids is not None and sources_file is not None:
        ids += read_ids(sources_file)
    started = time.monotonic()

    def tell(done: Written) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done.files} files written, {done.kept} kept, {time.monotonic() - started:.0f} s ")

    with Lake(lake) as opened:
        done = export_virac_csv(opened, to, ids, where=where, release=release, again=again, progress=tell)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    seconds = time.monotonic() - started
    say(
        f"{done.files} light curves written to {to}, {done.rows} rows, {done.bytes / 1e6:.1f} MB, in {seconds:.1f} s; "
        f"{done.kept} were there already"
    )
    return 0


@app.command
def schema(*, output: Literal["text", "json", "markdown"] = "text") -> int:
    """Print every table and column: type, unit, UCD, description."""
    from lake.schema import TABLES, as_dict, as_markdown

    if output == "json":
        say(json.dumps(as_dict(), indent=2))
    elif output == "markdown":
        say(as_markdown())
    else:
        for table in TABLES.values():
            say(f"{table.name}: one row per {table.row}")
            for column in table.columns:
                notes = " ".join(filter(None, (column.unit, column.ucd)))
                say(f"  {column.name:20} {column.type:12} {column.description}{f' [{notes}]' if notes else ''}")
    return 0


def say(text: str) -> None:
    """Print a line for the user."""
    sys.stdout.write(text + "\n")


def show(table: pa.Table, output: Output, to: Path | None = None) -> None:
    """Write a table for the user: on the terminal, or into a file.

    Raises
    ------
    ConfigurationError
        If Parquet has no file to go to, or the file cannot be written.
    """
    import pyarrow.parquet

    if output == "parquet" and to is None:
        raise ConfigurationError("Parquet needs a file", hint="add: --to FILE.parquet")
    if to is None:
        say(_text(table, output))
        return
    try:
        if output == "parquet":
            pyarrow.parquet.write_table(table, to)
        else:
            to.write_text(_text(table, output) + "\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write {to}: {error.strerror or error}") from error


def _text(table: pa.Table, output: Output) -> str:
    import pyarrow.csv

    if output == "json":
        return json.dumps(table.to_pylist(), indent=2, default=_as_json)
    if output == "csv":
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(table, sink)
        return bytes(sink.getvalue().to_pybytes()).decode().rstrip("\n")
    return _drawn(table)


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):  # also what DuckDB's sum() of integers comes as
        return float(value) if value.as_tuple().exponent else int(value)
    return str(value)


def _drawn(table: pa.Table, longest: int = 1000) -> str:
    from rich.console import Console
    from rich.table import Table

    drawn = Table()
    for field in table.schema:
        number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        drawn.add_column(field.name, justify="right" if number else "left", overflow="fold")
    for row in table.slice(0, longest).to_pylist():
        drawn.add_row(*(_cell(value) for value in row.values()))
    console = Console(width=None if sys.stdout.isatty() else 200)
    with console.capture() as capture:
        console.print(drawn)
    rows = f"{table.num_rows} rows" + (f", the first {longest} shown" if table.num_rows > longest else "")
    return capture.get() + rows


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error on purpose is one line, unless --debug asks for more."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(arguments, result_action="return_value", print_error=False, exit_on_error=False)
    except (LightlakeError, CycloptsError) as error:
        if debug:
            raise
        sys.stderr.write(f"lightlake: {' '.join(str(error).split())}\n")
        code = 2
    except KeyboardInterrupt:
        sys.stderr.write("lightlake: stopped\n")
        code = 130
    except BrokenPipeError:
        code = 0
    except OSError as error:  # a full disk, a folder that went away
        if debug:
            raise
        sys.stderr.write(f"lightlake: {error}\n")
        code = 2
    sys.exit(code or 0)
