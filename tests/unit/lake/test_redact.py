"""A secret leaves the settings for the one who asks for it, and nobody else."""

from __future__ import annotations

import json
import pickle
import time
import traceback
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lake.commit.ledger import Attempt
from lake.commit.staging import lost
from lake.errors import ArchiveError, ConfigurationError, GranuleRejected
from lake.redact import redacted, safe_text
from lake.settings import Settings, load_settings

PW = "hunter2"

# Distinctive, so that it cannot be part of anything else; as typed, or percent-encoded as it should be.
PASSWORDS = st.builds(
    lambda before, after, as_typed: f"{before}XYZZY{after}" if as_typed else quote(f"{before}XYZZY{after}", safe=""),
    st.text("aZ09@:!$&'*+,;=%~._-", max_size=5),
    st.text("aZ09@:!$&*+,;=%~._-/#?", max_size=5),
    st.booleans(),
).filter(lambda password: not password[0].isdigit())
USERS = st.text("abcXYZ019._-", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"http://me:{PW}@example.org/tap", "example.org/tap"),
        (f"https://{PW}@example.org/", "example.org/"),
        (f"s3://KEY:{PW}@bucket/x", "bucket/x"),
        (f"http://u:a@{PW}@h/x", "h/x"),
        (f"http://u:a/{PW}@h:80/x", "h:80/x"),
        (f"postgresql://u:{PW}@h/d", "postgresql://u:***@h/d"),
        (f"postgres:host=h user=u password={PW} dbname=d", "user=u password=*** dbname=d"),
        (f"password = '{PW} two' x=y", "x=y"),
        (rf"password='a\'{PW}' x=y", "x=y"),
        (f"https://h/x?band=g&token={PW}&n=1", "n=1"),
        (f"https://h/x?X-Amz-Credential={PW}%2F&X-Amz-Signature={PW}&X-Amz-Expires=3", "X-Amz-Expires=3"),
        (f"h: url: /tap?AWSAccessKeyId={PW}&Signature={PW} (Caused by", "(Caused by"),
        (f"/tap?api_key={PW}", "/tap"),
        (f"{{'key': 'a', 'secret': '{PW}', 'client_kwargs': {{'aws_secret_access_key': '{PW}'}}}}", "'key': 'a'"),
        (f'{{"n": 1, "secret": "{PW}"}}', '"n": 1'),
        (f'"{{\\"secret\\": \\"{PW}\\", \\"n\\": 1}}"', '\\"n\\": 1'),
        (f"SECRET lightlake (TYPE s3, KEY_ID '{PW}', SECRET '{PW}''')", "TYPE s3"),
        (f"Authorization: Bearer {PW}", "Authorization"),
        (f"{{'Authorization': 'Basic {PW}=='}}", "Authorization"),
    ],
)
def test_secrets_go_and_the_rest_stays(text: str, kept: str) -> None:
    shown = redacted(text)
    assert PW not in shown
    assert kept in shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8080/x/@foo",
        "ztf: HTTP 503 [https://h/tap/sync?LANG=ADQL&authors=SPOC&maxrec=3]",
        "the token is unexpected: 5",
        "primary key = 5",
        "no column password",
        "eso:n1024_9,n2",
        "mail me@x.org",
        "TXS 0506+056",
        "s3://bucket/prefix/archive=ztf/x.parquet",
        '{"max_search_radius_deg":1.0}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("part", ["x", "a=", "://", "://a:b", "?key=", "'secret': '", "password='", '\\"token\\": \\"'])
def test_a_long_text_takes_no_long_time(part: str) -> None:
    started = time.process_time()
    redacted(part * (200_000 // len(part)))
    assert time.process_time() - started < 20, "else a server could keep a worker busy with a message"


@given(USERS, PASSWORDS)
@example("me", "XYZZY/#?@")
def test_no_error_and_no_attempt_has_it(user: str, password: str) -> None:
    url = f"http://{user}:{password}@example.org/tap?maxrec=5"
    told = f"Client error '401 Unauthorized' for url '{url}'"
    try:
        try:
            raise OSError(told)
        except OSError as cause:
            raise ArchiveError(told, archive="ztf", endpoint=url, hint=f"see {url}") from cause
    except ArchiveError as error:
        attempt = lost(Attempt("ztf", "DR1", "g", "failed", datetime.now(UTC), endpoint=url), error)
        shown = [str(error), repr(error), str(vars(error)), str(pickle.loads(pickle.dumps(error)))]
    again = Attempt.from_dict(json.loads(json.dumps(attempt.as_dict())))
    assert again == attempt
    shown += [
        repr(attempt),
        json.dumps(attempt.as_dict()),
        str(ConfigurationError("no", hint=url)),
        GranuleRejected(url).reason,
        repr(Settings.model_construct(endpoints={"ztf": url})),
    ]
    assert "Traceback" in (attempt.error or "")
    assert "example.org" in (attempt.endpoint or "")
    for text in shown:
        assert "XYZZY" not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORAGE_OPTIONS", f'["{PW}"]'),
        ("STORAGE_OPTIONS", f'"{PW}"'),
        ("STORAGE_OPTIONS", f"{{'secret': '{PW}"),
        ("ENDPOINTS", f'["http://u:{PW}@h"]'),
        ("ENDPOINTS__ZTF", f"http://u:a{PW}/#@h/x"),
        ("ENDPOINTS", f'{{"ztf": ["{PW}"]}}'),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"LIGHTLAKE_{name}", value)
    with pytest.raises(ConfigurationError, match=f"LIGHTLAKE_{name}") as error:
        load_settings()
    assert PW not in "".join(traceback.format_exception(error.value))


def test_settings_do_not_show_theirs() -> None:
    options = {"key": "a", "secret": PW, "client_kwargs": {"aws_session_token": PW}}
    shown = repr(load_settings(storage_options=options, catalog=f"postgres:password={PW}", url="/data/lake"))
    assert PW not in shown
    assert "/data/lake" in shown


def test_lines_of_a_traceback_stay() -> None:
    assert safe_text(f"a\n  http://u:{PW}@h\x1b[2J\n") == "a\n  http://***@h\\x1b[2J\n"
