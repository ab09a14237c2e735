"""Refuse SQL that writes into a lake that is open for reading only."""

from __future__ import annotations

import re
from typing import Any

from lake.errors import ReadOnly
from lake.store.failures import READING_ONLY

# Functions that change files of the lake, its options, or the catalogue's database directly. READ_ONLY stops them late,
# after files were written or removed, or not at all; ducklake_set_option ends the process.
_WRITING = re.compile(
    r"(?:^|;)\s*(?:force\s+)?checkpoint\b|\b(?:force_)?checkpoint\s*\("
    r"|\b(?:ducklake_)?(?:set_option|set_commit_message|add_data_files|expire_snapshots|cleanup_old_files"
    r"|delete_orphaned_files|rewrite_data_files|merge_adjacent_files|flush_inlined_data|postgres_execute)\"?\s*\(",
    re.IGNORECASE,
)


def check_reads_only(query: str, root: Any) -> None:
    """Refuse SQL that changes files of the lake, its options, or the catalogue's database.

    Parameters
    ----------
    query
        The SQL.
    root
        Of the lake, for the message.

    Raises
    ------
    ReadOnly
        If it would.
    """
    if found := _WRITING.search(query):
        what = found[0].strip('; "(')
        raise ReadOnly(f"the lake at {root} is open for reading only, and {what} writes", hint=READING_ONLY)
