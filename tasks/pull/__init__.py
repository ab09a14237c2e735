"""The engine: it plans what a source is to be asked, has it fetched and staged, commits it and reports."""

from tasks.archives.batches import Batch, count_to_ask, max_age, plan_batches, read_granules, release_in
from tasks.archives.stage import complete, fetch_granule, lost, made_sound, split
from tasks.archives.work import commit_batch, fetch_batch, mark_batch_failed
from tasks.worker import is_passing, lake_at

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

__all__ = [
    "Batch",
    "commit_batch",
    "complete",
    "count_to_ask",
    "fetch_batch",
    "fetch_granule",
    "is_passing",
    "lake_at",
    "lost",
    "made_sound",
    "mark_batch_failed",
    "max_age",
    "plan_batches",
    "read_granules",
    "release_in",
    "split",
]
