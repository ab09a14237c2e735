"""Settings come from LIGHTLAKE_* variables, and a wrong one is named."""

import pytest

from lake.errors import ConfigurationError
from lake.settings import Settings, load_settings, settings


def test_defaults_stand_alone():
    assert load_settings().url == "lightlake"
    assert load_settings().catalog is None


def test_variables_and_overrides(monkeypatch):
    monkeypatch.setenv("LIGHTLAKE_URL", "/data/lake")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ICECUBE", "http://127.0.0.1:9")
    assert load_settings().url == "/data/lake"
    assert load_settings().endpoints == {"icecube": "http://127.0.0.1:9"}
    assert load_settings(url="/other", workers=None).url == "/other"


def test_they_are_read_once(monkeypatch):
    first = settings()
    monkeypatch.setenv("LIGHTLAKE_URL", "/data/lake")
    assert settings() is first


@pytest.mark.parametrize(
    ("name", "value"), [("WORKERS", "0"), ("RUNNER", "slurm"), ("TIMEOUT_S", "soon"), ("DUCKDB_THREADS", "-1")]
)
def test_a_wrong_value_is_one_line_that_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"LIGHTLAKE_{name}", value)
    with pytest.raises(ConfigurationError, match=f"LIGHTLAKE_{name}='{value}' is not valid") as error:
        load_settings()
    assert "\n" not in str(error.value)


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())


def test_what_is_not_json_is_one_line_without_its_value(monkeypatch):
    monkeypatch.setenv("LIGHTLAKE_STORAGE_OPTIONS", '{"secret": "xyz')
    with pytest.raises(ConfigurationError, match="LIGHTLAKE_STORAGE_OPTIONS is not valid JSON: ") as error:
        load_settings()
    assert "\n" not in str(error.value)
    assert "xyz" not in str(error.value)
