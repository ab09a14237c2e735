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

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from lake.commands import plug_in
from lake.errors import ConfigurationError, with_topic
from lake.output import TABLE, Output, TableOptions, put, say, terminal_width
from lake.redact import safe_line, safe_text
from lake.store.leaving import ending_with
from lake.text import counted, one_line

app = App(
    name="lightlake",
    version=version("lightlake"),
    help="Every public light curve of your targets, in one Parquet lake that DuckDB can query.",
    suppress_keyboard_interrupt=False,
    # No --no-x and --empty-x, but where a command names one; "default: False" says nothing.
    default_parameter=Parameter(
        negative=(), show_default=lambda value: None if value is None or value is False else str(value)
    ),
)

export = App(name="export", help="Write light curves in the forms that other software takes.")
app.command(export)

LakeURL = Annotated[
    str | None, Parameter(name=["--lake", "-l"], help="The lake; default: LIGHTLAKE_URL, else ./lightlake.")
]

# Commands of the layers above are found by name, so that the core never imports them.
_INSTALLED = entry_points()
_PLUGGED_IN = (
    (app, _INSTALLED.select(group="lightlake.commands")),
    (export, _INSTALLED.select(group="lightlake.exports")),
)
for _app, _commands in _PLUGGED_IN:
    plug_in(_app, _commands)


@app.command
def init(url: str | None = None) -> int:
    """Create a lake, or migrate an older one to this version.

    Running it again changes nothing.

    Parameters
    ----------
    url
        Folder of the lake; default: LIGHTLAKE_URL, else ./lightlake.
    """
    from lake.settings import load_settings
    from lake.store.catalog import Catalog
    from lake.store.identity import check_room
    from lake.store.storage import Storage
    from lake.upkeep.renaming import rename_archives

    settings = load_settings()
    catalog = Catalog(Storage.from_url(url or settings.url), settings)
    check_room(catalog.storage)
    changed = catalog.create()
    lines = rename_archives(catalog)
    for line in lines:
        say(line)
    changed |= bool(lines)
    elsewhere = f", catalogue {catalog.location}" if settings.catalog else ""
    say(f"{'made' if changed else 'nothing to do:'} the lake at {catalog.storage.root}{elsewhere}")
    catalog.close()
    return 0


@app.command
def status(
    archive: str | None = None,
    *,
    run: str | None = None,
    lake: LakeURL = None,
    form: TableOptions = TABLE,
    watch: bool = False,
    every_s: float = 5.0,
) -> int:
    """Show what each archive was asked for, found and failed, and its age.

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
    from lake.arranged import first_of_status
    from lake.names import current_archive
    from lake.query import Lake
    from lake.upkeep import progress
    from lake.upkeep.maintenance import quarantined
    from lake.upkeep.maintenance import status as read_status

    if run is not None:
        return _status_of_run(run, archive, lake, form, watch, every_s)
    if watch and archive is None:
        raise ConfigurationError("--watch watches one archive", hint="name it: lightlake status ARCHIVE --watch")
    with Lake(lake) as opened:
        archive = current_archive(opened, archive)
        if archive is None:
            found = read_status(opened.catalog.cursor())
            form.show(found, first=first_of_status(found))
            for line in quarantined(opened.catalog) if form.is_text else ():
                say(line)
        elif watch:
            progress.watch(opened, archive, say, every_s)
        elif form.is_text:
            say(progress.as_text(progress.progress(opened, archive)))
        else:
            form.show(progress.progress(opened, archive).as_table())
        if archive is not None and form.is_text:
            form.show(progress.slowest(opened, archive))
    return 0


def _status_of_run(
    run: str, archive: str | None, url: str | None, form: TableOptions, watch: bool, every_s: float
) -> int:
    from lake.query import Lake
    from lake.upkeep import run_status

    if archive is not None:
        raise ConfigurationError("--run shows all archives of a run", hint=f"leave out {archive}, or --run")
    with Lake(url) as opened:
        run_status.run_named(opened, run)
        if watch:
            run_status.watch(opened, run, say, every_s)
        elif form.is_text:
            say(run_status.as_text(opened, run))
        else:
            form.show(run_status.of_archives(opened, run))
    return 0


@app.command
def verify(*, lake: LakeURL = None, quick: bool = False, form: TableOptions = TABLE) -> int:
    """Check files, catalogue and coverage; exit with 1 if one is wrong.

    It checks checksums, the plain Hive tree and constraints, too.

    Parameters
    ----------
    quick
        Do not read the files' content.
    """
    from lake.arranged import findings_table
    from lake.query import Lake
    from lake.upkeep.maintenance import verify as run_verify

    with Lake(lake) as opened:
        findings = run_verify(opened.catalog, quick=quick)
        errors = sum(finding.is_error for finding in findings)
        if form.is_text:
            for finding in findings:
                say(one_line(f"{finding.level}: {finding.check}: {finding.message} ({finding.hint})"))
            notes = counted(len(findings) - errors, "note")
            say(f"{opened.storage.root}: {counted(errors, 'error')}, {notes}")
        else:
            form.show(findings_table(findings))
    return 1 if errors else 0


@app.command
def compact(*, lake: LakeURL = None) -> int:
    """Merge small files into few large sorted ones, and back up.

    The plain tree is equal to the catalogue then.
    """
    from lake.query import Lake
    from lake.store.backup import backup_hint
    from lake.upkeep.compaction import compact as run_compact

    with Lake(lake, writable=True) as opened:
        done = run_compact(opened.catalog)
    say(f"{done.summary}, in {done.seconds:.1f} s")
    if opened.catalog.location.kind == "postgres":
        say(f"the catalogue in PostgreSQL has no backup from here: {backup_hint(opened.catalog.location)}")
    return 0


@app.command
def restore(
    date: str | None = None,
    *,
    lake: LakeURL = None,
    list_only: Annotated[bool, Parameter(name="--list", negative=())] = False,
    form: TableOptions = TABLE,
) -> int:
    """Restore the catalogue from a backup.

    The files are reconciled with it. What that loses is pulled again.

    Parameters
    ----------
    date
        Date of the backup, such as 2026-11-28 or 2026-11-28T01:30; default: the newest. "now" keeps the catalogue, and
        gives up files that are gone.
    list_only
        Only list the backups.
    """
    from lake.arranged import backups_table
    from lake.settings import load_settings
    from lake.store.backup import backups
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.renaming import rename_archives
    from lake.upkeep.restore import restore as run_restore
    from lake.upkeep.restore import summary

    settings = load_settings()
    storage = Storage.from_url(lake or settings.url)
    if list_only:
        found = backups(storage)
        if form.is_text:
            for one in found:
                say(f"{one.made_at:%Y-%m-%dT%H:%M:%SZ}  {one.path}")
            if not found:
                say("no backups: lightlake compact makes one")
        else:
            form.show(backups_table(found))
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
    form: TableOptions = TABLE,
    confined: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Run SQL in the lake, which is open for reading only.

    Parameters
    ----------
    query
        DuckDB's SQL, such as "FROM target_lightcurves LIMIT 5".
    confined
        Allow one SELECT over the lake only: no other files, no network, limits on memory and time.
    """
    from lake.query import Lake

    with Lake(lake, confined=confined) as opened:
        form.show(opened.sql(query))
    return 0


@app.command
def attach(*, lake: LakeURL = None, write: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Print the SQL that attaches this lake in a stock DuckDB client.

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
def schema(
    *,
    output: Annotated[
        Output | Literal["text", "markdown"],
        Parameter(help="Form: text for reading, or as of other tables, or markdown."),
    ] = "text",
    to: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="File to write; its extension sets the form, .md among them."),
    ] = None,
    expand: Annotated[bool, Parameter(help="Print each row below the one before, a column a line.")] = False,
) -> int:
    """Print every table and column: type, unit, UCD, description; and all views and macros."""
    from lake.arranged import schema_lines, schema_table
    from lake.model.declared import all_tables, declarations
    from lake.model.schema import as_dict, as_markdown
    from lake.model.views import views as all_views

    tables, views = all_tables().values(), all_views(declarations())
    chosen: Output | None = None if output in ("text", "markdown") else output  # type: ignore[assignment]
    if output == "markdown" or (to is not None and to.suffix.lower() == ".md"):
        lines = ["## Views and macros", "", *(f"- `{one.call}`: {one.note.text}" for one in views)]
        put("\n".join([as_markdown(tables), *lines]), to)
    elif (form := TableOptions(chosen, to, expand)).form == "json":
        put(json.dumps({**as_dict(tables), "views": {one.call: one.note.text for one in views}}, indent=2), form.file)
    elif not form.is_text:
        form.show(schema_table(tables))
    else:
        for line in schema_lines(tables, views, terminal_width()):
            say(line)
    return 0


app.register_install_completion_command(help="Install completion for your shell, or that of --shell.")


@app.command
def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
    """Print a script with which a shell completes commands and options.

    `lightlake --install-completion` installs it. Do so again after an upgrade.

    Parameters
    ----------
    shell
        Load it in bash with: . <(lightlake completion bash).
    """
    sys.stdout.write(app.generate_completion(shell=shell))
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
        if [one for one in arguments if not one.startswith("-")] in ([], ["export"]):
            for group, commands in _PLUGGED_IN:
                plug_in(group, commands, described=True)
        else:
            from lake.settings import check_env_file

            check_env_file()
        code = app(arguments, result_action="return_value", print_error=False, exit_on_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        if debug:
            raise
        code = _failed(_usage(error))
    except KeyboardInterrupt:
        code = _failed("stopped", 130)
    except BrokenPipeError:  # the reader has closed the pipe, and wants no more output
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if debug:
            raise
        from lake.store.failures import explain

        code = _failed(with_topic(known)) if (known := explain(error)) else _failed(_bug(error), 70)
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


def _usage(error: CycloptsError) -> str:
    """Say what is wrong with a command line."""
    chain = " ".join(error.command_chain or ())
    if isinstance(error, MissingArgumentError) and error.keyword is None and error.argument is not None:
        # One that was not given at all; what may stand without its name is called as the help calls it.
        parameter = error.argument.names[0]
        is_positional = error.argument.field_info.is_positional
        name = parameter.removeprefix("--").replace("-", "_").upper() if is_positional else parameter
        return f"{chain}: {name} is missing (see: lightlake {chain} --help)"
    if isinstance(error, UnusedCliTokensError):
        return f"{chain}: one argument too many: {' '.join(error.unused_tokens or ())} (see: lightlake {chain} --help)"
    return str(error)


def _bug(error: Exception) -> str:
    return f"this is a bug, please report it: {type(error).__name__}: {error} (--debug shows where)"


def _failed(error: object, code: int = 2) -> int:
    sys.stderr.write(f"lightlake: {safe_line(error)}\n")
    return code
