"""Runs every Python example of the documentation, and follows its links to files.

The ```python blocks of one file run in order and share their names. A block that can't run here is marked with a
reason, ```python no-run: needs a GPU, and appears among the skipped tests.
"""

from __future__ import annotations

import re
import sys
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md"]

BLOCK = re.compile(
    r"^(?P<indent>[ ]*)```(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(
    r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s+(\S+)", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """One ```python block: where it opens, what follows "python" on that line, and its code."""

    page: Path
    line: int
    mark: str
    code: str

    @property
    def runs(self) -> bool:
        return not self.mark.startswith("no-run")

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        language, _, mark = match["info"].strip().partition(" ")
        if language == "python":
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, mark.strip(), textwrap.dedent(match["body"])))
    opened = len(re.findall(r"^\s*```+[ \t]*python\b", text, re.MULTILINE | re.IGNORECASE))
    assert opened == len(found), f"{name(page)}: a ```python block is not closed, or written in another way"
    return found


def run(page: Path) -> None:
    """Run the blocks of a page; what goes wrong is told with the page and its line."""
    module = ModuleType("example")
    sys.modules["example"] = module  # for dataclasses, pickle and others that look a module up
    try:
        for block in blocks(page):
            if block.runs:
                # as many empty lines before the code as the page has: line numbers are then the page's
                code = "\n" * block.line + block.code
                exec(compile(code, str(page), "exec"), module.__dict__)
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(page)]
        if isinstance(error, SyntaxError) and error.filename == str(page):
            lines = [error.lineno]
        line = [*lines, block.line][0]
        raise AssertionError(f"{name(page)}:{line}: {type(error).__name__}: {error}") from error
    finally:
        del sys.modules["example"]


def broken_links(page: Path) -> list[str]:
    """The links of a page to files that do not exist."""
    text = page.read_text()
    for pattern in (BLOCK, CODE):  # links in code are no links; the lines stay where they are
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    found = []
    for match in LINK.finditer(text):
        target = next(group for group in match.groups() if group)
        file = target.partition("#")[0]
        if file and not re.match(r"[a-z][a-z0-9+.-]*:", file) and not (page.parent / file).exists():
            found.append(f"{name(page)}:{text.count(chr(10), 0, match.start()) + 1}: no file {target}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run(page)


UNRUN = [block for page in PAGES for block in blocks(page) if not block.runs]
if UNRUN:

    @pytest.mark.parametrize("block", UNRUN, ids=str)
    def test_example_not_run(block: Block) -> None:
        reason = block.mark.removeprefix("no-run").removeprefix(":").strip()
        assert reason, f"{block}: say why it does not run, as in ```python no-run: needs a GPU"
        pytest.skip(f"{block}: {reason}")


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    assert not broken_links(page), "\n".join(broken_links(page))


def test_a_failure_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 1\nassert x == 2, 'two'\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:11: AssertionError: two"):
        run(page)
    page.write_text("```python\nx = 1\nx = = 1\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:3: SyntaxError"):
        run(page)


def test_a_marked_block_does_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python no-run: needs a GPU\n1 / 0\n```\n\n- item\n\n  ```python\n  x = 1\n  ```\n")
    run(page)
    assert [(block.line, block.runs, block.code) for block in blocks(page)] == [
        (1, False, "1 / 0\n"),
        (7, True, "x = 1\n"),
    ]


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '[a](page.md#top) [b](https://x.org/y) [c](no.md)\n`[d](none.md)`\n<img src="no.png">\n[e]: gone.md\n'
    )
    assert broken_links(page) == ["page.md:1: no file no.md", "page.md:3: no file no.png", "page.md:4: no file gone.md"]


def test_an_open_block_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n")
    with pytest.raises(AssertionError, match=r"page.md: a ```python block is not closed"):
        blocks(page)
