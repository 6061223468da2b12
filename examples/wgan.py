"""A Wasserstein GAN with clipped weights, in a plain PyTorch loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from drawing import BLUE, GRID, INK, MUTED, ORANGE, figure, svg
from report import Chapter, Claim, Picture, alone, code
from rich.progress import track
from torch.optim import Optimizer, RMSprop

import fanin
from fanin import Sequential
from fanin.layers import Dense

CLIP = 0.1
STEPS, CRITIC_STEPS, BATCH = 1500, 5, 128
SPOTS = 8


def real_points(count: int) -> torch.Tensor:
    """(count, 2): points around eight spots on a circle."""
    angle = torch.randint(0, SPOTS, (count,)) * (2 * math.pi / SPOTS)
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.06 * torch.randn(count, 2)


def noise(count: int) -> torch.Tensor:
    """(count, 2): what the generator starts from."""
    return torch.randn(count, 2)


def clip(weights: torch.Tensor) -> torch.Tensor:
    """What a W-GAN asks of its critic."""
    return weights.clamp(-CLIP, CLIP)


def make_networks() -> tuple[Sequential, Sequential]:
    """The generator, and the critic whose weights stay clipped."""
    generator = Sequential()
    generator.add(Dense(64, activation="relu", input_shape=(2,)))
    generator.add(Dense(64, activation="relu"))
    generator.add(Dense(2))
    clipped = {"kernel_constraint": clip, "bias_constraint": clip}
    critic = Sequential()
    critic.add(Dense(64, activation="relu", input_shape=(2,), **clipped))
    critic.add(Dense(64, activation="relu", **clipped))
    critic.add(Dense(1, **clipped))
    return generator, critic


@dataclass
class Outcome:
    """What a training left behind."""

    points: torch.Tensor = field(default_factory=lambda: torch.empty(0, 2))
    before: torch.Tensor = field(default_factory=lambda: torch.empty(0, 2))
    distances: list[tuple[int, float]] = field(default_factory=list)
    largest: float = 0.0
    updates: int = 0


def train_critic(generator: Sequential, critic: Sequential, optimizer: Optimizer) -> None:
    """One step towards a high score for real points and a low one for made ones."""
    with torch.no_grad():
        made = generator(noise(BATCH))
    optimizer.zero_grad()
    loss = critic(made).mean() - critic(real_points(BATCH)).mean()
    loss.backward()
    optimizer.step()  # and then, by itself, the clipping


def train_generator(generator: Sequential, critic: Sequential, optimizer: Optimizer) -> None:
    """One step towards made points that score high."""
    optimizer.zero_grad()
    loss = -critic(generator(noise(BATCH))).mean()
    loss.backward()
    optimizer.step()


def train(steps: int = STEPS, seed: int = 0) -> Outcome:
    """The loop, with a look at every weight of the critic after each of its updates."""
    fanin.utils.set_random_seed(seed)
    generator, critic = make_networks()
    for_generator = RMSprop(generator.parameters(), lr=5e-4)
    for_critic = RMSprop(critic.parameters(), lr=5e-4)
    fanin.attach(for_critic, critic)  # constraints after each step of the optimizer
    outcome = Outcome(before=sample(generator))
    for step in track(range(steps), "W-GAN"):
        if step % (steps // 25) == 0:
            outcome.distances.append((step, distance(sample(generator), real_points(2000))))
        for _ in range(CRITIC_STEPS):
            train_critic(generator, critic, for_critic)
            outcome.largest = max(outcome.largest, *(w.abs().max().item() for w in critic.weights))
            outcome.updates += 1
        train_generator(generator, critic, for_generator)
    outcome.points = sample(generator)
    outcome.distances.append((steps, distance(outcome.points, real_points(2000))))
    return outcome


@torch.no_grad()
def sample(generator: Sequential) -> torch.Tensor:
    """2,000 made points."""
    return generator(noise(2000))


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The sliced Wasserstein distance: how far points must move along a line, the mean over 64 directions."""
    angle = torch.linspace(0, math.pi, 65)[:-1]
    directions = torch.stack([angle.cos(), angle.sin()])
    return ((one @ directions).sort(dim=0).values - (other @ directions).sort(dim=0).values).abs().mean().item()


def rarest_spot(points: torch.Tensor) -> float:
    """The smallest share of points that any of the eight spots has within 0.2."""
    angle = torch.arange(SPOTS) * (2 * math.pi / SPOTS)
    spots = torch.stack([angle.cos(), angle.sin()], dim=1)
    return (torch.cdist(spots, points) < 0.2).float().mean(dim=1).min().item()


def draw(outcome: Outcome, bound: float) -> str:
    """Points before and after, and the distance on the way."""
    drawn, axes = figure(1, 3, height=2.75, width_ratios=[1, 1, 1.05])
    real = real_points(600).numpy()
    for ax, points, title in zip(axes[0], (outcome.before, outcome.points), ("Before", "After"), strict=False):
        ax.scatter(*real.T, s=7, color=BLUE, linewidths=0, label="real", rasterized=True)
        ax.scatter(*points[:600].numpy().T, s=7, color=ORANGE, linewidths=0, label="made", rasterized=True)
        ax.set(title=title, xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])
        for side in ax.spines.values():
            side.set(visible=True, color=GRID)
    axes[0, 0].legend(loc="upper right", handletextpad=0, borderpad=0.1, labelcolor=INK)
    ax = axes[0, 2]
    ax.plot(*np.array(outcome.distances).T, color=ORANGE)
    ax.axhline(bound, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    last = outcome.distances[-1][0]
    ax.text(last, bound + 0.012, f"bound {bound}", color=MUTED, ha="right")
    ax.set(title="Distance", xlabel="generator steps", ylim=(0, None), xlim=(0, last))
    ax.grid(axis="y")
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Train the pair, and measure."""
    outcome = train(300 if quick else STEPS)
    bound, share = (0.2, 0.005) if quick else (0.12, 0.03)
    start, end = outcome.distances[0][1], outcome.distances[-1][1]
    rarest = rarest_spot(outcome.points)
    return Chapter(
        "A W-GAN with clipped weights",
        [
            "The post names weight clipping as a use of constraints; here it is. A generator learns to turn noise into "
            "points around eight spots, and a critic scores points: high for real ones, low for made ones. The score "
            "measures a distance only if the critic cannot be arbitrarily steep, so its weights are clipped.",
            "The loop is plain PyTorch, with PyTorch's RMSprop. `fanin.attach(optimizer, critic)` is all it takes: "
            "after each step of that optimizer the critic's constraints are applied.",
        ],
        [
            code(make_networks, train_critic),
            Picture(
                draw(outcome, bound),
                "Made points lie in one heap before training, and around the eight real spots after it",
                "600 real and 600 made points, and the sliced Wasserstein distance between 2,000 of each.",
            ),
        ],
        [
            Claim(
                f"all weights of the critic are within ±{CLIP} after each of {outcome.updates:,} updates",
                f"largest {outcome.largest:.4f}",
                outcome.largest <= np.float32(CLIP),
            ),
            Claim(
                f"the distance to real points falls from above 0.4 to below {bound}",
                f"{start:.3f} to {end:.3f}",
                start > 0.4 and end < bound,
            ),
            Claim(f"each of the eight spots gets at least {share:.1%} of the points", f"{rarest:.1%}", rarest >= share),
        ],
    )


if __name__ == "__main__":
    alone(run)
