"""Normalizations in compiled steps: inputs with gaps, frozen parts before them, two precisions at once."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fanin


class After(nn.Module):
    """A normalization of what another function makes of a linear layer's results."""

    def __init__(self, norm, change, units=8):
        super().__init__()
        self.linear, self.norm, self.change = nn.Linear(5, units), norm, change

    def forward(self, x):
        return self.norm(self.change(self.linear(x)))


def frozen(*layers):
    model = nn.Sequential(*layers)
    model[0].requires_grad_(False)
    return model


IMAGES = torch.randn(6, 3, 8, 8)
# The module, its input, and the shape of its output.
CASES = {
    "turned": (lambda: After(nn.BatchNorm1d(8), lambda h: h.transpose(1, 2)), torch.randn(6, 7, 5), (6, 8, 7)),
    "every second": (lambda: After(nn.BatchNorm1d(4), lambda h: h[:, ::2]), torch.randn(6, 5), (6, 4)),
    "all but the first": (lambda: After(nn.BatchNorm1d(7), lambda h: h[:, 1:]), torch.randn(6, 5), (6, 7)),
    "repeated": (lambda: After(nn.BatchNorm1d(1), lambda h: h[:, :1].expand(-1, 1)), torch.randn(6, 5), (6, 1)),
    "layers": (lambda: After(nn.LayerNorm(7), lambda h: h.transpose(1, 2)), torch.randn(6, 7, 5), (6, 8, 7)),
    "groups": (lambda: After(nn.GroupNorm(2, 8), lambda h: h.transpose(1, 2)), torch.randn(6, 7, 5), (6, 8, 7)),
    "first": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4)), torch.randn(6, 8), (6, 4)),
    "after a frozen layer": (
        lambda: frozen(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), torch.randn(6, 8), (6, 4),
    ),
    "instances first": (
        lambda: nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True), nn.Conv2d(3, 4, 3)), IMAGES, (6, 4, 6, 6),
    ),
    "images": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), IMAGES, (6, 4, 6, 6)),
    "channels last": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        IMAGES.to(memory_format=torch.channels_last),
        (6, 4, 6, 6),
    ),
}  # fmt: skip


def trained(make, x, shape, context=contextlib.nullcontext):
    """Losses and state after three steps, compiled and by PyTorch itself."""
    torch.manual_seed(0)
    ours, theirs = make(), None
    theirs, y = copy.deepcopy(ours), torch.randn(shape)
    step = fanin.compile_step(ours, F.mse_loss, torch.optim.SGD(ours.parameters(), 0.05))
    optimizer, losses = torch.optim.SGD(theirs.parameters(), 0.05), []
    for _ in range(3):
        with context():
            loss = F.mse_loss(theirs(x), y)
            losses.append((float(step(x, y)), loss.item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(step.programs) == 1
    return losses, ours.state_dict(), theirs.state_dict()


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_step_is_pytorchs(name):
    losses, ours, theirs = trained(*CASES[name])
    for compiled, eager in losses:
        assert compiled == pytest.approx(eager, rel=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


NORMS = [nn.BatchNorm1d(8), nn.LayerNorm(8), nn.GroupNorm(2, 8)]


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_under_autocast(norm):
    make = lambda: nn.Sequential(nn.Linear(8, 8), norm, nn.Linear(8, 4))  # noqa: E731
    context = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    losses, ours, theirs = trained(make, torch.randn(6, 8), (6, 4), context)
    for compiled, eager in losses:
        assert compiled == pytest.approx(eager, rel=2**-6)
    torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=2**-7)


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_between_layers_of_16_bits(norm, policy):
    dense = [fanin.layers.Dense(units, dtype=policy) for units in (8, 4)]
    model = fanin.Sequential([fanin.Input((8,)), dense[0], copy.deepcopy(norm), dense[1]])
    x, y = torch.randn(20, 8), torch.randn(20, 4)
    torch.testing.assert_close(
        torch.as_tensor(model.predict(x, verbose=0)).float(), model(x).float(), rtol=0.02, atol=0.02
    )
    model.compile("sgd", "mse")
    loss = model.evaluate(x, y, verbose=0)
    assert loss == pytest.approx(float(((model(x).detach().float() - y) ** 2).mean()), rel=0.02)
    history = model.fit(x, y, epochs=5, batch_size=20, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_unpooling_with_channels_last():
    class Unpool(nn.Module):
        def forward(self, x):
            found, places = F.max_pool2d(x, 2, return_indices=True)
            return F.max_unpool2d(found, places, 2).flatten(1)

    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fanin.compile_predict(Unpool(), x)(x), Unpool()(x), rtol=0, atol=0)


def test_a_sum_over_rows_under_autocast():
    model = fanin.Sequential([fanin.Input((8,)), fanin.layers.BatchNormalization(), fanin.layers.Dense(3)])
    model.compile("sgd", "mse")
    with torch.autocast("cpu", torch.bfloat16):
        model.fit(torch.randn(20, 8), torch.randn(20, 3), verbose=0)  # a warning would say that it is not compiled
