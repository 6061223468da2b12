"""Without torch's private operations, public ones compute the same."""

import pytest
import torch

import fanin
from fanin.optimizers import Adam
from fanin.program import Program
from fanin.program.passes import fused_activations


def test_relu_of_a_product(monkeypatch):
    monkeypatch.setattr(fused_activations, "ADDMM_RELU", None)
    w, b, x = torch.randn(100, 90), torch.randn(90), torch.randn(80, 100)  # too large for numpy
    program = Program(lambda w, b, x: [torch.relu(torch.addmm(b, x, w)) * 2], [w, b], [x])
    assert "relu_(" in program.source
    assert "_addmm_activation(" not in program.source
    torch.testing.assert_close(program(x)[0], torch.relu(x @ w + b) * 2)


@pytest.mark.parametrize("own", [True, False])
def test_adam(monkeypatch, own):
    def trained():
        torch.manual_seed(0)
        module, x = torch.nn.Linear(3, 2), torch.randn(8, 3)
        optimizer = Adam(0.01, epsilon=1e-8) if own else torch.optim.Adam(module.parameters(), 0.01)
        step = fanin.compile_step(module, torch.nn.functional.mse_loss, optimizer)
        losses = [step(x, x[:, :2]).item() for _ in range(3)]
        return losses, [p.detach() for p in module.parameters()], step.programs

    losses, weights, programs = trained()
    assert "_fused_adam_(" in programs[0].source
    monkeypatch.delattr(torch, "_fused_adam_")
    others, found, programs = trained()
    assert not any("_fused_adam_(" in program.source for program in programs)
    torch.testing.assert_close(losses, others)
    torch.testing.assert_close(weights, found)
