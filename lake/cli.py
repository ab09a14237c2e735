"""The `lightlake` command."""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from lake.errors import ConfigurationError
from lake.output import Output, say, show
from lake.redact import safe_line, safe_text
from lake.settings import check_env_file, load_settings
from lake.store.failures import explain
from lake.store.leaving import ending_with
from lake.text import one_line

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

# Commands of the layers above are found by name, so that the core never imports them. They are imported only when
# called: Prefect alone takes seconds.
for _command in entry_points(group="lightlake.commands"):
    app.command(_command.value, name=_command.name)
for _command in entry_points(group="lightlake.exports"):
    export.command(_command.value, name=_command.name)


@app.command
def init(url: str | None = None) -> int:
    """Create a lake, or migrate an older one to this version. Running it again changes nothing.

    Parameters
    ----------
    url
        Folder of the lake; default: LIGHTLAKE_URL, else ./lightlake.
    """
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.renaming import rename_archives

    settings = load_settings()
    catalog = Catalog(Storage.from_url(url or settings.url), settings)
    changed = catalog.create()
    lines = rename_archives(catalog)
    for line in lines:
        say(line)
    changed |= bool(lines)
    say(f"{'made' if changed else 'nothing to do:'} the lake at {catalog.storage.root}, catalogue {catalog.location}")
    catalog.close()
    return 0


@app.command
def status(
    archive: str | None = None,
    *,
    run: str | None = None,
    lake: LakeURL = None,
    output: Output = "table",
    watch: bool = False,
    every_s: float = 5.0,
) -> int:
    """Show, for each archive: targets asked, found, empty, failed; rows, bytes, age.

    Parameters
    ----------
    archive
        Show the progress of this archive's granules: done and failed, rate and expected end, memory, the slowest.
    run
        Show this run instead: its state, what each archive brought and used, and its processes.
    watch
        Keep showing progress until all granules, or the run, have ended, or until Ctrl-C.
    every_s
        Seconds between updates.
    """
    from lake.names import current_archive
    from lake.query import Lake
    from lake.upkeep import progress
    from lake.upkeep.maintenance import quarantined
    from lake.upkeep.maintenance import status as read_status

    if run is not None:
        return _status_of_run(run, archive, lake, output, watch, every_s)
    if watch and archive is None:
        raise ConfigurationError("--watch watches one archive", hint="name it: lightlake status ARCHIVE --watch")
    with Lake(lake) as opened:
        archive = current_archive(opened, archive)
        if archive is None:
            show(read_status(opened.catalog.cursor()), output)
            for line in quarantined(opened.catalog) if output == "table" else ():
                say(line)
        elif watch:
            progress.watch(opened, archive, say, every_s)
        elif output == "table":
            say(progress.as_text(progress.progress(opened, archive)))
        else:
            show(progress.progress(opened, archive).as_table(), output)
        if archive is not None and output == "table":
            show(progress.slowest(opened, archive), output)
    return 0


def _status_of_run(run: str, archive: str | None, url: str | None, output: Output, watch: bool, every_s: float) -> int:
    from lake.query import Lake
    from lake.upkeep import run_status

    if archive is not None:
        raise ConfigurationError("--run shows all archives of a run", hint=f"leave out {archive}, or --run")
    with Lake(url) as opened:
        run_status.run_named(opened, run)
        if watch:
            run_status.watch(opened, run, say, every_s)
        elif output == "table":
            say(run_status.as_text(opened, run))
        else:
            show(run_status.of_archives(opened, run), output)
    return 0


@app.command
def verify(*, lake: LakeURL = None, quick: bool = False, output: Literal["text", "json"] = "text") -> int:
    """Check files, checksums, the plain Hive tree, constraints and coverage; exit with 1 if anything is wrong.

    Parameters
    ----------
    quick
        Do not read the files' content.
    """
    from lake.query import Lake
    from lake.upkeep.maintenance import verify as run_verify

    with Lake(lake) as opened:
        findings = run_verify(opened.catalog, quick=quick)
        errors = sum(finding.is_error for finding in findings)
        if output == "json":
            say(json.dumps([vars(finding) for finding in findings], indent=2))
        else:
            for finding in findings:
                say(one_line(f"{finding.level}: {finding.check}: {finding.message} ({finding.hint})"))
            say(f"{opened.storage.root}: {errors} errors, {len(findings) - errors} notes")
    return 1 if errors else 0


@app.command
def compact(*, lake: LakeURL = None) -> int:
    """Merge small files into few large sorted ones, and make the plain tree equal to the catalogue."""
    from lake.query import Lake
    from lake.store.backup import backup_hint
    from lake.upkeep.compaction import compact as run_compact

    with Lake(lake, writable=True) as opened:
        done = run_compact(opened.catalog)
    say(
        f"{done.files_before} files became {done.files_after} ({done.bytes_after / 1e6:.1f} MB), "
        f"{done.quarantined} unknown files moved to the quarantine, in {done.seconds:.1f} s"
    )
    if opened.catalog.location.kind == "postgres":
        say(f"the catalogue in PostgreSQL has no backup from here: {backup_hint(opened.catalog.location)}")
    return 0


@app.command
def restore(
    date: str | None = None,
    *,
    lake: LakeURL = None,
    list_only: Annotated[bool, Parameter(name="--list", negative=())] = False,
) -> int:
    """Restore the catalogue from a backup, and reconcile the files with it; what that loses is pulled again.

    Parameters
    ----------
    date
        Date of the backup, such as 2026-11-28 or 2026-11-28T01:30; default: the newest. "now" keeps the catalogue, and
        gives up files that are gone.
    list_only
        Only list the backups.
    """
    from lake.store.backup import backups
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.renaming import rename_archives
    from lake.upkeep.restore import restore as run_restore
    from lake.upkeep.restore import summary

    settings = load_settings()
    storage = Storage.from_url(lake or settings.url)
    if list_only:
        for backup in backups(storage):
            say(f"{backup.made_at:%Y-%m-%dT%H:%M:%SZ}  {backup.path}")
        return 0
    catalog = Catalog(storage, settings)
    try:
        for line in (*summary(run_restore(catalog, date)), *rename_archives(catalog)):
            say(line)
    finally:
        catalog.close()
    return 0


@app.command
def sql(
    query: str,
    *,
    lake: LakeURL = None,
    output: Output = "table",
    to: Path | None = None,
    confined: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Run SQL in the lake, which is open for reading only.

    Parameters
    ----------
    query
        DuckDB's SQL, such as "FROM target_lightcurves LIMIT 5".
    to
        File to write; Parquet needs one.
    confined
        Allow one SELECT over the lake only: no other files, no network, limits on memory and time.
    """
    from lake.query import Lake

    with Lake(lake, confined=confined) as opened:
        show(opened.sql(query), output, to)
    return 0


@app.command
def attach(*, lake: LakeURL = None, write: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Print the SQL that attaches this lake in a stock DuckDB client, for reading.

    Parameters
    ----------
    write
        Attach it for writing, which bypasses the lake's lock and its commit rule. For experts.
    """
    from lake.query import Lake
    from lake.store.attaching import ATTACHED_FOR_WRITING

    with Lake(lake, writable=write) as opened:
        say(opened.attach_snippet(write=write))
    if write:
        sys.stderr.write(f"lightlake: {ATTACHED_FOR_WRITING}\n")
    return 0


@app.command
def schema(*, output: Literal["text", "json", "markdown"] = "text") -> int:
    """Print every table and column: type, unit, UCD, description."""
    from lake.model.declared import all_tables
    from lake.model.schema import as_dict, as_markdown

    tables = all_tables().values()
    if output == "json":
        say(json.dumps(as_dict(tables), indent=2))
    elif output == "markdown":
        say(as_markdown(tables))
    else:
        for table in tables:
            say(f"{table.name}: one row per {table.row}")
            for column in table.columns:
                notes = " ".join(filter(None, (column.unit, column.ucd)))
                say(f"  {column.name:20} {column.type:12} {column.description}{f' [{notes}]' if notes else ''}")
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command. An error is one line, or a traceback with --debug.

    Exit with 2 for an expected error or one of the system, and with 70 for a mistake of the program.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    # A traceback may contain an address with a password.
    sys.excepthook = lambda _, error, __: sys.stderr.write(safe_text("".join(traceback.format_exception(error))))
    arguments = [argument for argument in arguments if argument != "--debug"]
    _prepare()
    try:
        check_env_file()
        code = app(arguments, result_action="return_value", print_error=False, exit_on_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        if debug:
            raise
        code = _failed(error)
    except KeyboardInterrupt:
        code = _failed("stopped", 130)
    except BrokenPipeError:  # the reader has closed the pipe, and wants no more output
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if debug:
            raise
        code = _failed(line) if (line := explain(error)) else _failed(_bug(error), 70)
    sys.exit(ending_with(code or 0))


def _prepare() -> None:
    """Give this process what it may lack: standard streams that take any text, and a home."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        Path.home()
    except RuntimeError:  # no HOME, and an unknown user: what needs a home reports it
        os.environ["HOME"] = "/nonexistent"


def _bug(error: Exception) -> str:
    return f"this is a bug, please report it: {type(error).__name__}: {error} (--debug shows where)"


def _failed(error: object, code: int = 2) -> int:
    sys.stderr.write(f"lightlake: {safe_line(error)}\n")
    return code
