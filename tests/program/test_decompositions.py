"""The plain updates do what torch's fused kernels do, over several steps, and inductor takes them."""

import pytest
import torch

from fanin.program import InductorProgram, Program
from fanin.program.decompositions import adam, adamw, sgd

ADAM = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-7, "maximize": False}
SGD = {"dampening": 0.1, "maximize": False}


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("plain", "fused"), [(adam, torch._fused_adam_), (adamw, torch._fused_adamw_)])
def test_adam(plain, fused, weight_decay, amsgrad):
    states = [[[torch.zeros(5, dtype=torch.float64)] for _ in range(4)] for _ in range(2)]
    steps = [[torch.zeros(())] for _ in range(2)]
    for turn in range(4):
        gradient = torch.arange(5, dtype=torch.float64) - turn
        for update, (weights, *slots), step in zip((plain, fused), states, steps, strict=True):
            step[0].add_(1)
            given = slots if amsgrad else [*slots[:2], []]
            options = {**ADAM, "weight_decay": weight_decay, "amsgrad": amsgrad}
            update(weights, [gradient.clone()], *given, step, lr=torch.tensor(0.1, dtype=torch.float64), **options)
    torch.testing.assert_close(states[0], states[1])


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd(momentum, nesterov, weight_decay):
    states = [[[torch.ones(5)], [torch.zeros(5)]] for _ in range(2)]
    for turn in range(4):
        for update, (weights, momenta) in zip((sgd, torch._fused_sgd_), states, strict=True):
            update(
                weights, [torch.arange(5.0) - turn], momenta if momentum else [], lr=torch.tensor(0.1),
                weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, is_first_step=turn == 0, **SGD,
            )  # fmt: skip
    torch.testing.assert_close(states[0], states[1])


@pytest.mark.slow
def test_inductor_writes_to_scalars_in_memory():
    """In PyTorch 2.13, inductor alone loses what is written to a float64 scalar."""
    for kind in (Program, InductorProgram):
        weight, total = torch.ones(3), torch.zeros((), dtype=torch.float64)

        def function(weight, total, x):
            loss = (weight * x).sum()
            weight.sub_(0.1 * x)
            total.add_(loss, alpha=2)
            return [loss]

        program = kind(function, [weight, total], [torch.ones(3)])
        for _ in range(2):
            results = program.new_results()
            program.run_on(program.view_inputs([torch.ones(3)]), results)
        assert total.item() == pytest.approx(2 * (3 + 2.7))
        assert results[0].item() == pytest.approx(2.7)
        assert weight.tolist() == pytest.approx([0.8] * 3)
