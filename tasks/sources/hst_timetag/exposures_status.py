"""Tell which exposures and composites are in the lake as they are asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow.compute as pc

from lake.commit.ledger import Select
from lake.query import Lake
from tasks.sources.granule_status import GranuleStatus, granule_status, last_status
from tasks.sources.hst_timetag.tables import NAME, ORIGIN
from tasks.sources.hst_timetag.work import Job


def status_of(lake: Lake, jobs: Mapping[str, Job], select: Select) -> GranuleStatus[Job]:
    """Return the status of granules: see tasks.sources.granule_status.

    A granule whose rows were replaced since, by those of other parameters or files, is extracted again.

    Parameters
    ----------
    jobs
        By the ids of their granules.
    """
    found = granule_status(lake, NAME, [ORIGIN.release], jobs, select=select)
    if select == "failed":
        return found
    last, here = last_status(lake, NAME, [ORIGIN.release]), held(lake, "granule")
    replaced = [job for granule, job in jobs.items() if last.get(granule) == "done" and granule not in here]
    return replace(found, waiting=[*found.waiting, *replaced], done=found.done - len(replaced))


def held(lake: Lake, *columns: str) -> set[str]:
    """Return all values of some columns of table hst_exposures."""
    rows = lake.sql(f"SELECT DISTINCT {', '.join(columns)} FROM hst_exposures")
    return {value for name in columns for value in pc.drop_null(rows[name]).to_pylist()}
