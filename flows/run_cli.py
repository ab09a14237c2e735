"""Commands for runs: do what a file describes, list runs, stop one."""

from __future__ import annotations

import getpass
import socket
import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli import ByPrefect, by_prefect, check_prefect, existing, stopping, tell
from lake.cli import LakeURL
from lake.errors import ConfigurationError
from lake.output import TABLE, TableOptions, say
from lake.text import one_line
from tasks.pull.recording import STOPPED

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

run = App(name="run")
runs = App(name="runs")
stop = App(name="stop")

Switch = Parameter(negative=())
# Columns that a plan begins with in a terminal, which may not have room for all.
_PLANNED = ("step", "name", "in_lake", "expected", "targets", "new", "old", "rows")


@run.default
def run_file(
    file: Path | None = None,
    *,
    archives: Annotated[str | None, Parameter(help="Which archives are asked, with commas: names, core, all.")] = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    text: Annotated[str | None, Parameter(name="--json")] = None,
    again: Annotated[bool, Switch] = False,
    retry_failed: Annotated[bool, Switch] = False,
    dry_run: Annotated[bool, Switch] = False,
    write: Path | None = None,
    lake: LakeURL = None,
    form: TableOptions = TABLE,
    prefect: ByPrefect = None,
) -> int:
    """Get samples and pull archives for them, as a file describes.

    Exit with 1 if anything is missing. Started again with the same run_id, it asks for the rest. Exit with 3 if it
    was stopped by `lightlake stop`.

    Parameters
    ----------
    file
        YAML or JSON, in the keys that --write shows, or those of the Fornax collector's scale-up helper.
    settings
        KEY=VALUE, which goes before the file: samples.sdss.num=100; may be given several times.
    text
        A JSON object with the same keys, which go before those of the file.
    again
        Ask for what was answered before, too.
    retry_failed
        Ask for exactly the targets that failed or were rejected before.
    dry_run
        Ask for nothing, and show the plan: samples, and what each archive would be asked, with estimates. --output,
        --to and --expand are of the plan.
    write
        File to write the run to, with a comment on each key, instead of running it.
    """
    from flows.run_file import read_run, write_run
    from flows.run_steps import checked, planned

    more = [f"again={str(again).lower()}"] if again else []
    more += [f"retry_failed={str(retry_failed).lower()}"] if retry_failed else []
    asked = [name.strip() for name in (archives or "").split(",") if name.strip()]
    options, notes = read_run(file, text, [*(settings or ()), *more], asked)
    if form.is_text:
        for note in notes:
            say(one_line(f"note: {note}"))
    names = checked(options)
    if write is not None:
        write_run(options, write)
        say(f"{write}: now run: lightlake run {write}")
        return 0
    if dry_run:
        from lake.query import Lake

        with Lake(lake) as opened:
            plan = planned(opened, options, names)
            form.show(plan, first=[name for name in _PLANNED if name in plan.column_names])
        return 0
    url = existing(lake)
    if by_prefect(prefect):
        check_prefect()
        from flows.run import run_by_file

        return tell(lambda: run_by_file(lake=url, **dict(options), return_state=True))
    from flows.local import run as run_here

    with stopping() as stopped:
        done = run_here(url, options, names)
    if stopped:
        return STOPPED
    for line in done.lost or done.lines:
        say(line)
    return 1 if done.lost else 0


@runs.default
def list_runs(
    run_id: str | None = None, *, lake: LakeURL = None, form: TableOptions = TABLE, page: Path | None = None
) -> int:
    """List the runs of a lake, or show one.

    Parameters
    ----------
    run_id
        Show this run.
    page
        File to write, with plots of what that run used, and when: processor, memory, bytes, requests.
    """
    from lake.query import Lake
    from lake.upkeep import run_status

    if page is not None and run_id is None:
        raise ConfigurationError("--page is of one run", hint="name it: lightlake runs RUN --page FILE.html")
    with Lake(lake) as opened:
        if run_id is None:
            table = run_status.runs(opened)
            if not form.is_text:
                form.show(table)
            else:
                for line in run_status.as_lines(table) if table.num_rows else ("no runs",):
                    say(line)
            return 0
        row = run_status.run_named(opened, run_id)
        if page is not None:
            from tasks.analysis.run_pages import write_run_page

            write_run_page(opened, run_id, page)
            say(f"{page}: what {one_line(run_id)} used")
        elif form.is_text:
            say(run_status.as_text(opened, run_id))
        else:
            form.show(run_status.runs(opened, row["run_id"]))
    return 0


@stop.default
def stop_run(run_id: str, *, lake: LakeURL = None, wait_s: float = 60.0) -> int:
    """Stop a run, whoever started it and wherever.

    What it has committed stays. Exit with 1 if it has not ended yet.

    Parameters
    ----------
    run_id
        As `lightlake runs` names it.
    wait_s
        How long to wait for its end, seconds; it looks every few seconds whether it is to stop.
    """
    from lake.commit.runs import note_stopped, request_stop
    from lake.query import Lake
    from lake.upkeep.run_status import run_named

    with Lake(lake, writable=True) as opened:
        row = run_named(opened, run_id)
        if row["state"] not in ("running", "stopping"):
            raise ConfigurationError(
                f"the run {run_id} is not running: it is {row['state']}", hint="list runs with: lightlake runs"
            )
        request_stop(opened.storage, run_id, f"{getpass.getuser()} on {socket.gethostname()}")
        end = time.monotonic() + wait_s
        while row["state"] in ("running", "stopping"):
            if time.monotonic() > end:
                say(f"{run_id} was asked to stop, and has not ended in {wait_s:g} s; it does when its requests end")
                return 1
            time.sleep(0.5)
            row = run_named(opened, run_id)
        if row["state"] == "stopped":
            note_stopped(opened.catalog, run_id)
            row = run_named(opened, run_id)
    why = f": {row['message']}" if row["message"] else ""
    say(one_line(f"{run_id}: {row['state']}{why}"))
    return 0
