"""The demonstration: every chapter in order, then `report.html` and one line for each claim.

python -m examples [--quick] [--html report.html]
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

START = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parent))

try:
    import activations
    import constraints
    import digits
    import formula
    import initializers
    import nodes
    import peers
    import penalties
    import saving
    import tasks
    import torch
    import wgan
    from report import Claim, heading, page, print_claims, show

    import fanin
except ModuleNotFoundError as error:
    sys.exit(f"The demonstration needs {error.name}: pip install 'fanin[demo]'")

CHAPTERS = {
    "Handwritten digits": digits,
    "Beside other libraries": peers,
    "Units, bias, and inputs of higher rank": formula,
    "Initializers": initializers,
    "Activations": activations,
    "Regularizers": penalties,
    "Constraints": constraints,
    "A W-GAN with clipped weights": wgan,
    "Node inspection": nodes,
    "Adapters: one network, several tasks": tasks,
    "Saving and opening": saving,
}


def main() -> int:
    """Run everything. The exit status is 0 if every claim holds."""
    parser = argparse.ArgumentParser(prog="python -m examples", description="The demonstration of fanin.")
    parser.add_argument("--quick", action="store_true", help="train less; the claims are then weaker ones")
    parser.add_argument("--html", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html")
    options = parser.parse_args()

    torch.set_num_threads(1)  # networks this small gain nothing from more
    chapters = []
    for title, module in CHAPTERS.items():
        heading(title)
        chapter = module.run(quick=options.quick)
        show(chapter)
        chapters.append(chapter)

    seconds = time.perf_counter() - START
    lead = (
        "Keras's Dense layer and its contract, native on PyTorch. Each chapter takes up an argument of the post "
        "“Understanding Keras - Dense Layers”, shows it, and measures it against a bound. "
        f"This run took {seconds:.0f} s, with fanin {fanin.__version__}, PyTorch {torch.__version__} and Python "
        f"{platform.python_version()} on a {platform.machine()} machine."
    )
    if options.quick:
        lead += " It was a quick run, with less training and weaker bounds."
    options.html.write_text(page(chapters, "fanin: the demonstration", lead), encoding="utf-8")

    claims: list[Claim] = [claim for chapter in chapters for claim in chapter.claims]
    heading("Claims")
    print_claims(claims)
    held = sum(claim.holds for claim in claims)
    print(f"make demo: {held} of {len(claims)} claims hold in {seconds:.0f} s; {options.html} written")
    return 0 if held == len(claims) else 1


if __name__ == "__main__":
    sys.exit(main())
