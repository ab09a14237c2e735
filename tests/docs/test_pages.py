"""Pages with commands or Python run as they stand, against simulated archives, and print what they say.

Tutorials, which take longest, are in a file of their own, for another process of the tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.page_needs import needs, provide
from helpers.pages import agrees, blocks, run_page, to_run

DOCS = Path(__file__).parents[2] / "docs"
PARTS = ("how-to", "explanation")
PAGES = [page for part in PARTS for page in sorted((DOCS / part).glob("*.md")) if to_run(page)]


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / "reader"
    environment = provide(page, folder / "work", request.getfixturevalue)
    assert run_page(page, folder, **environment)


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def test_shell_and_python_go_on_where_they_were(tmp_path: Path) -> None:
    text = """
```bash
export A=1
mkdir -p there && cd there
```

```bash
echo "$A $(basename $PWD)"
```

```text
1 there
```

```python
import os
x = os.environ["A"]
```

```python
x + "2"
print(os.path.basename(os.getcwd()))
```

```text
'12'
there
```

<!-- file: note.txt -->
```text
of the page
```

<!-- fails -->
```bash
cat note.txt; false
```

```text
of ... page
```

<!-- another terminal -->
```bash
echo begin; echo ready at 7; sleep 100
```

```text
begin
ready at ...
```
"""
    done = run_page(page_of(tmp_path, text), tmp_path / "reader")
    assert [block.language for block in done] == ["bash", "bash", "python", "python", "text", "bash", "bash"]


@pytest.mark.parametrize(
    "text",
    [
        "```bash\necho 1\n```\n\n```text\n2\n```\n",
        "```bash\nfalse\n```\n",
        "```python\n1 / 0\n```\n",
        "<!-- fails -->\n```bash\ntrue\n```\n",
        "```bash\nexit 0\n```\n",
        "<!-- another terminal -->\n```bash\necho no\n```\n\n```text\nready\n```\n",
    ],
)
def test_a_page_that_is_wrong_is_found(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="line"):
        run_page(page_of(tmp_path, text), tmp_path / "reader", timeout_s=20)


def test_what_is_not_run_is_left_out(tmp_path: Path) -> None:
    text = (
        "<!-- not run: needs a cluster -->\n```bash\nfalse\n```\n\n"
        "<!-- not compared -->\n```bash\necho 1\n```\n\n```text\n2\n```\n"
    )
    (done,) = run_page(page_of(tmp_path, text), tmp_path / "reader")
    assert done.code == "echo 1\n"


def test_output_goes_to_a_terminal_of_80_columns(tmp_path: Path) -> None:
    text = """
```python
import os, sys
sys.stdout.isatty(), os.get_terminal_size().columns
```

```text
(True, 80)
```
"""
    assert run_page(page_of(tmp_path, text), tmp_path / "reader")


def test_a_page_has_what_it_needs(tmp_path: Path) -> None:
    page = page_of(tmp_path, "# A title\n\n<!-- needs: postgres clone -->\n\n```bash\ntrue\n```\n")
    assert needs(page) == ["postgres", "clone"]
    work = tmp_path / "work"
    given = provide(page, work, {"postgres": "host=127.0.0.1 port=5 user=me dbname=mine"}.__getitem__)
    assert (given["PGHOST"], given["PGPORT"], given["PGUSER"], given["PGDATABASE"]) == ("127.0.0.1", "5", "me", "mine")
    assert Path(given["PYTHONPATH"], "lake", "cli.py").is_file()
    assert given["PYTHONPATH"] == str(work / "lightlake")


def test_a_need_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="needs oracle"):
        provide(page_of(tmp_path, "<!-- needs: oracle -->\n"), tmp_path, str)


def test_a_comment_is_of_the_block_after_it(tmp_path: Path) -> None:
    text = "<!-- needs: s3 -->\n\nText.\n\n<!-- fails -->\n```bash\nfalse\n```\n"
    assert [block.note for block in blocks(page_of(tmp_path, text))] == ["fails"]


def test_output_agrees() -> None:
    assert agrees("a  \nb 12 s\n", "a\nb ... s")
    assert not agrees("a\nb\nc\n", "a\nb\n")
    assert not agrees("a b", "a.b")
    assert agrees("a\nb\n", "a\n...\nb")
    assert agrees("a\nx\ny\nb\n", "a\n...\nb\n...")
    assert not agrees("a\nxb\n", "a\n...\nb")
