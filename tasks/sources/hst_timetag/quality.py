"""Say which exposures make no light curve, and why: the rules of the Lightcurve Legacy of COS and STIS (HST 13902)."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.sources.hst_timetag.events import EventTable

# In the order in which they are looked at; the first that holds is the reason.
REASONS = ("Bad EXPFLAG", "No events", "Non-linear time", "Singular event", "Bad Proposal", "Short Exposure")
SHORTEST_S = 1.0
# Proposals whose exposures are known to be unusable. The published list is empty.
BAD_PROPOSALS = frozenset[int]()


def reasons(tables: Sequence[EventTable], bad_proposals: frozenset[int] = BAD_PROPOSALS) -> list[str]:
    """Return why an exposure makes no light curve, all reasons in fixed order; none if it does.

    Parameters
    ----------
    tables
        Of its segments: what is wrong with one is wrong with the exposure.
    bad_proposals
        Proposals whose exposures are rejected.
    """
    found = {reason for table in tables for reason in _reasons(table, bad_proposals)}
    return [reason for reason in REASONS if reason in found]


def _reasons(table: EventTable, bad_proposals: frozenset[int]) -> list[str]:
    found = []
    if table.expflag != "NORMAL":
        found.append("Bad EXPFLAG")
    if table.rows == 0:
        found.append("No events")
    else:
        times = table.time_range
        found += [] if times.is_sorted else ["Non-linear time"]
        found += ["Singular event"] if times.is_singular else []
    if table.proposal in bad_proposals:
        found.append("Bad Proposal")
    if not table.exposure_s >= SHORTEST_S:
        found.append("Short Exposure")
    return found
