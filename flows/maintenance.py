"""Keep the lake in order: compact it, and check that it is as it must be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.forms import LakeField
from flows.living import living
from flows.markdown import cells
from flows.titles import title
from lake.query import Lake
from lake.store.backup import backup_hint
from lake.store.claims import held
from lake.text import counted
from lake.upkeep import maintenance
from lake.upkeep.compaction import Compacted, compact
from lake.upkeep.consistency import Finding
from tasks.options import FormField
from tasks.pull.report import REASONS_TOLD


def compact_name() -> str:
    """Return the name of a run of `maintain`, for the UI."""
    return title("compact", flow_run.parameters, "")


def verify_name() -> str:
    """Return the name of a run of `verify`, for the UI."""
    return title("verify", flow_run.parameters, "")


@flow(name="maintenance", flow_run_name=compact_name, validate_parameters=True)
def maintain(lake: LakeField = None) -> State[Compacted]:
    """Bring the lake to rest: few large sorted files, no deleted rows, no leftovers of crashes.

    Afterwards the plain tree of files equals the catalogue. Queries that began before may have to be repeated.
    While another run compacts the same lake, this one does nothing.
    """
    with Lake(lake, writable=True) as opened, living(opened), held(opened.catalog, "maintenance", "a run") as ours:
        if not ours:
            return Cancelled(message="another run compacts this lake")
        done = compact(opened.catalog)
    if opened.catalog.location.kind == "postgres":
        get_run_logger().info("the catalogue has no backup from here: %s", backup_hint(opened.catalog.location))
    create_table_artifact([asdict(done)], key="maintenance", description=done.summary)
    return Completed(message=done.summary, data=done)


@flow(name="verify", flow_run_name=verify_name, validate_parameters=True)
def verify(
    lake: LakeField = None, quick: Annotated[bool, FormField("Do not read the files' content")] = False
) -> State[list[Finding]]:
    """Check files, checksums, the plain tree against the catalogue, constraints and coverage.

    The run ends Failed if anything is wrong; its message says what, and its artifact lists all findings.
    """
    with Lake(lake) as opened, living(opened):
        findings = maintenance.verify(opened.catalog, quick=quick)
    errors = [finding for finding in findings if finding.is_error]
    count = f"{counted(len(errors), 'error')}, {counted(len(findings) - len(errors), 'note')}"
    create_table_artifact([cells(asdict(finding)) for finding in findings], key="verify", description=count)
    if not errors:
        return Completed(message=count, data=findings)
    reasons = "; ".join(f"{error.check}: {error.message} ({error.hint})" for error in errors[:REASONS_TOLD])
    more = len(errors) - REASONS_TOLD
    message = f"{count}: {reasons}{f'; and {more} more' if more > 0 else ''}"
    get_run_logger().error(message)
    return Failed(message=message, data=findings)
