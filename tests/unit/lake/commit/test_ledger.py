"""What is still to be asked, and what was."""

from datetime import UTC, datetime, timedelta

import pytest
from helpers.granules import ARCHIVE, ASKED, PARAMETERS, RELEASE, attempt, committed, register, target_ids

from lake.commit.ledger import Attempt, canonical, count_pending, count_rejected, dated_ahead, numbers, pending, waiting
from lake.errors import PartlyCommitted


def _asked_for(catalog, *more, batch_size=100, **options):
    arguments = (ARCHIVE, RELEASE, *(more or (PARAMETERS,)))
    cursor = catalog.cursor()
    batches = list(pending(catalog, *arguments, batch_size=batch_size, **options))
    assert sum(batch.num_rows for batch in batches) == count_pending(cursor, *arguments, **options)
    assert waiting(cursor, *arguments, **options).total == count_pending(cursor, *arguments, **options)
    return batches


def _ids(batches):
    return {target for batch in batches for target in batch["target_id"].to_pylist()}


def test_what_was_answered_is_not_asked_again_what_failed_is(catalog):
    register(catalog, range(12))
    committed(catalog, range(4), "g0", targets=range(6))
    committed(catalog, [], "g1", targets=range(6, 8), status="failed", attempt_status="failed")
    assert _ids(_asked_for(catalog)) == set(target_ids(range(6, 12)))


def test_what_was_rejected_is_left_alone_until_it_is_asked_for(catalog):
    register(catalog, range(8))
    committed(catalog, range(4), "g0")
    committed(catalog, [], "g1", targets=range(4, 6), status="failed", attempt_status="failed")
    committed(catalog, [], "g2", targets=range(6, 7), status="rejected", attempt_status="rejected")
    failed, rejected, new = ({*target_ids(one)} for one in (range(4, 6), range(6, 7), range(7, 8)))
    assert _ids(_asked_for(catalog)) == failed | new
    assert _ids(_asked_for(catalog, select="failed")) == failed | rejected
    assert _ids(_asked_for(catalog, select="all")) == {*target_ids(range(8))}
    assert waiting(catalog.cursor(), ARCHIVE, RELEASE, PARAMETERS, select="all").rejected == 1
    # It is due like any other answer: with other parameters, another release, and when it is too old.
    for more in ((canonical({"radius_arcsec": 2.0}),), ()):
        options = {} if more else {"max_age": timedelta(days=1)}
        assert rejected <= _ids(_asked_for(catalog, *more, **options))
    assert _asked_for(catalog, canonical({"radius_arcsec": 2.0}), select="failed") == []
    cursor = catalog.cursor()
    assert count_rejected(cursor, ARCHIVE, RELEASE, PARAMETERS) == 1
    assert count_rejected(cursor, ARCHIVE, RELEASE, PARAMETERS, ["nobody"]) == 0


def test_other_parameters_releases_and_old_answers_are_asked_anew(catalog):
    register(catalog, range(4))
    committed(catalog, range(4), "g0")
    assert _asked_for(catalog) == []
    assert _ids(_asked_for(catalog, canonical({"radius_arcsec": 2.0}))) == set(target_ids(range(4)))
    assert len(_ids(pending(catalog, ARCHIVE, "DR2", PARAMETERS, batch_size=9))) == 4
    assert len(_ids(_asked_for(catalog, max_age=timedelta(days=1)))) == 4
    assert _asked_for(catalog, max_age=timedelta(days=36500)) == []


def test_what_failed_rests_the_longer_the_more_often_it_failed(catalog):
    register(catalog, range(4))
    committed(catalog, range(2), "g0")
    committed(catalog, [], "g1", targets=range(2, 3), status="failed", attempt_status="failed")

    def asked(**ago):
        at = datetime.now(UTC) - timedelta(**ago)
        catalog.cursor().execute("UPDATE coverage SET asked_at = ? WHERE status = 'failed'", [at])
        return _ids(_asked_for(catalog, back_off=True))

    new, failed = set(target_ids(range(3, 4))), set(target_ids(range(2, 3)))
    for failures, hours in ((1, 1), (2, 2), (3, 4), (9, 168), (40, 168)):
        catalog.cursor().execute("UPDATE ledger SET attempt = ? WHERE granule = 'g1'", [failures])
        assert asked(hours=hours, minutes=-1) == new, failures
        assert asked(hours=hours, minutes=1) == new | failed, failures
    assert asked(hours=0) == new
    assert _ids(_asked_for(catalog)) == new | failed


def test_answers_and_failures_of_the_future_are_due(catalog):
    """A clock that ran ahead dated them; answers that never age stay answers."""
    register(catalog, range(4))
    committed(catalog, range(2), "g0")
    committed(catalog, [], "g1", targets=range(2, 4), status="failed", attempt_status="failed")
    found, failed = set(target_ids(range(2))), set(target_ids(range(2, 4)))
    for days, old, rests in ((400, True, False), (1 / 24, True, False), (0, False, True), (-8, True, False)):
        at = datetime.now(UTC) + timedelta(days=days)
        catalog.cursor().execute("UPDATE coverage SET asked_at = ?", [at])
        week = _ids(_asked_for(catalog, max_age=timedelta(days=7), back_off=True))
        assert week == (found if old else set()) | (set() if rests else failed), days
        assert _ids(_asked_for(catalog)) == failed
        assert _ids(_asked_for(catalog, max_age=timedelta(0))) == found | failed
        counted = {who: count for who, (count, _) in dated_ahead(catalog.cursor(), "coverage").items()}
        assert counted == ({f"{ARCHIVE} {RELEASE}": 4} if days > 0 else {})


def test_by_sample(catalog):
    register(catalog, range(4), "a")
    register(catalog, range(2, 8), "b")
    assert _ids(_asked_for(catalog, samples=["b"])) == set(target_ids(range(2, 8)))
    assert len(_ids(_asked_for(catalog, samples=["a", "b"]))) == 8
    assert _asked_for(catalog, samples=["c"]) == []


def test_batches_are_of_neighbours_and_of_the_size_asked_for(catalog):
    register(catalog, range(25))
    batches = _asked_for(catalog, batch_size=10)
    assert [batch.num_rows for batch in batches] == [10, 10, 5]
    order = [target for batch in batches for target in batch["target_id"].to_pylist()]
    assert order == sorted(target_ids(range(25)))
    assert batches[0].column_names[:4] == ["target_id", "name", "ra", "dec"]


def test_a_commit_while_batches_are_being_taken(catalog):
    register(catalog, range(20))
    batches = pending(catalog, ARCHIVE, RELEASE, PARAMETERS, batch_size=5)
    taken = next(batches)
    committed(catalog, range(20), "g0")
    assert taken.num_rows + sum(batch.num_rows for batch in batches) == 20


def test_attempts_are_numbered_and_known_again(catalog):
    cursor = catalog.cursor()
    assert numbers(cursor, [attempt("g0")]) == [1]
    committed(catalog, range(2), "g0")
    assert numbers(cursor, [attempt("g0")]) is None
    assert numbers(cursor, [attempt("g0", again=1)]) == [2]
    assert numbers(cursor, [attempt("g1")]) == [1]
    assert numbers(cursor, [attempt("g1"), attempt("g0", again=1)]) == [1, 2]
    assert numbers(cursor, [attempt("g0"), attempt("g0")]) is None
    with pytest.raises(PartlyCommitted, match="g0"):
        numbers(cursor, [attempt("g1"), attempt("g0")])


def test_an_attempt_survives_json():
    made = attempt("g0", "failed", reason="why", error_type="TimeoutError", seconds=1.5)
    assert Attempt.from_dict(made.as_dict()) == made
    assert made.as_dict()["started_at"] == ASKED.isoformat()


@pytest.mark.parametrize("one", [{"b": 1, "a": [1, 2]}, {"a": [1, 2], "b": 1}])
def test_parameters_have_one_form(one):
    assert canonical(one) == '{"a":[1,2],"b":1}'
