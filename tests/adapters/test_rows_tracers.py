"""Mixed batches under tracers: programs, torch.compile, recomputation."""

import pytest
import torch
from rows_cases import Tower, mixed
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from fanin import adapters
from fanin.kernels.rows import rows_key, rows_tensors, with_rows_tensors
from fanin.program import Program


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_program_serves_all_batches_of_one_key(dtype):
    tower = mixed(Tower(dtype))
    static, keys = list(tower.parameters()), [name for name, _ in tower.named_parameters()]

    def step(*given):
        """Outputs and gradients of the adapters, from weights, indices and the tensors of the block."""
        fresh = [given[place].detach().requires_grad_(own.requires_grad) for place, own in enumerate(static)]
        with with_rows_tensors(given[len(static) + 1 :]):
            outputs = functional_call(tower, dict(zip(keys, fresh, strict=True)), (given[len(static)],))
            trained = [weight for weight in fresh if weight.requires_grad]
            return [outputs, *torch.autograd.grad(outputs.square().sum(), trained, allow_unused=True)]

    batches = [["ann", "cid", None, "ann"], ["cid", None, "ann", "cid"], [None, "cid", "cid", "ann"]]
    found = set()
    program = None
    for names in batches:
        indices = torch.randint(7, (4, 2))
        with adapters.rows(tower, names):
            found.add(rows_key())
            given = [indices, *rows_tensors()]
            program = program or Program(step, static, given)
            results = program(*given)
            trained = [weight for weight in static if weight.requires_grad]
            outputs = tower(indices)
            expected = torch.autograd.grad(outputs.square().sum(), trained, allow_unused=True)
        for one, other in zip(results, [outputs, *expected], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other.detach())
    assert len(found) == 1
    for others in (["ann", "cid", "ann", "ann"], ["ann", "bob", None, "ann"], ["ann", "cid", None]):
        with adapters.rows(tower, others):
            assert rows_key() not in found
    with adapters.rows(tower.head, batches[0]):
        assert rows_key() not in found
    assert rows_key() is None
    assert rows_tensors() == []


def test_torch_compile_sees_the_block():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(2, 6)
    adapters.set_active(layer, "dan")
    compiled = torch.compile(layer, backend="eager")
    active = layer(x)
    torch.testing.assert_close(compiled(x), active)
    for names in (["ann", None], ["bob", "ann"], [None, "ann"]):
        with torch.no_grad(), adapters.rows(layer, names):
            torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(compiled(x), active)


def test_recomputed_parts_need_the_block():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(2, 6)
    with adapters.rows(layer, ["ann", "bob"]):
        layer(x).square().sum().backward()
        expected = layer.ann_weight_a.grad
        layer.zero_grad()
        checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(layer.ann_weight_a.grad, expected)
