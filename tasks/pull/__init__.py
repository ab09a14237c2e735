"""The engine: it plans what a source is to be asked for, has it fetched and staged, and commits it."""

from tasks.pull.batches import Batch, count_to_ask, max_age, plan_batches, read_granules, release_in
from tasks.pull.stage import complete, fetch_granule, lost, made_sound, split
from tasks.pull.work import commit_batch, fetch_batch, is_passing, lake_at, mark_batch_failed

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
