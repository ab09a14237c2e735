"""Shells complete commands and options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.commands import commands, entries, whole_app
from helpers.processes import Run, run  # noqa: F401

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The scripts, of all commands that pyproject.toml plugs in."""
    folder = tmp_path_factory.mktemp("completion")
    made = {}
    for shell in SHELLS:
        made[shell] = folder / f"lightlake.{shell}"
        made[shell].write_text(whole_app().generate_completion(shell=shell))  # type: ignore[arg-type]
    return made


def completed(script: Path, *words: str) -> list[str]:
    """What bash makes of a line whose last word is begun."""
    line = " ".join(words)
    code = f"""
. {script}
complete -p lightlake | grep -q _lightlake || exit 3
COMP_WORDS=({line}{' ""' if words[-1] == "" else ""}) COMP_CWORD={len(words) - 1}
COMP_LINE='{line}' COMP_POINT={len(line)}
_lightlake
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.long
def test_bash_completes(scripts: dict[str, Path]) -> None:
    bash = scripts["bash"]
    assert completed(bash, "lightlake", "pu") == ["pull"]
    assert set(completed(bash, "lightlake", "")) >= {one.name for one in entries()["lightlake.commands"]} | {"sql"}
    assert completed(bash, "lightlake", "targets", "re") == ["remove", "rename"]
    assert completed(bash, "lightlake", "sql", "--ex") == ["--expand"]
    assert completed(bash, "lightlake", "sql", "--output", "pa") == ["parquet"]
    assert "--local" in completed(bash, "lightlake", "pull", "gaia", "--")
    assert completed(bash, "lightlake", "completion", "f") == ["fish"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_has_every_command_and_is_sound(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text()
    for path, _ in commands():
        assert path.rpartition(" ")[2] in text
    registered = {"bash": "complete -F _lightlake", "zsh": "#compdef lightlake", "fish": "complete -c lightlake"}
    assert registered[shell] in text
    if program := shutil.which(shell):
        subprocess.run([program, "-n", scripts[shell]], check=True)


def test_it_is_printed_and_installed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path))
    printed = run("completion", "bash")
    assert printed.code == 0
    assert run("completion", "csh").code == 2
    assert run("--install-completion", "--shell", "bash").code == 0
    script = tmp_path / ".local" / "share" / "bash-completion" / "completions" / "lightlake"
    assert script.read_text() == printed.out
    assert str(script) in (tmp_path / ".bashrc").read_text()
    assert completed(script, "lightlake", "pu") == ["pull"]
