"""The estimators of `fanin.sklearn` on the tables that come with scikit-learn, beside scikit-learn's own.

Every estimator has its defaults and sees the same folds: 5, drawn twice. scikit-learn's networks and linear models get
standardized columns, which fanin's estimators make themselves. `python -m benchmarks.tables` prints the table; with a
peer's name it prints that peer's scores and seconds as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import warnings
from typing import Any

from benchmarks.compare import show_absent, take_turns
from benchmarks.figures import Found
from benchmarks.rounds import Peer

PEERS = [Peer(name, ("sklearn",)) for name in ("fanin", "network", "linear", "boosting")]
CLASSES = ("iris", "wine", "breast_cancer", "digits")
NUMBERS = ("diabetes", "linnerud")
TITLE = (
    f"accuracy ({', '.join(CLASSES)}) and R2 ({', '.join(NUMBERS)}): mean and standard deviation of 10 folds; seconds: "
    "the median of a fit; fanin - best: fold by fold, against the peer with the best mean"
)


def estimators(peer: str) -> tuple[Any, Any]:
    """The classifier and the regressor of a peer."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from fanin.sklearn import DenseClassifier, DenseRegressor

    found: dict[str, tuple[Any, Any]] = {
        "fanin": (DenseClassifier(random_state=0), DenseRegressor(random_state=0)),
        "network": (MLPClassifier(random_state=0), MLPRegressor(random_state=0)),
        "linear": (LogisticRegression(), Ridge()),
        "boosting": (
            HistGradientBoostingClassifier(random_state=0),
            MultiOutputRegressor(HistGradientBoostingRegressor(random_state=0)),
        ),
    }
    classifier, regressor = found[peer]
    if peer in ("network", "linear"):
        return make_pipeline(StandardScaler(), classifier), make_pipeline(StandardScaler(), regressor)
    return classifier, regressor


def scores(peer: str) -> dict[str, tuple[list[float], list[float]]]:
    """table -> the score of each fold (accuracy, or R2), and the seconds of each fit."""
    import sklearn.datasets
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, cross_validate

    found = {}
    for table in (*CLASSES, *NUMBERS):
        x, y = getattr(sklearn.datasets, f"load_{table}")(return_X_y=True)
        if table in NUMBERS:
            y = y.reshape(len(y), -1)
        kind = RepeatedStratifiedKFold if table in CLASSES else RepeatedKFold
        folds = kind(n_splits=5, n_repeats=2, random_state=0)
        done = cross_validate(estimators(peer)[table in NUMBERS], x, y, cv=folds)
        found[table] = done["test_score"].tolist(), done["fit_time"].tolist()
    return found


def table(found: Found) -> list[list[str]]:
    """Heads, and a row for each table: every peer's mean score, deviation and seconds; fanin less the best other."""
    peers = found["peers"]
    rows = [["", *peers, "fanin - best"]]
    for name in (*CLASSES, *NUMBERS):
        row = [name]
        for peer in peers:
            score, seconds = peers[peer][name]
            row.append(
                f"{statistics.mean(score):.3f} ({statistics.stdev(score):.3f}) {statistics.median(seconds):.2f} s"
            )
        best = _best(found, name)
        gaps = _gaps(found, name, best)
        rows.append([*row, f"{statistics.mean(gaps):+.3f} ({statistics.stdev(gaps):.3f}) {best}" if gaps else "-"])
    return rows


def rivals_ahead(found: Found) -> list[tuple[str, str, float]]:
    """(table, peer, by how much) where another's mean score is better."""
    ahead = []
    for name in (*CLASSES, *NUMBERS):
        best = _best(found, name)
        gap = statistics.mean(_gaps(found, name, best) or [0.0])
        if gap < 0:
            ahead.append((name, best, -gap))
    return ahead


def _best(found: Found, name: str) -> str:
    others = [peer for peer in found["peers"] if peer != "fanin"]
    return max(others, key=lambda peer: statistics.mean(found["peers"][peer][name][0]), default="")


def _gaps(found: Found, name: str, other: str) -> list[float]:
    if not {"fanin", other} <= set(found["peers"]):
        return []
    own, best = found["peers"]["fanin"][name][0], found["peers"][other][name][0]
    return [a - b for a, b in zip(own, best, strict=True)]


def main() -> Found:
    """Measure all peers, each in a process of its own, and print the table."""
    found = take_turns("benchmarks.tables", PEERS, 1)
    found["peers"] = {peer: records[0] for peer, records in found["peers"].items()}
    print(f"\n{TITLE}")
    for row in table(found):
        print(f"{row[0]:14}" + "".join(f"{cell:>26}" for cell in row[1:]))
    show_absent(found)
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        warnings.simplefilter("ignore")  # scikit-learn's networks stop before they have converged, by default
        print(json.dumps(scores(sys.argv[1])))
    else:
        main()
