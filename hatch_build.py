"""Put the pages of docs/ into the wheel, where `lightlake help` finds them; an editable installation reads docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Pages(BuildHookInterface):
    """Add each page of docs/ to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files, which are where the package `deployments.documentation` looks for them."""
        if version == "editable":
            return
        docs = Path(self.root, "docs")
        build_data["force_include"] |= {
            str(page): f"deployments/documentation/pages/{page.relative_to(docs).as_posix()}"
            for page in sorted(docs.rglob("*.md"))
        }
