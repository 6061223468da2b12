"""Adapters: one network of digits, and a small adapter for each kind of digits that it was not trained on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import digits
import numpy as np
import torch
from drawing import BLUE, GREY, GRID, MUTED, ORANGE, figure, svg
from matplotlib.patches import Rectangle
from report import Chapter, Claim, Picture, Table, alone, code
from rich.progress import track

import fanin
from fanin import Sequential

RANK, DRAWS = 4, 4
Shift = Callable[[np.ndarray, int], np.ndarray]

# Images (N, 64) from -1, the paper, to 1, and a seed -> the same digits, otherwise.
SHIFTS: dict[str, Shift] = {
    "rotated": lambda x, seed: np.rot90(x.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64).copy(),
    "inverted": lambda x, seed: -x,
    "noisy": lambda x, seed: (x + np.random.default_rng(seed).normal(0, 0.9, x.shape)).astype("float32"),
}


def adapt(model: Sequential, name: str, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Train one adapter; the network's own weights stay as they are."""
    fanin.adapters.add(model, name, rank=RANK)
    optimizer, loss = fanin.optimizers.Adam(0.005), "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, verbose=0)


def serve(model: Sequential, x: torch.Tensor, names: list[str | None]) -> torch.Tensor:
    """One batch, in which each row has an adapter of its own, or None."""
    with torch.no_grad(), fanin.adapters.rows(model, names):
        return model(x)


@dataclass
class Outcome:
    """What one task came to: held-out accuracies, seconds for an epoch, bytes of the files to keep."""

    base: float
    adapter: float
    full: float
    adapter_seconds: float
    full_seconds: float
    adapter_bytes: int
    full_bytes: int


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The digits, from -1 to 1."""
    x_train, x_test, y_train, y_test = digits.split()
    return 2 * x_train - 1, 2 * x_test - 1, y_train, y_test


def copy_of(model: Sequential) -> Sequential:
    """Another network with the weights that this one has without adapters."""
    other = digits.make_model()
    for mine, given in zip(other.layers, model.layers, strict=True):
        mine.set_weights([weight.detach().numpy() for weight in (given.kernel, given.bias)])
    return other


def accuracy(model: Sequential, x: np.ndarray, y: np.ndarray) -> float:
    """On held-out digits."""
    return float((model.predict(x, verbose=0).argmax(axis=1) == y).mean())


def learn(model: Sequential, name: str, epochs: int, folder: Path) -> tuple[Outcome, np.ndarray]:
    """Adapt to one task, fine-tune a copy of all weights beside it, save both; also what the adapter says alone."""
    x_train, x_test, y_train, y_test = data()
    shift = SHIFTS[name]
    x, y = np.concatenate([shift(x_train, draw) for draw in range(DRAWS)]), np.tile(y_train, DRAWS)
    held_out = shift(x_test, DRAWS)
    full = copy_of(model)
    base = accuracy(full, held_out, y_test)
    start = time.perf_counter()
    full.fit(x, y, epochs=epochs, verbose=0)
    middle = time.perf_counter()
    adapt(model, name, x, y, epochs)
    end = time.perf_counter()
    fanin.adapters.save(model, name, folder / name)
    full.save_weights(folder / f"{name}.safetensors")
    outcome = Outcome(
        base,
        accuracy(model, held_out, y_test),
        accuracy(full, held_out, y_test),
        (end - middle) / epochs,
        (middle - start) / epochs,
        sum(file.stat().st_size for file in (folder / name).iterdir()),
        (folder / f"{name}.safetensors").stat().st_size,
    )
    return outcome, model.predict(held_out, verbose=0)


def draw(images: dict[str, np.ndarray], outcomes: dict[str, Outcome], unshifted: float) -> str:
    """A few digits of each task; beside them the accuracy with no adapter, with its own, and with all weights tuned."""
    drawn, axes = figure(1, 2, height=3.1, width_ratios=[1.12, 1])  # so wide that the rows meet
    ax = axes[0, 0]
    for row, (name, some) in enumerate(images.items()):
        for column, image in enumerate(some):
            left, top = column * 9.5, row * 11
            ax.imshow(np.clip(image, -1, 1).reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1, interpolation="none",
                      extent=(left, left + 8, top + 8, top))  # fmt: skip
            ax.add_patch(Rectangle((left, top), 8, 8, fill=False, edgecolor=GRID, linewidth=0.8))
        ax.text(-2, row * 11 + 4, name, ha="right", va="center", color=MUTED)
    ax.set(title="The same digits, otherwise", xlim=(-19, len(some) * 9.5 - 1), ylim=(len(images) * 11 - 2, -1))
    ax.set(xticks=[], yticks=[])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)

    ax = axes[0, 1]
    bars = [(4.0, 0, unshifted, GREY)]
    for row, outcome in enumerate(outcomes.values(), 1):
        values = (outcome.base, GREY), (outcome.adapter, BLUE), (outcome.full, ORANGE)
        bars += [(4 + 3 * (place - 1.0), row, value, colour) for place, (value, colour) in enumerate(values)]
    for place, row, value, colour in bars:
        ax.barh(row * 11 + place, value, 2.5, color=colour, linewidth=0)
        ax.text(value + 0.012, row * 11 + place, f"{value:.3f}", va="center", fontsize=8, color=MUTED)
    for name, colour in (("no adapter", GREY), ("its adapter", BLUE), ("all weights fine-tuned", ORANGE)):
        ax.barh(4, 0, 0, color=colour, label=name)
    ax.set(title="Accuracy on held-out digits", xlim=(0, 1.15), ylim=(len(images) * 11 - 2, -1), yticks=[])
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.spines["left"].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.42, -0.12), ncols=3, fontsize=8.5, columnspacing=1.1,
              handlelength=0.9, handletextpad=0.5)  # fmt: skip
    return svg(drawn)


def seconds(call: Callable[[], object]) -> float:
    """The best of five times."""
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return float(best)


def run(quick: bool = False) -> Chapter:
    """Train the network, an adapter for each task, and serve all of them in one batch."""
    first, epochs = (8, 4) if quick else (30, 6)
    bound, behind = (0.88, 0.09) if quick else (0.92, 0.06)
    x_train, x_test, y_train, y_test = data()
    fanin.utils.set_random_seed(0)
    model = digits.make_model()
    model.fit(x_train, y_train, epochs=first, verbose=0)
    unshifted, count = accuracy(model, x_test, y_test), model.count_params()
    before = [weight.clone() for weight in model.parameters()]

    outcomes: dict[str, Outcome] = {}
    answers: dict[str | None, np.ndarray] = {None: model.predict(x_test, verbose=0)}
    with tempfile.TemporaryDirectory() as folder:
        for name in track(SHIFTS, "three tasks", len(SHIFTS)):
            outcomes[name], answers[name] = learn(model, name, epochs, Path(folder))
    trained = fanin.adapters.report(model).trained
    kept = [weight for name, weight in model.named_parameters() if name.endswith(("kernel", "bias"))]
    untouched = all(torch.equal(old, new) for old, new in zip(before, kept, strict=True))

    order = np.random.default_rng(0).permutation(len(x_test) * (1 + len(SHIFTS)))
    shifted = [x_test, *(shift(x_test, DRAWS) for shift in SHIFTS.values())]
    rows = torch.from_numpy(np.concatenate(shifted)[order])
    labels = np.tile(y_test, len(shifted))[order]
    every = [name for name in (None, *SHIFTS) for _ in x_test]
    names = [every[place] for place in order]
    mixed = serve(model, rows, names).numpy()
    apart = np.concatenate(list(answers.values()))[order]
    error = float(np.abs(mixed - apart).max())
    in_one = float((mixed.argmax(axis=1) == labels).mean())
    fanin.adapters.set_active(model, None)
    with torch.no_grad():
        alone_takes, mixed_takes = seconds(lambda: model(rows)), seconds(lambda: serve(model, rows, names))

    worst = max(outcomes, key=lambda name: outcomes[name].full - outcomes[name].adapter)
    lag = outcomes[worst].full - outcomes[worst].adapter
    turned = min(outcomes["rotated"].adapter, outcomes["inverted"].adapter)
    small, large = (sum(getattr(o, key) for o in outcomes.values()) for key in ("adapter_bytes", "full_bytes"))
    images = {"as they are": x_test[:5], **{name: shift(x_test[:5], DRAWS) for name, shift in SHIFTS.items()}}
    return Chapter(
        "Adapters: one network, several tasks",
        [
            "The network of the first chapter has never seen a digit that lies on its side, is white on black, or is "
            "covered with noise. `fanin.adapters.add` freezes it and puts beside each kernel two thin matrices, A and "
            f"B, of rank {RANK}: output = x kernel + x A B. Only these train, one pair for each task, and "
            "`fanin.adapters.save` keeps them in the files that PEFT reads.",
            "Requests for all tasks go through the network together: `fanin.adapters.rows` says for each row of the "
            "batch which adapter acts, or that none does.",
        ],
        [
            code(adapt, serve),
            Picture(
                draw(images, outcomes, unshifted),
                "Digits as they are, rotated, inverted and noisy, and the accuracy without an adapter, with one, and "
                "with all weights fine-tuned",
                f"Left: five of the held-out digits, in each task. Right: how many of the {len(y_test)} held-out "
                "digits of that task are named rightly by the network alone, with the task's adapter, and by a copy "
                "of the network of which all weights were trained on the task.",
            ),
            Table(
                ["for each task", "trained weights", "bytes kept", "seconds an epoch"],
                [
                    ["an adapter", f"{trained:,}", f"{small // 3:,}", _mean(outcomes, "adapter_seconds")],
                    ["all weights", f"{count:,}", f"{large // 3:,}", _mean(outcomes, "full_seconds")],
                ],
                f"Times as seen in this run, on one thread. The mixed batch of {len(names):,} rows took "
                f"{1e3 * mixed_takes:.1f} ms, the same rows without any adapter {1e3 * alone_takes:.1f} ms; "
                f"{in_one:.3f} of its rows were answered rightly.",
            ),
        ],
        [
            Claim(
                f"rotated and inverted digits: each adapter is right on at least {bound} of the held-out ones",
                f"{turned:.4f}",
                turned >= bound,
            ),
            Claim(
                f"no adapter is more than {behind} behind fine-tuning all weights",
                f"{lag:.4f} ({worst})",
                lag <= behind,
            ),
            Claim(
                "an adapter trains less than a tenth of the weights, and its files take less than a tenth of the bytes",
                f"{trained:,} of {count:,}, {small // 3:,} of {large // 3:,}",
                10 * trained < count and 10 * small < large,
            ),
            Claim(
                "in one mixed batch each row gets what its own adapter says alone, within a 100,000th",
                f"{error:.1e}",
                error <= 1e-5,
            ),
            Claim(
                "the network's own weights are bit for bit what they were",
                "equal" if untouched else "changed",
                untouched,
            ),
        ],
    )


def _mean(outcomes: dict[str, Outcome], key: str) -> str:
    return f"{np.mean([getattr(outcome, key) for outcome in outcomes.values()]):.3f}"


if __name__ == "__main__":
    alone(run)
