"""Read docstrings in numpydoc's form, and write them as Markdown."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from deployments.documentation.markdown import fenced, page, prose

_SECTION = re.compile(r"^(Parameters|Returns|Yields|Raises|Examples|Notes)\n-{3,}\n", re.MULTILINE)
_WIDTH = 80


@dataclass(frozen=True)
class Docstring:
    """A docstring in parts.

    Parameters
    ----------
    text
        What stands before its sections.
    sections
        By their headings.
    """

    text: str
    sections: dict[str, str]

    @classmethod
    def of(cls, text: str | None) -> Docstring:
        """Read a docstring."""
        first, *rest = _SECTION.split(inspect.cleandoc(text or ""))
        return cls(first.strip(), {name: body.strip("\n") for name, body in zip(rest[::2], rest[1::2], strict=True)})

    def items(self, section: str) -> dict[str, str]:
        r"""Return the entries of a section: what each is called, and what is said of it.

        Examples
        --------
        >>> Docstring.of("Do.\n\nParameters\n----------\na, b\n    Two numbers.").items("Parameters")
        {'a, b': 'Two numbers.'}
        """
        found = dict[str, str]()
        for entry in re.split(r"\n(?=\S)", self.sections.get(section, "")):
            name, _, text = entry.partition("\n")
            if name:
                found[name] = " ".join(text.split())
        return found

    def of_parameters(self) -> dict[str, str]:
        """Return what is said of each parameter, where several share an entry, too."""
        entries = self.items("Parameters").items()
        return {name.strip(" *"): text for names, text in entries for name in names.split(",")}

    def markdown(self) -> str:
        """Return all of it as Markdown."""
        parts = [prose(self.text)]
        for heading in ("Parameters", "Returns", "Yields", "Raises"):
            if entries := self.items(heading):
                lines = [f"- `{name}`{f': {prose(text)}' if text else ''}" for name, text in entries.items()]
                parts += [f"**{heading}**", "\n".join(lines)]
        if notes := self.sections.get("Notes"):
            parts.append(prose(notes))
        if examples := self.sections.get("Examples"):
            parts += ["**Examples**", fenced(examples, "pycon")]
        return page(*parts)


class _Written(str):
    """An annotation as it is written: without the quotes that inspect gives a text."""

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, function: Any) -> str:
    """Return the signature of a function, in one line, or with a parameter a line if it is too long."""
    found = inspect.signature(function)
    parameters = [
        one.replace(annotation=_written(one.annotation)) for one in found.parameters.values() if one.name != "self"
    ]
    shape = found.replace(parameters=parameters, return_annotation=_written(found.return_annotation))
    line = f"{name}{shape}"
    if len(line) <= _WIDTH:
        return line
    lines, starred = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not starred and one is not parameters[0]:
            lines.append("    *,")
            starred = True
        starred |= one.kind in (one.VAR_POSITIONAL, one.KEYWORD_ONLY)
        lines.append(f"    {one},")
    end = line[line.rindex(")") :]
    return "\n".join([f"{name}(", *lines, end])


def _written(annotation: Any) -> Any:
    return _Written(annotation) if isinstance(annotation, str) else annotation
