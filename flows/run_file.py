"""Read a file that describes a run, in our keys or those of the Fornax collector's scale-up helper; and write one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flows.forms import RunOptions, sample_list
from flows.run_names import archives_of, own_parameters
from flows.run_steps import IN_LAKE
from lake.errors import ConfigurationError
from lake.names import unknown
from lake.output import whole_file
from tasks.options import FormField
from tasks.samples.collect import translated

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

# Radius within which the collector joins targets, arcsec.
CONSOLIDATED_ARCSEC = 18.0

# Keys of the helper that say the same as one of ours.
_SAME = {"get_samples": "samples"}

# Keys of the helper that mean nothing here, and why.
_MEANINGLESS = {
    "build": "a run gets samples, then light curves",
    "use_yaml": "give the file by its name",
    "yaml_filename": "give the file by its name",
    "sample_filename": "targets are a table of the lake",
    "parquet_dataset_name": "light curves are a table of the lake",
    "nworkers": "LIGHTLAKE_WORKERS says how many tasks run at the same time",
}

# Keys whose entries are joined, by name, with those of the layer before; the others are replaced.
_JOINED = ("samples", "archives", "parameters", "release")


@dataclass
class _Layer:
    """What a file, a JSON text or an option says, in our words."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_run(
    file: Path | None = None,
    text: str | None = None,
    settings: Sequence[str] = (),
    archives: Sequence[str] | None = None,
) -> tuple[RunOptions, list[str]]:
    """Read what a run is to do, and what of it has no meaning here, a line each.

    Parameters
    ----------
    file
        YAML or JSON.
    text
        JSON, whose keys go before those of the file.
    settings
        KEY=VALUE, which go before both: a key inside others has dots, a value is YAML.
    archives
        Which archives are asked, whatever the rest says.

    Raises
    ------
    ConfigurationError
        If something cannot be read, or is unknown; the message names what is nearest.
    """
    layers = []
    if file is not None:
        layers.append(_layer(_load(file), str(file), file.parent))
    if text is not None:
        layers.append(_layer(_json(text), "--json"))
    merged = _Layer()
    for layer in layers:
        _join(merged, layer)
    for one in settings:
        _set(merged, one)
    values = merged.values
    named = values.pop("archives", None)
    if archives:
        values["asked"] = list(archives)
    asked = values.pop("asked", None) or named or None
    notes = merged.notes
    parameters = dict[str, dict[str, Any]]()
    for name, given in values.pop("parameters", {}).items():
        for archive, own in own_parameters(name, given or {}, notes).items():
            parameters[archive] = {**parameters.get(archive, {}), **own}
    names = None
    if asked is not None:
        names = list(dict.fromkeys(archive for name in asked for archive in archives_of(name, parameters)))
    if names is not None and (idle := sorted(set(parameters) - set(names))):
        notes.append(f"parameters of {', '.join(idle)}: not asked in this run")
        parameters = {name: given for name, given in parameters.items() if name in names}
    values["samples"] = _samples(values.get("samples"), notes)
    run = RunOptions.of(**values, archives=names, parameters={k: v for k, v in parameters.items() if v} or None)
    return run, notes


def _load(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"cannot read {file}: {reason}", hint="give a file of YAML or JSON") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"{file} is neither YAML nor JSON: {' '.join(str(error).split())}", hint="mend the line that is named"
        ) from error
    return _mapping(found or {}, str(file))


def _json(text: str) -> dict[str, Any]:
    try:
        return _mapping(json.loads(text), "--json")
    except ValueError as error:
        raise ConfigurationError(f"--json is not JSON: {error}", hint='such as {"run_id": "my-run"}') from error


def _mapping(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise ConfigurationError(f"{where} has no keys", hint="the first line may be: run_id: my-run")
    return dict(found)


def _layer(found: Mapping[str, Any], where: str, folder: Path | None = None) -> _Layer:
    """Read the keys of a file or a text."""
    layer = _Layer()
    for name, value in found.items():
        _take(layer, str(name), value, where)
    if folder is not None and "samples" in layer.values:  # a path in a file is seen from there
        for entry in layer.values["samples"]:
            for parameters in entry.values():
                if isinstance(parameters, dict) and isinstance(path := parameters.get("path"), str):
                    parameters["path"] = str(folder.absolute() / Path(path).expanduser())
    return layer


def _take(layer: _Layer, name: str, value: Any, where: str) -> None:
    """Take one key, in either's words."""
    key = name.lower()
    key = _SAME.get(key, key)
    if key in _MEANINGLESS:
        layer.notes.append(f"{name}: no meaning here; {_MEANINGLESS[key]}")
    elif key == "consolidate_nearby_objects":
        layer.values["match_radius_arcsec"] = CONSOLIDATED_ARCSEC if _switch(name, value) else 0.0
    elif key == "overwrite_existing_sample":
        layer.values["keep_samples"] = not _switch(name, value)
    elif key == "overwrite_existing_lightcurves":
        layer.values["again"] = _switch(name, value)
    elif key == "archive":
        layer.values["asked"] = [str(value)]
    elif key in _JOINED and value is None:
        pass  # as if it were left out
    elif key == "samples":
        layer.values["samples"] = _listed(name, sample_list(value), where)
    elif key == "archives":
        _take_archives(layer, name, value, where)
    elif key in ("parameters", "release"):
        layer.values[key] = _mapping(value, f"{where}: {name}")
    elif key in RunOptions.model_fields:
        layer.values[key] = value
    else:
        helper = ("consolidate_nearby_objects", "overwrite_existing_sample", "overwrite_existing_lightcurves")
        raise unknown("key", name, {*RunOptions.model_fields, *_SAME, *_MEANINGLESS, *helper}, f"in {where}")


def _take_archives(layer: _Layer, name: str, value: Any, where: str) -> None:
    """Take the names of archives, and the parameters of those that have some."""
    entries = _listed(name, sample_list(value), where)
    layer.values["archives"] = [one for entry in entries for one in entry]
    given = {one: parameters for entry in entries for one, parameters in entry.items() if parameters}
    if given:
        layer.values["parameters"] = {**layer.values.get("parameters", {}), **given}


def _listed(name: str, value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ConfigurationError(f"{where}: {name} is no list of names", hint="give names, or names with parameters")
    return [dict(one) for one in value]


def _switch(name: str, value: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} cannot be {value!r}", hint="it is true or false")
    return value


def _join(merged: _Layer, layer: _Layer) -> None:
    """Join a layer: samples and archives entry by entry, everything else as a whole."""
    merged.notes += layer.notes
    for key, value in layer.values.items():
        before = merged.values.get(key)
        if before is None or key not in _JOINED:
            merged.values[key] = value
        elif key == "samples":
            names = {name.lower() for entry in value for name in entry}
            kept = [entry for entry in before if not names & {name.lower() for name in entry}]
            merged.values[key] = kept + value
        elif key == "archives":
            merged.values[key] = list(dict.fromkeys([*before, *value]))
        else:
            names = {name.lower() for name in value}
            merged.values[key] = {**{one: own for one, own in before.items() if one.lower() not in names}, **value}


def _set(merged: _Layer, setting: str) -> None:
    """Set one key, which may be inside others."""
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise ConfigurationError(f"--set {setting} is not KEY=VALUE", hint="such as --set samples.sdss.num=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {setting}: the value is not YAML", hint="quote it") from error
    first, *inside = name.strip().split(".")
    key = _SAME.get(first.lower(), first.lower())
    if not inside:
        layer = _Layer()
        _take(layer, first, value, "--set")
        merged.notes += layer.notes
        if key == "archives":  # all of them are said
            merged.values.pop("asked", None)
        merged.values.update(layer.values if key != "archives" else _with_parameters(merged, layer))
        return
    if key == "samples":
        entries = merged.values.setdefault("samples", [])
        entry = next((one for one in entries if inside[0].lower() in map(str.lower, one)), None)
        if entry is None:
            entries.append(entry := {inside[0]: {}})
        _put(entry, inside, value)
    elif key in ("archives", "parameters", "release"):
        into = "parameters" if key == "archives" else key
        _put(merged.values.setdefault(into, {}), inside, value)
    else:
        raise unknown("key", name, {*_JOINED, "get_samples"}, "with keys inside")


def _with_parameters(merged: _Layer, layer: _Layer) -> dict[str, Any]:
    given = {**merged.values.get("parameters", {}), **layer.values.get("parameters", {})}
    return {**layer.values, **({"parameters": given} if given else {})}


def _put(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Put a value where a path of names leads, whose first names may be written in any case."""
    for place, name in enumerate(path):
        name = next((one for one in into if str(one).lower() == name.lower()), name)
        if place == len(path) - 1:
            into[name] = value
        else:
            if not isinstance(into.get(name), dict):
                into[name] = {}
            into = into[name]


def _samples(entries: Iterable[Mapping[str, Any]] | None, notes: list[str]) -> list[dict[str, dict[str, Any]]] | None:
    """Return samples in our words, and checked."""
    if entries is None:
        return None
    made = []
    for entry in entries:
        for name, parameters in entry.items():
            if name.lower() == IN_LAKE:
                made.append({IN_LAKE: _in_lake(parameters)})
                continue
            made += [{one: dict(own)} for one, own in translated(name, dict(parameters or {}))]
    return made


def _in_lake(parameters: Any) -> dict[str, Any]:
    """Return the parameters of a sample that the lake has already."""
    if isinstance(parameters, Mapping) and set(parameters) == {"sample"} and isinstance(parameters["sample"], str):
        return dict(parameters)
    raise ConfigurationError(
        f"a sample of the lake cannot be {parameters!r}", hint="such as: - lake: {sample: quasars}"
    )


def run_text(run: RunOptions) -> str:
    """Return a run as commented YAML, which reads back as the same run."""
    lines = ["# A run of Lightlake: lightlake run FILE. What is left out has the value that is written here.", ""]
    for name, info in RunOptions.model_fields.items():
        shown = next((one for one in info.metadata if isinstance(one, FormField)), None)
        if shown is not None and shown.description:
            meaning = f"; null: {shown.empty}" if shown.empty else ""
            lines += _wrapped(f"{shown.description}{meaning}.")
        value = getattr(run, name)
        text = yaml.safe_dump({name: value}, sort_keys=False, width=110, allow_unicode=True).rstrip("\n")
        lines += [text, ""]
    return "\n".join(lines)


def write_run(run: RunOptions, file: Path) -> None:
    """Write a run as commented YAML."""
    with whole_file(file) as opened:
        opened.write(run_text(run).encode())


def _wrapped(text: str) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text, 100)]
