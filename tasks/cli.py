"""Commands for archives and targets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from lake.cli import LakeURL
from lake.errors import ArchiveError, ConfigurationError
from lake.names import check_not_blank
from lake.output import TABLE, TableOptions, put, say, show, terminal_width
from lake.settings import Settings, load_settings
from lake.store.walk import shown
from lake.text import counted, one_line

if TYPE_CHECKING:
    from tasks.samples.target_file import TargetFile
    from tasks.sources.base import Archive, Origin

# The page that helps with errors from here.
HELP_TOPIC = "how-to/target-lists"

archives = App(name="archives")
targets = App(name="targets", help="Register targets, and list them.")

# Bad rows beyond this many are counted, not listed.
_BAD_ROWS_SHOWN = 20
_TEXT_SHOWN = 200
_COLUMNS_SHOWN = 40
_ROWS_SHOWN = 5


@archives.default
def list_archives(
    name: str | None = None,
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="The same as --output json.")] = False,
    releases: bool = False,
    form: TableOptions = TABLE,
) -> int:
    """List the archives, or show all that is known of one, or of a survey.

    That is release, bands with units and zero points, times, endpoint, how it is matched, what good means, what of its
    numbers is corrected, licence and citation.

    Parameters
    ----------
    name
        Show this archive or survey.
    releases
        Ask the archives which releases they have; exit with 1 if one does not answer.
    """
    from tasks.archives.described import as_table, described, overview, row_of
    from tasks.sources.registry import SURVEYS, find, survey_of
    from tasks.sources.registry import known as known_archives

    settings = load_settings()
    survey = survey_of(name) if name else None
    asked = [find(name)] if name and survey is None else [archive for _, archive in sorted(known_archives().items())]
    if releases:
        return _list_releases([] if survey else asked, settings, as_json)
    known: list[Origin] = [survey.origin] if survey else [*asked]
    if as_json or form.form == "json":
        put(json.dumps([row_of(archive, settings) for archive in known], indent=2), form.file)
    elif not form.is_text:
        form.show(as_table([row_of(archive, settings) for archive in known]))
    elif name:
        for line in described(known[0], settings, terminal_width()):
            say(line)
    else:
        for line in overview(known, terminal_width()):
            say(line)
        say("all of one: lightlake archives NAME")
        say(f"surveys: {', '.join(sorted(SURVEYS))}")
    return 0


def _list_releases(known: list[Archive], settings: Settings, as_json: bool) -> int:
    from tasks.sources.releases import found

    rows: list[dict[str, Any]] = []
    for archive in known:
        if "{release}" not in archive.url_template(settings):
            continue
        try:
            rows.append({"archive": archive.name, "pulled": archive.release, "found": found(archive, settings)})
        except ArchiveError as error:
            rows.append({"archive": archive.name, "pulled": archive.release, "error": str(error)})
    if as_json:
        say(json.dumps(rows, indent=2))
    else:
        for row in rows:
            say(one_line(f"{row['archive']}: {', '.join(row.get('found', ())) or row.get('error') or 'none found'}"))
    return int(any("error" in row for row in rows))


@targets.command
def add(
    *what: str,
    sample: str,
    label: str | None = None,
    match_radius: float = 1.0,
    ra: str | None = None,
    dec: str | None = None,
    name: str | None = None,
    frame: str | None = None,
    epoch: float | None = None,
    bibcode: str | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    skip_bad: Annotated[bool, Parameter(negative=())] = False,
    again: Annotated[bool, Parameter(negative=())] = False,
    lake: LakeURL = None,
) -> int:
    """Register the targets of a file, or named ones, under a sample.

    If any row is bad, none is added. The command says which columns of a file were read. Names without positions
    are looked up by SIMBAD, NED and VizieR; the lake keeps the answers, and does not ask again.

    Parameters
    ----------
    what
        A file: ECSV, CSV, VOTable, FITS, Parquet or a name a line. Or names, such as "3C 273".
    sample
        Name of the sample.
    label
        Column that holds each target's label; default: the sample's name labels them all.
    match_radius
        A row within this many arcsec of a known target is that target. With 0 each row is a target of its own.
    ra
        Column of the right ascension, if it is not recognised.
    dec
        Column of the declination, if it is not recognised.
    name
        Column of the names, if it is not recognised.
    frame
        Frame of the position in astropy's words, if the file does not name it: icrs, fk5, galactic.
    epoch
        Julian year of the positions, such as 2016.0, where the file has none: proper motion counts from then.
    bibcode
        Paper that lists the targets.
    dry_run
        Show which columns would be read, and the first rows; add nothing.
    skip_bad
        Add the other rows, and write the bad ones to FILE.bad.csv.
    again
        Look names up that the lake knows already, too.
    """
    from contextlib import nullcontext

    from lake.commit.targets import add_targets
    from lake.query import Lake
    from tasks.events import announce
    from tasks.samples.by_name import Names, file_of, names_given, read_list

    check_not_blank("sample", sample)
    check_not_blank("label", label)
    if match_radius < 0:
        raise ConfigurationError(f"--match-radius cannot be {match_radius:g}", hint="give arcsec, 0 or more")
    file = file_of(what)
    where = one_line(file.name) if file else "the names"
    with nullcontext() if dry_run else Lake(lake, writable=True) as opened:
        names = Names(load_settings() if opened is None else opened.settings, opened, again, match_radius)
        if file is None:
            found = names.located(names_given(what))
        else:
            columns = {"ra_column": ra, "dec_column": dec, "name_column": name, "label_column": label}
            found = read_list(file, names, **columns, frame=frame, epoch=epoch)
        if found.bad_rows:
            for row in found.bad_rows[:_BAD_ROWS_SHOWN]:
                at = f"{file}:{row.line}: {row.reason}: " if file else f"{row.reason}: "
                say(one_line(f"{at}{row.text[:_TEXT_SHOWN]}"))
            if len(found.bad_rows) > _BAD_ROWS_SHOWN:
                say(f"... and {len(found.bad_rows) - _BAD_ROWS_SHOWN} more")
        if opened is None or skip_bad or not found.bad_rows:
            _say_taken(found)
        if opened is None:
            show(found.targets.slice(0, _ROWS_SHOWN), "table")
            sound = counted(found.targets.num_rows, f"row of {where} is", f"rows of {where} are")
            say(f"{sound} sound, {counted(len(found.bad_rows), 'is', 'are')} bad; nothing was added")
            return int(bool(found.bad_rows))
        if found.bad_rows and not (skip_bad and found.targets.num_rows):
            raise ConfigurationError(
                f"{len(found.bad_rows)} of "
                f"{counted(len(found.bad_rows) + found.targets.num_rows, 'row')} of {file or where} are "
                "bad; nothing was added",
                hint="mend or remove them, or add the others with --skip-bad",
            )
        if found.bad_rows and file:
            say(one_line(f"{counted(len(found.bad_rows), 'bad row')} left out, see {_write_bad(file, found)}"))
        added = add_targets(
            opened.catalog,
            found.targets,
            sample,
            catalogue=shown(file.name) if file else None,
            bibcode=bibcode,
            radius_arcsec=match_radius,
            aliases=found.aliases,
        )
        url = str(opened.storage.root)
    done = f"{counted(added.new, 'new target')}, {added.known} known, {counted(added.labels, 'new label')}"
    rows = f"{counted(added.rows, 'row')} of {where}" if file else counted(added.rows, "name")
    say(f"{rows}: {done}")
    if (added.new or added.labels) and (trouble := announce(sample, url, added)):
        say(f"Prefect was not told, so that nothing is pulled by itself (run: lightlake refresh): {trouble}")
    return 0


def _say_taken(found: TargetFile) -> None:
    for taken in found.taken:
        said = [taken.unit, taken.frame, f"epoch {taken.epoch}" if taken.epoch else ""]
        say(one_line(f"{taken.quantity}: column {taken.column}{''.join(f', {word}' for word in said if word)}"))
    if found.unused:
        more = f" and {len(found.unused) - _COLUMNS_SHOWN} more" if len(found.unused) > _COLUMNS_SHOWN else ""
        say(one_line(f"not taken: {', '.join(found.unused[:_COLUMNS_SHOWN])}{more}"))
        if not any(taken.quantity == "name" for taken in found.taken):
            say("note: the targets have no names; --name COLUMN says which column has them")
    for remark in found.remarks:
        say(one_line(f"note: {remark}"))


def _write_bad(file: Path, found: TargetFile) -> Path:
    to = file.with_name(f"{file.name}.bad.csv")
    try:
        with to.open("w", newline="", encoding="utf-8") as out:
            rows = csv.writer(out)
            rows.writerow(("line", "reason", "text"))
            rows.writerows((row.line, row.reason, row.text) for row in found.bad_rows)
    except OSError as error:
        raise ConfigurationError(
            f"the bad rows cannot be written to {to}: {error.strerror}; nothing was added",
            hint="copy the list to a folder that can be written to",
        ) from error
    return to


@targets.command(name="list")
def list_targets(*, sample: str | None = None, lake: LakeURL = None, form: TableOptions = TABLE) -> int:
    """List the targets, all or of one sample, with their labels.

    Parameters
    ----------
    sample
        Only the targets of this sample.
    """
    from lake.query import Lake

    with Lake(lake) as opened:
        form.show(opened.targets(sample), first=("name", "ra", "dec", "labels", "redshift"))
    return 0


@targets.command
def remove(
    name: str | None = None,
    *,
    sample: str | None = None,
    label: str | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    lake: LakeURL = None,
) -> int:
    """Remove a target from the lake or from a sample, or a whole sample.

    Its measurements stay.

    Parameters
    ----------
    name
        Any of the target's names, or its id.
    sample
        Remove only the labels of this sample, and its targets that are in no other sample.
    label
        Remove only this label of the sample.
    dry_run
        Show what would be removed; change nothing.
    """
    from lake.commit.target_changes import remove_targets
    from lake.query import Lake

    with Lake(lake, writable=not dry_run) as opened:
        gone = remove_targets(opened.catalog, name, sample=sample, label=label, dry_run=dry_run)
    counts = (
        counted(gone.targets, "target"),
        counted(gone.labels, "label"),
        counted(gone.matches, "match", "matches"),
        counted(gone.coverage, "row of coverage", "rows of coverage"),
    )
    say(f"{'would remove' if dry_run else 'removed'} {', '.join(counts[:-1])} and {counts[-1]}")
    if gone.sources:
        say(
            f"{counted(gone.sources, 'source')} with {counted(gone.measurements, 'measurement')} of no other target "
            f"{'would stay' if dry_run else 'stay'} in the lake, for cone and SQL"
        )
    return 0


@targets.command
def rename(old: str, new: str, *, lake: LakeURL = None) -> int:
    """Give a target another main name; its earlier names still find it.

    Parameters
    ----------
    old
        Any of its names, or its id.
    new
        Its new main name, which no other target has.
    """
    from lake.commit.target_changes import rename_target
    from lake.query import Lake

    with Lake(lake, writable=True) as opened:
        renamed = rename_target(opened.catalog, old, new)
    before = f", which was {renamed.before}" if renamed.before not in (None, renamed.name) else ""
    say(one_line(f"target {renamed.target_id} is {renamed.name} now{before}"))
    return 0


@targets.command(name="export")
def export_list(
    file: Path,
    *,
    sample: str | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    lake: LakeURL = None,
) -> int:
    """Write the targets, all or of one sample, as a list.

    `targets add --label label` reads it back.

    Parameters
    ----------
    file
        Its extension sets the format: ECSV, VOTable (.vot, .xml), CSV or Parquet.
    sample
        Only the targets of this sample.
    overwrite
        Replace an existing file.
    """
    from lake.query import Lake
    from tasks.samples.exported import export_targets

    with Lake(lake) as opened:
        done = export_targets(opened, file, sample=sample, overwrite=overwrite)
    say(one_line(f"{file}: {counted(done.targets, 'target')} in {counted(done.rows, 'row')}"))
    for note in done.notes:
        say(one_line(f"note: {note}"))
    return 0
