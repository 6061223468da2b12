"""The demonstration: each chapter runs alone, all of it runs as a program, and its page needs nothing from outside."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
HELPERS = {"__init__", "__main__", "report", "drawing", "picture"}
CHAPTERS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in HELPERS)
LAST_LINE = re.compile(r"make demo: (\d+) of (\d+) claims hold in \d+ s; (\S+) written")


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Python does for `python examples/digits.py`; the examples' modules are dropped again afterwards."""
    import torch

    monkeypatch.syspath_prepend(str(EXAMPLES))
    before, threads = set(sys.modules), torch.get_num_threads()
    with warnings.catch_warnings():
        yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).parent == EXAMPLES:
            del sys.modules[name]


class Outside(HTMLParser):
    """Collects what a page would load from elsewhere, and counts its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.pictures = 0
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "svg"
        if tag in {"script", "link", "iframe", "object", "embed"}:
            self.found.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src", "srcset", "xlink:href"}:
                if not (value or "").startswith(("#", "data:image/")):
                    self.found.append(f"{name}={value}")
                elif (value or "").startswith("#"):
                    self.targets.append((value or "")[1:])
            if name == "style" and re.search(r"url\((?!#)", value or ""):
                self.found.append(f"style={value}")


def check_page(text: str, pictures: int) -> None:
    page = Outside(text)
    assert page.found == []
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert page.pictures == pictures
    assert len(page.ids) == len(set(page.ids))
    assert set(page.targets) <= set(page.ids)


# The longer ones run in `test_the_demonstration_in_short`, and alone in the longer campaign.
LONG = {"activations", "constraints", "peers", "penalties", "saving", "tasks", "wgan"}


@pytest.mark.parametrize("name", sorted(LONG))
def test_a_long_chapter_is_a_program_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import report

    started: list[str] = []
    monkeypatch.setattr(report, "alone", lambda run: started.append(run.__name__))
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert started == ["run"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in CHAPTERS]
)
def test_a_chapter_runs_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", "--html", str(page)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert ended.value.code == 0, shown
    assert shown.count("pass  ") >= 1
    assert "FAIL" not in shown
    text = page.read_text(encoding="utf-8")
    check_page(text, text.count("<figure>"))
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize(
    "command", [[str(EXAMPLES / "formula.py")], ["-m", "examples.formula"]], ids=["file", "module"]
)
def test_a_chapter_is_a_program(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pass  ") == 2


def run_demo(folder: Path, *options: str) -> str:
    """Run the whole demonstration, and check its last lines and its page."""
    page = folder / "report.html"
    command = [sys.executable, "-m", "examples", *options, "--html", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    lines = done.stdout.strip().splitlines()
    last = LAST_LINE.fullmatch(lines[-1])
    assert last is not None, lines[-1]
    assert last[1] == last[2]
    total = int(last[2])
    assert total >= 25
    assert all(line.startswith("pass  ") for line in lines[-1 - total : -1])
    text = page.read_text(encoding="utf-8")
    check_page(text, 11)
    assert text.count('<span class="mark good">pass</span>') == total
    assert len(re.findall(r"<section ", text)) == len(CHAPTERS)
    return text


def test_the_demonstration_in_short(tmp_path: Path) -> None:
    run_demo(tmp_path, "--quick")


@pytest.mark.slow
def test_the_demonstration(tmp_path: Path) -> None:
    text = run_demo(tmp_path)
    accuracy = re.search(r"held-out digits is at least 0\.97: <strong>([\d.]+)", text)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.97


def test_a_claim_that_fails_is_shown_and_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import report

    chapter = report.Chapter("Title", ["A `word` & more."], [], [report.Claim("1 < `2`", "no", False)])
    monkeypatch.setattr(sys, "argv", ["chapter.py"])
    with pytest.raises(SystemExit) as ended:
        report.alone(lambda quick: chapter)
    assert ended.value.code == 1
    assert "FAIL  1 < 2: no" in capsys.readouterr().out
    text = report.page([chapter], "Page")
    assert "0 of 1 claims hold" in text
    assert "A <code>word</code> &amp; more." in text
    assert '<span class="mark bad">FAIL</span>1 &lt; <code>2</code>: <strong>no</strong>' in text


def test_ids_of_two_pictures_do_not_meet() -> None:
    import report

    svg = '<svg viewBox="0 0 1 1"><g id="a"/><use href="#a" style="fill:url(#a)"/></svg>'
    picture = report.Picture(svg, 'says "so"', "caption")
    check_page(
        report.page([report.Chapter("One", [], [picture, picture]), report.Chapter("Two", [], [picture])], "P"), 3
    )


def test_the_session_reports_a_wrong_answer() -> None:
    import nodes

    session = nodes.Session({"x": 2})
    session.ask("x + 1", 3)
    assert session.claim("right").holds
    session.ask("x + 1", 4)
    session.ask("x.nothing", ValueError)
    claim = session.claim("wrong")
    assert not claim.holds
    assert "x + 1 gave 3" in claim.measured
    assert "AttributeError" in claim.measured


def test_the_picture_of_the_readme_is_a_small_svg_without_images() -> None:
    file = ROOT / "docs" / "images" / "arguments.svg"
    assert file.stat().st_size < 60_000
    root = ElementTree.parse(file).getroot()
    assert root.tag.endswith("svg")
    assert not [element for element in root.iter() if element.tag.endswith(("image", "script"))]


def test_cells_of_the_picture_show_every_weight() -> None:
    import numpy as np
    import picture

    kernel = np.zeros((64, 16))
    kernel[0, 0], kernel[63, 0] = 1.0, -1.0
    drawn = picture.cells(kernel)
    assert drawn.count("h8") == 16 * 8
    assert "M0 0h1" in drawn
    assert "M7 7h1" in drawn
