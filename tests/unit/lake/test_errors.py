"""Errors are one line with a way on, and cross process boundaries whole."""

import pickle

import pytest

from lake.errors import ArchiveError, ConfigurationError, GranuleRejected, LightlakeError, TruncatedAnswer


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("no", hint="do"),
        GranuleRejected("broken rule"),
        ArchiveError("busy", archive="ztf", endpoint="http://x", transient=True, retry_after_s=3.0, hint="wait"),
        TruncatedAnswer("cut", archive="ztf", endpoint="http://x"),
    ],
)
def test_an_error_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert isinstance(again, LightlakeError)


def test_the_hint_is_part_of_the_line():
    assert str(ConfigurationError("no lake", hint="make one")) == "no lake (make one)"
    assert str(ConfigurationError("no lake")) == "no lake"
    assert str(ArchiveError("busy", archive="ztf", endpoint="http://x")) == "ztf: busy [http://x]"
