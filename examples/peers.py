"""The same digits with other libraries: accuracy and time side by side."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from digits import EPOCHS, split
from drawing import BLUE, GREY, INK, MUTED, figure, svg
from matplotlib.ticker import MaxNLocator
from report import Chapter, Claim, Picture, Table, alone, code
from rich.progress import track
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from torch import nn

import fanin

SEEDS = (0, 1, 2)
BATCH = 32


@dataclass
class Result:
    """A library's held-out accuracy for each seed, and the seconds that training alone took."""

    name: str
    accuracies: list[float]
    seconds: list[float]

    @property
    def accuracy(self) -> float:
        """The median."""
        return statistics.median(self.accuracies)

    @property
    def spread(self) -> str:
        """From the lowest to the highest."""
        low, high = min(self.accuracies), max(self.accuracies)
        return f"{low:.4f} to {high:.4f}" if low < high else "the same"

    @property
    def best(self) -> float:
        """The shortest time: what the work takes when nothing else disturbs the machine."""
        return min(self.seconds)


# --- the same script for fanin and Keras ------------------------------------------------------------------------------


def build(keras: Any) -> Any:
    """The digits' network; `keras` is keras, or fanin."""
    model = keras.Sequential()
    model.add(keras.layers.Dense(256, activation="relu", input_shape=(64,)))
    model.add(keras.layers.Dense(128, activation="relu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return model


def measure(keras: Any, name: str, epochs: int) -> Result:
    """Train with each seed, and take the time of `fit`."""
    x_train, x_test, y_train, y_test = split()
    result = Result(name, [], [])
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        model = build(keras)
        start = time.perf_counter()
        model.fit(x_train, y_train, batch_size=BATCH, epochs=epochs, verbose=0)
        result.seconds.append(time.perf_counter() - start)
        answers = model.predict(x_test, verbose=0).argmax(axis=1)
        result.accuracies.append(float((answers == y_test).mean()))
    return result


def measure_keras(epochs: int) -> Result | None:
    """Keras on PyTorch, in a process of its own; None where it is not installed."""
    if importlib.util.find_spec("keras") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", __file__, "--keras", str(epochs)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Keras is installed, but its script failed:\n{done.stderr}")
    return Result("Keras, on PyTorch", **json.loads(done.stdout.splitlines()[-1]))


# --- plain PyTorch ----------------------------------------------------------------------------------------------------


def plain_network() -> nn.Sequential:
    """The same network, drawn as Dense draws it; softmax is part of the loss."""
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    for layer in network[::2]:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network


def plain_loop(network: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, shuffle: bool = True) -> None:
    """The same training, written out."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(epochs):
        order = torch.randperm(len(x)) if shuffle else torch.arange(len(x))
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            loss_of(network(x[rows]), y[rows]).backward()
            optimizer.step()


def measure_plain(epochs: int) -> Result:
    """Train with each seed, and take the time of the loop."""
    x_train, x_test, y_train, y_test = map(torch.from_numpy, split())
    result = Result("plain PyTorch loop", [], [])
    for seed in SEEDS:
        torch.manual_seed(seed)
        network = plain_network()
        start = time.perf_counter()
        plain_loop(network, x_train, y_train, epochs)
        result.seconds.append(time.perf_counter() - start)
        with torch.no_grad():
            result.accuracies.append((network(x_test).argmax(dim=1) == y_test).float().mean().item())
    return result


def distance_to_plain(epochs: int = 3) -> float:
    """The largest difference between the weights after `fit` and after the loop: same start, same order of rows."""
    x_train, _, y_train, _ = split()
    torch.manual_seed(0)
    network = plain_network()
    model = build(fanin)
    # torch's own Adam on both sides: Keras's, and so fanin's, adds its epsilon at another place
    model.compile(lambda weights: torch.optim.Adam(weights, lr=1e-3, eps=1e-7), "sparse_categorical_crossentropy")
    linears = network[::2]
    for dense, linear in zip(model.layers, linears, strict=True):
        dense.set_weights([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
    model.fit(x_train, y_train, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0)
    plain_loop(network, torch.from_numpy(x_train), torch.from_numpy(y_train), epochs, shuffle=False)
    differences = [
        (weight - other).abs().max().item()
        for dense, linear in zip(model.layers, linears, strict=True)
        for weight, other in ((dense.kernel, linear.weight.T), (dense.bias, linear.bias))
    ]
    return max(differences)


# --- scikit-learn -----------------------------------------------------------------------------------------------------


def measure_sklearn(name: str, epochs: int) -> Result:
    """Its linear model (which has no seed), or its network with each seed."""
    x_train, x_test, y_train, y_test = split()
    result = Result(f"scikit-learn, {name}", [], [])
    for seed in SEEDS:
        if name == "linear model":
            model = LogisticRegression(max_iter=1000)
        else:
            # epochs exactly as the others: no early end, no penalty
            model = MLPClassifier((256, 128), alpha=0, batch_size=BATCH, max_iter=epochs, n_iter_no_change=epochs,
                                  random_state=seed)  # fmt: skip
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x_train, y_train)
        result.seconds.append(time.perf_counter() - start)
        result.accuracies.append(model.score(x_test, y_test))
    return result


# --- the chapter ------------------------------------------------------------------------------------------------------


def draw(results: list[Result]) -> str:
    """A dot for the accuracy of each seed, and a bar for the time."""
    drawn, axes = figure(1, 2, height=0.75 + 0.36 * len(results), sharey=True)
    places = np.arange(len(results))[::-1]
    longest = max(result.best for result in results)
    gap = 0.015 * longest
    for place, result in zip(places, results, strict=True):
        own = result.name.startswith("fanin")
        colour = BLUE if own else GREY
        spread = np.linspace(-0.12, 0.12, len(result.accuracies))
        axes[0, 0].scatter(result.accuracies, place + spread, s=26, color=colour, linewidths=0)
        axes[0, 1].barh(place, result.best, height=0.55, color=colour)
        axes[0, 1].text(result.best + gap, place, f"{result.best:.2f} s", va="center", color=INK if own else MUTED)
    axes[0, 0].set_yticks(places, [result.name for result in results])
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes[0, 0].set(title="Accuracy on held-out digits, three seeds", ylim=(-0.6, len(results) - 0.4))
    axes[0, 0].grid(axis="x")
    axes[0, 1].set(title="Seconds to train", xlim=(0, 1.25 * longest))
    for ax in axes[0]:
        ax.tick_params(left=False)
        ax.spines["left"].set_visible(False)
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Train everywhere on one thread, and compare."""
    epochs = 4 if quick else EPOCHS
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            jobs: list[Callable[[], Result | None]] = [
                lambda: measure(fanin, "fanin", epochs),
                lambda: measure_plain(epochs),
                lambda: measure_keras(epochs),
                lambda: measure_sklearn("MLP", epochs),
                lambda: measure_sklearn("linear model", epochs),
            ]
            own, plain, keras, mlp, linear = (job() for job in track(jobs, "five peers"))
            difference = distance_to_plain()
    finally:
        torch.set_num_threads(threads)
    results = [own, plain, *([keras] if keras is not None else []), mlp, linear]
    rows = [[r.name, f"{r.accuracy:.4f}", r.spread, f"{r.best:.2f}", f"{r.best / own.best:.2f}"] for r in results]
    lower, apart = (0.9, 0.03) if quick else (linear.accuracy, 0.01)
    claims = [
        Claim(
            "with the same start, order and optimizer, `fit` ends at the plain PyTorch loop's weights, within 0.0001",
            f"largest difference {difference:.1e}",
            difference <= 1e-4,
        ),
        Claim(
            f"fanin's accuracy is that of the plain PyTorch loop, within {apart}",
            f"{own.accuracy:.4f} and {plain.accuracy:.4f}",
            abs(own.accuracy - plain.accuracy) <= apart,
        ),
        Claim(
            "fanin's accuracy is at least that of scikit-learn's linear model"
            if not quick
            else "fanin's accuracy is at least 0.9 (beside scikit-learn's linear model)",
            f"{own.accuracy:.4f} and {linear.accuracy:.4f}",
            own.accuracy >= lower,
        ),
    ]
    if keras is not None:
        claims.append(
            Claim(
                f"the same script gives the same accuracy with Keras, within {apart}",
                f"{own.accuracy:.4f} and {keras.accuracy:.4f}",
                abs(own.accuracy - keras.accuracy) <= apart,
            )
        )
    note = "" if keras is not None else " Keras is not installed here, so it is left out (`pip install keras`)."
    return Chapter(
        "Beside other libraries",
        [
            f"One split, one network (64, 256, 128, 10), Adam, batches of {BATCH}, {epochs} epochs, three seeds. "
            "`build` and `fit` run twice, word for word: with `keras`, and with `fanin` in its place. scikit-learn's "
            "linear model shows what can be had without hidden layers." + note,
            "The time is that of training alone, without imports, on one thread, the shortest of three runs. Times "
            "differ from machine to machine, so no claim rests on them.",
        ],
        [
            code(build),
            Table(
                ["", "accuracy", "all seeds", "seconds", "ratio"],
                rows,
                "Accuracy: on the held-out digits, the median of the seeds; one image more or less is 0.0022. Ratio: "
                "the time divided by fanin's.",
            ),
            Picture(draw(results), "Accuracy and time of each library", "The same figures as in the table."),
        ],
        claims,
    )


def _as_keras_process(epochs: int) -> None:
    import keras

    torch.set_num_threads(1)
    result = measure(keras, "", epochs)
    print(json.dumps({"accuracies": result.accuracies, "seconds": result.seconds}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keras"]:
        _as_keras_process(int(sys.argv[2]))
    else:
        alone(run)
