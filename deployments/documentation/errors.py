"""The page of errors: exit codes, kinds of errors, and every message of the code with what to do."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lake.errors import EXIT_CODES, LightlakeError

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("lake", "tasks", "flows", "deployments")
# Stands for what a message says of the case: a name, a number, a file.
COMPUTED = "…"
_SAID = "The message says it."
# Letters of a message's own; with fewer, it is all of the case.
_LEAST = 6

_HEAD = """# Error messages

A command that cannot do its work prints one line: what happened, in brackets what to do, and the page that helps. In
Python it is an exception with the same words; all are `lake.errors.LightlakeError`. `--debug` shows where it came from.

Search this page for the words of a message. `…` stands for what differs: a name, a number, a file.

"""

_REJECTED = """## Why data are rejected

An answer or a file that breaks a rule is *rejected*: nothing of it gets in, and its neighbours do. The table `ledger`
keeps the reason; `lightlake status` counts it. These are the reasons.

"""


@dataclass(frozen=True)
class Message:
    """A message of the code.

    Parameters
    ----------
    kind
        The class of the error.
    text
        What happened.
    hint
        What to do; empty if the message says no more than the advice of its kind.
    module
        Where it is made.
    topic
        The page that helps, if any.
    """

    kind: str
    text: str
    hint: str
    module: str
    topic: str | None


@cache
def _texts() -> dict[str, str]:
    """Return the text of each module of the project, by name."""
    files = sorted(file for package in _PACKAGES for file in (_ROOT / package).rglob("*.py"))
    named = {file.relative_to(_ROOT).with_suffix("").as_posix().replace("/", "."): file for file in files}
    return {name.removesuffix(".__init__"): file.read_text(encoding="utf-8") for name, file in named.items()}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_texts()[module])


@cache
def kinds() -> dict[str, type[LightlakeError]]:
    """Return all classes of errors by name, each after the one that it is a case of."""
    classes = [
        (module, name, {base.strip() for base in bases.split(",")})
        for module, text in _texts().items()
        for name, bases in re.findall(r"^class (\w+)\(([\w\s,]+)\):", text, re.MULTILINE)
    ]
    found: dict[str, type[LightlakeError]] = {LightlakeError.__name__: LightlakeError}
    before = 0
    while before < len(found):  # a class may come before its parent
        before = len(found)
        for module, name, bases in classes:
            if name not in found and bases & found.keys():
                found[name] = getattr(importlib.import_module(module), name)
    return found


def messages() -> list[Message]:
    """Return every message that the code words itself, without those that only pass on what a library says."""
    found: dict[Message, None] = {}
    made = re.compile(rf"\b({'|'.join(kinds())})\(")
    for module, text in _texts().items():
        if not made.search(text):
            continue
        known = _constants(_tree(module))
        for node in ast.walk(_tree(module)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds()):
                continue
            said = _words(node.args[0], known) if node.args else ""
            if len(re.findall(r"[^\W\d_]", said)) < _LEAST:
                continue
            given = {keyword.arg: _words(keyword.value, known) for keyword in node.keywords}
            hint = given.get("hint", "")
            if hint and not re.search(r"\w{2}", hint):
                hint = _SAID
            topic = given.get("topic") or kinds()[node.func.id].topic or _topic_of_module(module)
            found[Message(node.func.id, said, hint, module, topic)] = None
    return list(found)


def errors_page() -> str:
    """Return the page: exit codes, kinds of errors, and messages by the page that helps."""
    lines = [_HEAD, "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    lines += ["", "## Kinds of errors", "", "| error | what it means | what to do | page |", "|---|---|---|---|"]
    for name, kind in kinds().items():
        if kind is not LightlakeError:
            lines.append(f"| `{name}` | {_first_line(kind)} | {kind.advice} | {_link(kind.topic)} |")
    lines += ["", "## Messages", "", "Those of one part of Lightlake are together, with the page that helps.", ""]
    rejected, others = list[Message](), list[Message]()
    for message in messages():
        (rejected if message.kind == "GranuleRejected" else others).append(message)
    for topic in sorted({message.topic or "" for message in others}, key=lambda one: (not one, one)):
        title = f"{_title(topic)}" if topic else "Any command"
        lines += [f"### {title}", ""]
        if topic:
            lines += [f"See {_link(topic)}.", ""]
        lines += ["| message | what to do |", "|---|---|"]
        own = sorted((one for one in others if (one.topic or "") == topic), key=lambda one: one.text.lower())
        lines += [f"| {_cell(one.text)} | {_cell(one.hint) or kinds()[one.kind].advice} |" for one in own]
        lines.append("")
    lines += [_REJECTED, *(f"- {_cell(text)}" for text in sorted({one.text for one in rejected}, key=str.lower))]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that a module gives a name, or imports by one."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in _texts():
            own = _own_constants(_tree(node.module))
            found.update({one.asname or one.name: own[one.name] for one in node.names if one.name in own})
    return found | _own_constants(tree)


def _own_constants(tree: ast.Module) -> dict[str, str]:
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _topic_of_module(module: str) -> str | None:
    """Return what `lake.errors.topic_of` finds for an error that the module raises."""
    while module:
        if topic := re.search(r'^HELP_TOPIC = "(.*)"$', _texts().get(module, ""), re.MULTILINE):
            return topic[1] or None
        module = module.rpartition(".")[0]
    return None


def _words(node: ast.expr, known: dict[str, str]) -> str:
    """Return a text of the code, with a sign for what is computed."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_words(part, known) for part in parts)
        case ast.FormattedValue(value=value):
            return _words(value, known)
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _words(left, known) + _words(right, known)
        case ast.IfExp(body=body, orelse=orelse):
            either = [_words(one, known) for one in (body, orelse)]
            return (
                " / ".join(one for one in either if one) if all(re.search(r"\w", one) for one in either) else COMPUTED
            )
        case ast.Call(func=ast.Name(id="one_line" | "safe_line"), args=[inner, *_]):
            return _words(inner, known)
    return COMPUTED


def _first_line(kind: type[LightlakeError]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _link(topic: str | None) -> str:
    return f"[{topic}](../{topic}.md)" if topic else ""


def _title(topic: str) -> str:
    from deployments.documentation.pages import Documentation

    pages = Documentation(generated={})
    return pages.title(f"{topic}.md")


def _cell(text: str) -> str:
    """Escape what Markdown and its tables would read as signs; an underscore within a name is none."""
    return re.sub(r"([\\`*|]|(?<!\w)_)", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def undescribed(found: Iterable[type[LightlakeError]]) -> Iterator[str]:
    """Yield the kinds of errors that do not say what they mean, or what to do."""
    for kind in found:
        if not vars(kind).get("__doc__") or not vars(kind).get("advice"):
            yield kind.__name__
