"""A hook of mkdocs: pages that are made from the code, and the order of all pages as their indexes have it."""

from __future__ import annotations

import logging
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from deployments.documentation.generated import PAGES
from deployments.documentation.pages import PARTS, Documentation, without_comments

# Of mkdocs, which counts its warnings: a strict build fails with one.
_log = logging.getLogger("mkdocs.hooks.lightlake")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages, and order all: the four parts, each as its index links its pages.

    A page that its index does not link is not in the navigation, of which mkdocs warns.
    """
    pages = Documentation(Path(config.docs_dir), PAGES)
    for path in PAGES:
        files.append(File.generated(config, path, content=pages.text(path)))
    config.nav = [{"Home": "index.md"}] if "index.md" in pages.paths else []
    for part, title in PARTS.items():
        index = f"{part}/index.md"
        if index in pages.paths:
            config.nav.append({title: [index, *pages.links(part)]})
        elif any(path.startswith(f"{part}/") for path in pages.paths):
            _log.warning("there is no %s, which would have the order of its pages", index)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give the first page the whole width, and leave out comments, which are for the tests."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation", "toc"]
    return without_comments(markdown)
