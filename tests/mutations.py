"""Faults that are planted one at a time, and whether the tests see them: `python tests/mutations.py [NUMBER ...]`.

Each is planted in a copy of the tree. The files of tests that mirror the module run first; a fault that these do not see
is tried with the whole suite, if asked for by --whole. A fault is caught by the first test that fails. What else pytest
is to get comes after `--`, such as `-- -m "not server"` for what .ci/run has besides. Numbers begin at 0:

    python tests/mutations.py 19                            # one fault
    python tests/mutations.py 19 -- -k future               # and of its tests only these
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".*_cache", ".hypothesis", ".venv", "__pycache__", "*.egg-info")

# Module, old text, new text, what it breaks, tests that mirror the module (below tests/).
FAULTS = (
    ("lake/science/photometry.py", "10 ** (-0.4 *", "10 ** (0.4 *", "brighter is fainter", "unit/lake/science/test_photometry.py"),
    ("lake/science/photometry.py", "_LN = 2.5 /", "_LN = 2.0 /", "errors of magnitudes", "unit/lake/science/test_photometry.py"),
    ("lake/science/times.py", "2457000.0 - MJD_OFFSET", "2457000.5 - MJD_OFFSET", "TESS by half a day", "unit/lake/science/test_times.py"),
    ("lake/science/times.py", "later = shift[row] + _along(earth", "later = shift[row] - _along(earth", "light travel backwards", "unit/lake/science/test_times.py"),
    ("lake/science/times.py", "_along(earth - sun, row", "_along(earth + sun, row", "heliocentric times", "unit/lake/science/test_times.py"),
    ("lake/science/times.py", "to_tt += TT_MINUS_TAI_S", "to_tt += 0", "TT is TAI", "unit/lake/science/test_times.py"),
    ("lake/science/sky.py", "separation < radius_of[at] if strict else separation <= radius_of[at]", "separation <= radius_of[at]", "the edge of a strict match", "unit/lake/science/test_sky.py property/test_sky_and_times.py"),
    ("lake/science/zones.py", "radius_deg * (1 + _PAD_RATIO) + _PAD_DEG", "radius_deg * (1 - _PAD_RATIO) - _PAD_DEG", "points at the radius", "unit/lake/science/test_sky.py property/test_sky_and_times.py"),
    ("lake/science/sky.py", "np.searchsorted(keys, keys) + 1)", "np.searchsorted(keys, keys))", "ranks from 0", "unit/lake/science/test_sky.py"),
    ("lake/science/sky.py", "a * years) / 1000", "a * years) / 999", "proper motion by a thousandth", "unit/lake/science/test_sky.py"),
    ("lake/science/motion.py", "JULIAN_YEAR_D)", "365.0)", "years of 365 days", "unit/lake/science/test_motion.py unit/tasks/sources/test_proper_motion.py"),
    ("lake/commit/transaction.py", "recover(catalog, number)\n", "pass\n", "what a crash left is not undone", "unit/lake/store/test_fence.py unit/lake/commit integration/test_kill.py"),
    ("lake/commit/transaction.py", "if not self._landed():", "if False:", "an answer lost at the COMMIT is success", "unit/lake/commit/test_commit.py"),
    ("lake/commit/transaction.py", "remove(self.storage.data / \"main\" / name)", "pass", "files of a commit undone stay", "unit/lake/commit/test_commit.py unit/lake/upkeep"),
    ("lake/commit/transaction.py", "!= number", "== number", "who was overtaken", "unit/lake/store/test_fence.py unit/lake/commit"),
    ("lake/store/fence.py", "max(number + 1, {clock})", "max(number, {clock})", "the fence stands still", "unit/lake/store/test_fence.py unit/lake/commit"),
    ("lake/commit/ledger.py", "[int(last) + 1 for", "[int(last) for", "attempts are not counted", "unit/lake/commit/test_ledger.py"),
    ("lake/commit/ledger.py", "AND status <> 'failed' AND asked_at BETWEEN", "AND asked_at BETWEEN", "what failed is not asked again", "unit/lake/commit/test_ledger.py"),
    ("lake/commit/ledger.py", "1 << (least(times, 30) - 1)", "1 << (least(times, 30))", "back-off twice as long", "unit/lake/commit/test_ledger.py"),
    ("lake/commit/ledger.py", "now + min(max_age, AHEAD)", "now + max_age", "answers of the future", "unit/lake/commit/test_ledger.py"),
    ("lake/commit/commit.py", "status IN ('failed', 'rejected')) AS staged", "status IN ('rejected')) AS staged", "a loss takes an answer back", "unit/lake/commit/test_commit.py unit/tasks/pull"),
    ("lake/commit/commit.py", "gone = pc.invert(pc.is_in(asked,", "gone = (pc.is_in(asked,", "targets that are there are removed", "unit/lake/commit"),
    ("lake/commit/validate.py", "if column.required and values.null_count:", "if False:", "NULL in columns that are required", "unit/lake/commit/test_validate.py"),
    ("lake/commit/sound.py", "if wrong.size > 1 and not (", "if wrong.size > 1 and (", "times from another zero", "unit/lake/commit/test_sound.py"),
    ("lake/commit/quarantine.py", "if day < oldest]", "if day <= oldest]", "the quarantine a day too short", "unit/lake/commit unit/lake/upkeep"),
    ("lake/store/migrations.py", "(*_missing(cursor), *_comments(cursor),", "(*_comments(cursor),", "new tables and columns of sources stay missing", "unit/lake/model/test_declared.py unit/lake/store/test_catalog.py"),
    ("lake/model/views.py", "(ra0, dec0, ra, dec) <= radius_arcsec", "(ra0, dec0, ra, dec) < radius_arcsec / 2", "cones half as wide", "unit/lake/model unit/lake/test_query.py"),
    ("tasks/services/download.py", "if known and at >= known[\"size\"]:", "if known and at > known[\"size\"]:", "a file that is whole is continued", "unit/tasks/services/test_download.py unit/tasks/sources/tess_kepler"),
    ("tasks/services/retry.py", "isinstance(error, ArchiveError) and error.transient,", "isinstance(error, ArchiveError),", "what cannot pass is tried again", "unit/tasks/services"),
    ("tasks/services/tap.py", "== \"OVERFLOW\" or rows >= limit", "== \"OVERFLOW\"", "an answer cut in silence", "unit/tasks/services/test_tap.py"),
    ("tasks/services/bounds.py", "if self.unpacked > self.most:", "if False:", "a bomb is unpacked", "unit/tasks/services/test_bounds.py"),
    ("tasks/services/values.py", "(ra <= 360) & (np.abs(dec) <= 90)", "(ra <= 360)", "declinations beyond the pole", "unit/tasks/services unit/tasks/sources/test_odd_values.py unit/tasks/sources/test_heasarc.py unit/tasks/samples"),
    ("tasks/sources/wise.py", "separation > radius_arcsec + REACH_ARCSEC", "separation > radius_arcsec - REACH_ARCSEC", "targets that pass a source", "unit/tasks/sources/test_wise.py unit/tasks/sources/test_proper_motion.py"),
    ("tasks/sources/wise.py", "2: 3.339", "2: 3.313", "W2's AB offset", "unit/tasks/sources/test_wise.py unit/tasks/sources"),
    ("tasks/sources/virac/tap.py", "[\"Ks\"] > cut.min_ks", "[\"Ks\"] >= cut.min_ks", "sources with too few detections", "unit/tasks/sources/virac"),
    ("tasks/sources/tess_kepler/mast_tap.py", "[(west + 360, 360.0), (0.0, east)]", "[(west + 360, 360.0)]", "places across 0 hours lose half of their circle", "unit/tasks/sources/tess_kepler/test_mast_tap.py"),
    ("tasks/sources/tess_kepler/mast_tap.py", "MAXREC = 100_000", "MAXREC = 200_000", "the service's limit is not known", "unit/tasks/sources/tess_kepler/test_mast_tap.py"),
    ("tasks/sources/tess_kepler/mast_products.py", "2454833, BKJD_OFFSET, 54897", "2454833, BTJD_OFFSET, 54897", "the zero of Kepler's time", "unit/tasks/sources/tess_kepler"),
    ("tasks/samples/position_columns.py", "if epoch is None and (at", "if False and (at", "an epoch said in words", "unit/tasks/samples"),
    ("tasks/pull/driver.py", "one.tries >= self.run.settings.retries", "False", "the last try is not known as such", "integration/test_engine.py unit/tasks/pull"),
    ("tasks/pull/driver.py", "max(self.not_before, time.monotonic() + min(asked_for, settings.timeout_s))", "self.not_before", "Retry-After is not obeyed", "integration/test_engine.py"),
    ("tasks/pull/report.py", "if failed or rejected:", "if failed and rejected:", "a report that names no loss", "unit/flows integration/test_engine.py"),
    ("tasks/services/sesame.py", 'raise ValueError("it has no beginning or no end")', "return None", "a maintenance page is an unknown name", "unit/tasks/services/test_sesame.py"),
    ("tasks/samples/names.py", "COARSEST_ARCSEC = 4.0", "COARSEST_ARCSEC = 4000.0", "rounded positions are taken", "unit/tasks/samples/test_resolver.py"),
    ("tasks/samples/names.py", "row[\"pmdec\"] if moves else None,\n        ref_epoch=J2000 if moves else None", "row[\"pmdec\"] if moves else None,\n        ref_epoch=None", "the epoch of SIMBAD's positions", "unit/tasks/samples/test_by_name.py"),
    ("tasks/samples/by_name.py", "moving = np.delete(moving, row)", "return targets", "stars that lists have at another epoch", "unit/tasks/samples/test_by_name.py"),
    ("tasks/sources/hst_timetag/reset.py", 'f"WHERE {OWN}" if', '"" if', "a reset forgets the names of targets", "integration/test_names_command.py"),
    ("tasks/samples/vizier.py", "if stated is not None and rows != stated:", "if False:", "a table of VizieR cut in silence", "unit/tasks/samples/test_samples_by_name.py"),
    ("tasks/samples/ned.py", "!= list(range(1, rows + 1))", "== []", "a list of NED that is not whole", "unit/tasks/samples/test_samples_by_name.py"),
    ("tasks/samples/sdss.py", "if not order.is_kept(ids, last):", "if False:", "quasars in another order", "unit/tasks/samples/test_samples_by_name.py"),
    ("tasks/samples/answers.py", ".rstrip(\"_\")", "", "columns under their other names", "unit/tasks/samples/test_samples_by_name.py"),
    ("lake/commit/targets.py", "if has_stable_rows or name != ", "if True or name != ", "rows that move bring labels anew", "unit/tasks/samples/test_samples_by_name.py"),
    ("lake/store/lookup.py", "page_checksum_verification=True", "page_checksum_verification=False", "a damaged page is an answer", "unit/lake/store/test_lookup.py"),
    ("lake/matched.py", '_KEYS = ("archive", "release", "source_id")', '_KEYS = ("archive", "source_id")', "a release's curves are another's, too", "unit/lake/test_matched.py"),
    ("lake/matched.py", "if not is_before.any():", "if True:", "times out of order", "unit/lake/test_matched.py"),
    ("lake/upkeep/compaction.py", "while _merge(catalog, number):", "if _merge(catalog, number):", "compaction ends early", "unit/lake/upkeep/test_maintenance.py"),
    ("lake/store/row_groups.py", "same &= pc.equal(before, after).to_numpy()", "same &= False", "rows that are in order by their first key only are not sorted", "unit/lake/commit property/test_order_of_staged_rows.py"),
    ("lake/commit/gather.py", "common = self.keys[key].intersection(named[key])", "common = set()", "joined granules have a source twice", "unit/lake/commit/test_gather.py"),
    ("tasks/archives/work.py", "for manifest in group for receipt", "for manifest in group[:1] for receipt", "of a group that was committed in part, the rest is lost", "property/test_commits.py"),
    ("tasks/sources/hcv/fields.py", "if len(rows) >= FIELD_ROWS or", "if", "a field's answer cut in silence", "unit/tasks/sources/test_hcv_fields.py"),
)  # fmt: skip


def judged(number: int, tree: Path, more: list[str], *, whole: bool) -> str:
    """Plant a fault in a copy of the tree, and return how it ended."""
    name, old, new, _, tests = FAULTS[number]
    path = tree / name
    text = path.read_text() if path.exists() else ""
    if text.count(old) != 1:
        return f"NOT FOUND ({text.count(old)} times): {old!r}"
    path.write_text(text.replace(old, new))
    try:
        # One after the other: pytest would begin with the files of most tests, wherever they are.
        rounds = [*([f"tests/{one}"] for one in tests.split()), *([[]] if whole else [])]
        for paths in rounds:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *more, *paths],
                cwd=tree,
                env={**os.environ, "PYTHONPATH": str(tree)},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode not in (0, 5):
                lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return f"caught: {(lines or done.stderr.splitlines() or ['?'])[0][:120]}"
    finally:
        path.write_text(text)
    return "MISSED"


def main() -> int:
    """Plant the faults that are asked for, all by default; return how many were not caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, help=f"0 to {len(FAULTS) - 1}; default: all")
    parser.add_argument(
        "--whole", action="store_true", help="run the whole suite where the mirroring tests see nothing"
    )
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)  # argparse would take what follows for numbers
    arguments, more = parser.parse_args(given[:end]), given[end + 1 :]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        numbers = arguments.numbers or range(len(FAULTS))
        for number in numbers:
            began = time.monotonic()
            ended = judged(number, tree, more, whole=arguments.whole)
            missed += not ended.startswith("caught")
            print(
                f"{number:2} {FAULTS[number][0]}: {FAULTS[number][3]}: {ended} ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
    print(f"{len(numbers) - missed} of {len(numbers)} caught")
    return missed


if __name__ == "__main__":
    sys.exit(main())
