"""The picture of the README: what some arguments of Dense do.

`python -m examples.picture` writes it to docs/images/arguments.svg, as lines only, without images inside.
"""

from __future__ import annotations

from pathlib import Path

import constraints
import numpy as np
import penalties
import torch
import wgan
from drawing import BLUE, DIVERGING, ORANGE
from matplotlib.colors import to_hex

FILE = Path(__file__).resolve().parent.parent / "docs" / "images" / "arguments.svg"
SIDE, GAP, TOP = 178, 22, 46  # a panel is square
LEVELS, LIMIT = 6, 0.6
STYLE = (
    "text{font:600 15px system-ui,-apple-system,'Segoe UI',sans-serif;text-anchor:middle;fill:#1d2126}"
    ".a{font-size:13px;font-weight:400;fill:#626a73}path{fill:none}.f{stroke:#dfe3e8}"
    "@media(prefers-color-scheme:dark){text{fill:#e4e7eb}.a{fill:#9aa3ad}.f{stroke:#3a414a}}"
)


def cells(kernel: np.ndarray) -> str:
    """The 16 longest units of a kernel (64, U), each as 8 x 8 cells; one path for each shade."""
    order = np.argsort(-np.linalg.norm(kernel, axis=0))[:16]
    shades = np.clip(np.rint(kernel / LIMIT * LEVELS), -LEVELS, LEVELS).astype(int)
    paths: dict[int, list[str]] = {}
    for place, unit in enumerate(order):
        top, left = place // 4 * 9, place % 4 * 9
        for row in range(8):
            paths.setdefault(0, []).append(f"M{left} {top + row}h8")
            for column in range(8):
                shade = shades[row * 8 + column, unit]
                if shade:
                    paths.setdefault(shade, []).append(f"M{left + column} {top + row}h1")
    drawn = [
        f'<path stroke="{to_hex(DIVERGING((shade / LEVELS + 1) / 2))}" d="{"".join(paths[shade])}"/>'
        for shade in sorted(paths, key=abs)
    ]
    return f'<g transform="scale({SIDE / 35:.4f})translate(0 .5)" stroke-width="1.03">{"".join(drawn)}</g>'


def dots(points: torch.Tensor, colour: str) -> str:
    """Points within ±1.35, as one path of round dots."""
    places = (points / 2.7 + 0.5) * SIDE
    steps = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places.tolist() if 2 < x < SIDE - 2 and 2 < y < SIDE - 2)
    return f'<path stroke="{colour}" stroke-width="3.4" stroke-linecap="round" d="{steps}"/>'


def draw(panels: dict[tuple[str, str], str], alt: str) -> str:
    """Panels side by side, each below its two lines of title."""
    width = len(panels) * (SIDE + GAP) - GAP + 4
    parts = [
        f'<g transform="translate({2 + number * (SIDE + GAP)} {TOP})"><text class="a" x="{SIDE / 2:g}" y="-28">{above}'
        f'</text><text x="{SIDE / 2:g}" y="-9">{below}</text>{inside}</g>'
        for number, ((above, below), inside) in enumerate(panels.items())
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + SIDE + 2}" width="{width}" role="img">'
        f"<title>{alt}</title><style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    """Train, draw, write."""
    torch.set_num_threads(1)
    found = wgan.train()
    frame = f'<path class="f" d="M0 0h{SIDE}v{SIDE}h-{SIDE}z"/>'
    key = "".join(
        f'<text class="a" x="{SIDE / 2 + 4}" y="{SIDE / 2 + y + 4}" style="text-anchor:start">{name}</text>'
        f'<path stroke="{colour}" stroke-width="7" stroke-linecap="round" d="M{SIDE / 2 - 6} {SIDE / 2 + y}h0"/>'
        for name, colour, y in (("real", BLUE, -9), ("made", ORANGE, 10))
    )
    panels = {
        ("Dense(32)", "as it is"): cells(penalties.train({}, epochs=40).kernel),
        ("kernel_regularizer=", "L1(0.002)"): cells(penalties.train(penalties.PENALTIES["L1"], epochs=40).kernel),
        ("kernel_constraint=", "NonNeg()"): cells(constraints.train(constraints.NonNeg(), epochs=30)[1]),
        ("W-GAN, weights", "clipped to ±0.1"): (
            frame + dots(wgan.real_points(350), BLUE) + dots(found.points[:350], ORANGE) + key
        ),
    }
    alt = (
        "Weights of a layer that learned handwritten digits: dense, sparse with L1, without negative ones with NonNeg; "
    )
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(draw(panels, alt + "and a W-GAN's points on eight spots"), encoding="utf-8")
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
