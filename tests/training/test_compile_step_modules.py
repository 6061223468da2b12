"""What `compile_step` does to a module: its modes, buffers, gradients and tied or frozen weights, as the loop."""

import copy
import pickle

import torch
import torch.nn.functional as F
from compile_step_cases import MODULES, Residual, Tied, data, plain_step, twins
from engine_cases import flat
from torch import nn

import fanin
from fanin import compile_step, optimizers


def test_gradients_that_were_there_stay():
    module = nn.Linear(6, 3)
    module(data()[0]).sum().backward()
    kept = [weight.grad.clone() for weight in module.parameters()]
    step = compile_step(module, F.cross_entropy, torch.optim.SGD(module.parameters(), lr=0.1))
    step(*data())
    assert all(torch.equal(one, weight.grad) for one, weight in zip(kept, module.parameters(), strict=True))


def test_modes_of_parts_are_kept():
    module = MODULES["norms"]()
    module.eval()
    step = compile_step(module, F.cross_entropy, "sgd")
    before = module[1].running_mean.clone()
    step(*data())
    assert not any(part.training for part in module.modules())
    assert not torch.equal(before, module[1].running_mean)  # the step itself runs in train mode
    module.train()
    module[1].eval()
    frozen = module[1].running_mean.clone()
    step(*data())
    assert torch.equal(frozen, module[1].running_mean)
    assert module[0].training
    assert not module[1].training
    assert int(module[1].num_batches_tracked) == 1


def test_batch_normalization_of_torch_counts_its_batches():
    module, other = twins("norms")
    step = compile_step(module, F.cross_entropy, torch.optim.SGD(module.parameters(), lr=0.0))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.0)
    for i in range(3):
        step(*data(seed=i))
        plain_step(other, F.cross_entropy, optimizer, *data(seed=i))
    assert int(module[1].num_batches_tracked) == 3
    torch.testing.assert_close(module[1].running_mean, other[1].running_mean)
    torch.testing.assert_close(module[1].running_var, other[1].running_var)


def test_tied_weights_stay_tied():
    module = Tied()
    step = compile_step(module, F.cross_entropy, torch.optim.Adam(module.parameters(), lr=0.1))
    step(*data())
    assert module.first.weight is module.second.weight
    assert len(list(module.parameters())) == 5


def test_unused_and_frozen_weights_stay():
    module = Residual()
    module.norm.requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    step = compile_step(module, F.cross_entropy, optimizer)
    step(*data())
    assert module.unused.tolist() == [1, 1]
    assert torch.equal(module.norm.weight, torch.ones(6))
    assert module.norm.weight not in optimizer.state
    assert module.unused not in optimizer.state
    module.norm.requires_grad_(True)
    step(*data())
    assert not torch.equal(module.norm.weight, torch.ones(6))


def test_a_lazy_module_is_built_by_the_first_step():
    module = nn.Sequential(fanin.layers.Dense(8, "relu"), fanin.layers.Dense(3))
    step = compile_step(module, F.cross_entropy, "adam")
    first = step(*data())
    assert module[0].kernel.shape == (6, 8)
    for _ in range(30):
        last = step(*data())
    assert last < first


def test_eager_calls_and_autograd_between_steps():
    module, other = twins("mlp")
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    step = compile_step(module, F.cross_entropy, optimizer)
    plain = torch.optim.Adam(other.parameters(), lr=0.01)
    for i in range(4):
        if i % 2:
            for one, of in ((module, optimizer), (other, plain)):
                plain_step(one, F.cross_entropy, of, *data(seed=i))
        else:
            step(*data(seed=i))
            plain_step(other, F.cross_entropy, plain, *data(seed=i))
    torch.testing.assert_close(flat(module), flat(other), rtol=1e-4, atol=1e-5)
    assert {name: int(s["step"]) for name, s in enumerate(optimizer.state.values())} == dict.fromkeys(range(6), 4)


def test_a_module_that_was_compiled_can_be_copied_and_pickled():
    module = MODULES["mlp"]()
    step = compile_step(module, F.cross_entropy, "adam")
    step(*data())
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(data()[0]), module(data()[0]))
        compile_step(again, F.cross_entropy, "adam")(*data())


def test_two_steps_of_one_module():
    module, other = twins("mlp")
    optimizer = optimizers.SGD(0.1)
    one, two = compile_step(module, F.cross_entropy, optimizer), compile_step(module, nn.MSELoss(), optimizer)
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    for i in range(2):
        one(*data(seed=i))
        plain_step(other, F.cross_entropy, plain, *data(seed=i))
        two(*data(classes=False, seed=i))
        plain_step(other, nn.MSELoss(), plain, *data(classes=False, seed=i))
    torch.testing.assert_close(flat(module), flat(other), rtol=1e-4, atol=1e-6)
    assert optimizer.iterations == 4
