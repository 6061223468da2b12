"""The estimators of `fanin.sklearn` on the tables that come with scikit-learn, beside scikit-learn's own.

Every estimator has its defaults and sees the same folds: 5, drawn twice. scikit-learn's networks and linear models get
standardized columns, which fanin's estimators make themselves. `python -m benchmarks.tables` prints the table; with a
peer's name it prints that peer's scores and seconds as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import warnings
from typing import Any

from benchmarks.rounds import Peer

PEERS = [Peer(name, ("sklearn",)) for name in ("fanin", "network", "linear", "boosting")]
CLASSES = ("iris", "wine", "breast_cancer", "digits")
NUMBERS = ("diabetes", "linnerud")


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


def main() -> None:
    """Measure all peers, each in a process of its own, and print the table."""
    found = {}
    for peer in PEERS:
        command = [peer.python(), "-m", "benchmarks.tables", peer.name]
        done = subprocess.run(command, env={**os.environ, **peer.environment}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{peer.name} failed:\n{done.stderr}")
        found[peer.name] = json.loads(done.stdout.splitlines()[-1])
    print(f"\naccuracy ({', '.join(CLASSES)}) and R2 ({', '.join(NUMBERS)}): mean and standard deviation of 10 folds;")
    print("seconds: the median of a fit; fanin - best: fold by fold, against the peer with the best mean")
    print(f"{'':14}" + "".join(f"{name:>24}" for name in found) + f"{'fanin - best':>20}")
    for table in (*CLASSES, *NUMBERS):
        line = f"{table:14}"
        for peer in found:
            score, seconds = found[peer][table]
            spread = statistics.stdev(score)
            line += f"{statistics.mean(score):10.3f} ({spread:.3f}){statistics.median(seconds):5.2f} s"
        best = max((name for name in found if name != "fanin"), key=lambda name: statistics.mean(found[name][table][0]))
        gaps = [own - other for own, other in zip(found["fanin"][table][0], found[best][table][0], strict=True)]
        print(f"{line}{statistics.mean(gaps):+10.3f} ({statistics.stdev(gaps):.3f})")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        warnings.simplefilter("ignore")  # scikit-learn's networks stop before they have converged, by default
        print(json.dumps(scores(sys.argv[1])))
    else:
        main()
