"""Runs the checks behind `make test` and `make test-slow`, and closes with one line that says what came out.

Every check runs, also after one has failed, so that one run shows everything there is to repair.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PYTEST = ("pytest", "-n", "2", "-rs", "--doctest-modules", "src", "tests")

# name of the check -> the module to run, with its arguments
CHECKS: dict[str, dict[str, tuple[str, ...]]] = {
    "test": {
        "ruff": ("ruff", "check"),
        "ruff format": ("ruff", "format", "--check"),
        "mypy": ("mypy",),
        "pytest": (*PYTEST, "-m", "not slow"),
    },
    "test-slow": {"pytest": (*PYTEST, "-m", "slow")},
}


def run(command: tuple[str, ...]) -> bool:
    """Run a Python module from the root of the repository, its output shown as it comes. True if it succeeded."""
    print(f"--- {' '.join(command)}", flush=True)
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode == 0


def count(report: Path) -> tuple[int, int]:
    """How many tests passed and how many failed, from pytest's report in JUnit's XML form."""
    if not report.exists():
        return 0, 0
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    passed = failed = 0
    for suite in suites:
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed += bad
        passed += int(suite.get("tests", 0)) - int(suite.get("skipped", 0)) - bad
    return passed, failed


def spell(seconds: float) -> str:
    """A duration in words: "42 s", "4 min 10 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def main(target: str) -> int:
    """Run the checks of one make target. The exit status is 0 if all of them succeeded."""
    start = time.monotonic()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        for name, command in CHECKS[target].items():
            extra = (f"--junit-xml={report}",) if name == "pytest" else ()
            if not run(command + extra):
                wrong.append(name)
        passed, failed = count(report)
    took = spell(time.monotonic() - start)
    if wrong:
        tests = f" ({failed:,} failed, {passed:,} passed)" if "pytest" in wrong else ""
        print(f"make {target}: FAILED at {', '.join(wrong)}{tests} in {took}")
        return 1
    tests = f"{passed:,} test{'' if passed == 1 else 's'}"
    others = [name for name in CHECKS[target] if name in ("ruff", "mypy")]
    print(f"make {target}: passed: {', '.join([tests, *others])} in {took}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "test"))
