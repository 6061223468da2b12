"""How long `import fanin` takes, against `import torch` and `import keras`, in fresh processes.

pip wrote the bytecode of the peers when it installed them. fanin may run from its sources, so its own is written first.

`python -m benchmarks.imports` prints the table.
"""

from __future__ import annotations

from compileall import compile_dir
from importlib.util import find_spec

from benchmarks.cases import Target
from benchmarks.compare import Contest
from benchmarks.figures import Found
from benchmarks.rounds import Peer

CONTEST = Contest(
    "import, in a fresh process",
    "benchmarks.importing",
    (Peer("fanin"), Peer("torch"), Peer("keras", ("keras",), {"KERAS_BACKEND": "torch"})),
    (Target(1.25, "torch", ("torch",)),),
)


def main(rounds: int = 7) -> Found:
    """Measure all peers and print the table."""
    spec = find_spec("fanin")
    for path in spec.submodule_search_locations or () if spec is not None else ():
        compile_dir(path, quiet=1)
    return CONTEST.measure(rounds)


if __name__ == "__main__":
    main()
