"""scikit-learn's MLPClassifier: `partial_fit`, which is one epoch. It draws its own first weights, by Glorot too."""

from __future__ import annotations

from sklearn.neural_network import MLPClassifier

from benchmarks.cases import EPSILON, RATE, Case, data
from benchmarks.clock import Record, per_step


def train(case: Case) -> Record:
    """Epochs in float32, without its usual penalty on the weights."""
    x, y = data(case)
    network = MLPClassifier(
        case.widths[1:-1], batch_size=case.batch, learning_rate_init=RATE, epsilon=EPSILON, alpha=0.0, random_state=0
    )

    def epoch() -> float:
        network.partial_fit(x, y, classes=range(case.widths[-1]))
        return float(network.loss_)

    return per_step(epoch, case)
