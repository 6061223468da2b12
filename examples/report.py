"""What a chapter hands back, how it is shown in the terminal, and the HTML page that is made of all chapters."""

from __future__ import annotations

import argparse
import html
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape


@dataclass(frozen=True)
class Claim:
    """A statement with its bound, what was measured, and whether that is within the bound."""

    text: str
    measured: str
    holds: bool

    def __str__(self) -> str:
        return f"{'pass' if self.holds else 'FAIL'}  {_plain(self.text)}: {_plain(self.measured)}"


@dataclass(frozen=True)
class Picture:
    """An SVG, what it shows, and a line below it."""

    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows below a head; the first column is text, the others are numbers."""

    head: list[str]
    rows: list[list[str]]
    caption: str = ""


@dataclass(frozen=True)
class Printed:
    """Text as a terminal shows it: code, or what it printed."""

    text: str


@dataclass
class Chapter:
    """One argument: a title, some paragraphs (`code` in backticks), what there is to see, and the claims."""

    title: str
    text: list[str]
    parts: list[Picture | Table | Printed] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


def code(*functions: Callable[..., Any]) -> Printed:
    """The source of functions, as it ran."""
    return Printed("\n\n".join(textwrap.dedent(inspect.getsource(function)).strip() for function in functions))


# --- in the terminal --------------------------------------------------------------------------------------------------


def heading(title: str) -> None:
    """A line across the terminal with the chapter's title."""
    console = Console(highlight=False)
    console.print()
    console.rule(f"[bold]{escape(title)}", align="left")


def show(chapter: Chapter) -> None:
    """Print a chapter's tables and claims."""
    console = Console(highlight=False)
    for part in chapter.parts:
        if isinstance(part, Table):
            console.print(_as_rich(part))
    print_claims(chapter.claims)


def print_claims(claims: Iterable[Claim]) -> None:
    """One line for each claim."""
    console = Console(highlight=False, soft_wrap=True)
    for claim in claims:
        style = "green" if claim.holds else "bold red"
        console.print(f"[{style}]{str(claim)[:4]}[/]{escape(str(claim)[4:])}")


def _as_rich(table: Table) -> Any:
    from rich.table import Table as RichTable

    shown = RichTable(box=None, pad_edge=False)
    for number, name in enumerate(table.head):
        shown.add_column(escape(name), justify="right" if number else "left", no_wrap=True)
    for row in table.rows:
        shown.add_row(*(escape(_plain(cell)) for cell in row))
    return shown


def alone(run: Callable[..., Chapter]) -> None:
    """Run one chapter as a program of its own. `--quick` trains less, `--html FILE` writes a page."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(run)))
    parser.add_argument("--quick", action="store_true", help="train less; the claims are then weaker ones")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the chapter as a page")
    options = parser.parse_args()
    torch.set_num_threads(1)  # networks this small gain nothing from more
    chapter = run(quick=options.quick)
    show(chapter)
    if options.html is not None:
        options.html.write_text(page([chapter], "fanin: one chapter of the demonstration"), encoding="utf-8")
    sys.exit(0 if all(claim.holds for claim in chapter.claims) else 1)


# --- as a page --------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1d2126; --muted: #626a73; --grid: #dfe3e8; --soft: #f4f6f8;
        --good: #1a7f4b; --bad: #c62f2f; --link: #2563b0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181c; --ink: #e4e7eb; --muted: #9aa3ad; --grid: #343a42; --soft: #1e2227;
          --good: #52c48a; --bad: #f07171; --link: #7db3f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 50rem; background: var(--page); color: var(--ink);
       font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 0 0 .6rem; }
section { margin-top: 3rem; padding-top: 1.6rem; border-top: 1px solid var(--grid); }
p { margin: .6rem 0; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: .84em; }
code { background: var(--soft); padding: .1em .3em; border-radius: 4px; }
pre { background: var(--soft); padding: .9rem 1rem; border-radius: 8px; overflow-x: auto; line-height: 1.35; }
figure { margin: 1.4rem 0; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
figcaption, .muted { color: var(--muted); font-size: .92rem; }
table { border-collapse: collapse; width: 100%; margin: 1.2rem 0 .4rem; font-size: .95rem; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--grid);
         font-variant-numeric: tabular-nums; }
th { color: var(--muted); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
ul.claims, ol.chapters { list-style: none; padding: 0; margin: 1rem 0; }
ul.claims li { padding-left: 4.2rem; text-indent: -4.2rem; margin: .35rem 0; }
.mark { display: inline-block; width: 3.4rem; margin-right: .8rem; text-indent: 0; text-align: center; font-size: .8rem;
        font-weight: 600; border: 1px solid; border-radius: 99px; line-height: 1.5; }
.good { color: var(--good); }
.bad { color: var(--bad); }
ol.chapters li { display: flex; justify-content: space-between; gap: 1rem; padding: .3rem 0;
                 border-bottom: 1px solid var(--grid); }
"""


def page(chapters: list[Chapter], title: str, lead: str = "") -> str:
    """One HTML file that needs nothing from outside: style and pictures are inside, there is no script."""
    claims = [claim for chapter in chapters for claim in chapter.claims]
    held = sum(claim.holds for claim in claims)
    parts = [f"<h1>{_text(title)}</h1>"]
    if lead:
        parts.append(f"<p>{_text(lead)}</p>")
    kind = "good" if held == len(claims) else "bad"
    parts.append(f'<p class="{kind}"><strong>{held} of {len(claims)} claims hold.</strong></p>')
    if len(chapters) > 1:
        rows = [
            f'<li><a href="#chapter-{n}">{_text(chapter.title)}</a>{_count(chapter)}</li>'
            for n, chapter in enumerate(chapters, 1)
        ]
        parts.append(f'<ol class="chapters">{"".join(rows)}</ol>')
    parts.extend(_section(chapter, number) for number, chapter in enumerate(chapters, 1))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _count(chapter: Chapter) -> str:
    held, total = sum(claim.holds for claim in chapter.claims), len(chapter.claims)
    return f'<span class="{"good" if held == total else "bad"}">{held} of {total}</span>'


def _section(chapter: Chapter, number: int) -> str:
    paragraphs = [f"<p>{_text(paragraph)}</p>" for paragraph in chapter.text]
    claims = [
        f'<li><span class="mark {"good" if claim.holds else "bad"}">{"pass" if claim.holds else "FAIL"}</span>'
        f"{_text(claim.text)}: <strong>{_text(claim.measured)}</strong></li>"
        for claim in chapter.claims
    ]
    return "\n".join(
        [f'<section id="chapter-{number}">', f"<h2>{_text(chapter.title)}</h2>", *paragraphs,
         *[_part(part, f"c{number}p{place}") for place, part in enumerate(chapter.parts)],
         f'<ul class="claims">{"".join(claims)}</ul>', "</section>"]
    )  # fmt: skip


def _part(part: Picture | Table | Printed, key: str) -> str:
    if isinstance(part, Printed):
        return f"<pre>{html.escape(part.text)}</pre>"
    if isinstance(part, Table):
        head = "".join(f"<th>{_text(name)}</th>" for name in part.head)
        rows = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in part.rows)
        note = f'<p class="muted">{_text(part.caption)}</p>' if part.caption else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}"
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{key}-", part.svg)  # ids must differ between the pictures of a page
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(part.alt)}" ', 1)
    return f"<figure>{svg}<figcaption>{_text(part.caption)}</figcaption></figure>"


def _plain(text: str) -> str:
    return text.replace("`", "")


def _text(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
