"""Another adapter in each row of a batch, in compiled steps and predictions: as eagerly, whatever the names."""

import copy

import numpy as np
import pytest
import torch

import fanin
from fanin import adapters
from fanin.layers import Dense

NAMES = ["ann", "bob", "cid"]
MIXES = (["ann", "bob", None, "cid"], ["bob", "ann", "cid", None], [None] * 4)


PLACES = {"in all layers": ["01", "01", "01"], "in some layers": ["0", "1", "01"]}


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def model(request):
    made = fanin.Sequential([fanin.Input((6,)), Dense(8, "relu"), Dense(3)])
    for place, (name, target) in enumerate(zip(NAMES, request.param, strict=True)):
        adapters.add(made, name, place + 1, alpha=place + 1.5, target=[*target], b_initializer="glorot_uniform")
    return made


def agree(one, two, **tolerance):
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_fit(model, optimizer):
    twin = copy.deepcopy(model)
    x, y = np.random.randn(12, 6).astype("f"), np.random.randn(12, 3).astype("f")
    names = ["ann", None, "cid", "ann"]
    for each, is_eager in ((model, False), (twin, True)):
        each.compile(fanin.optimizers.get(optimizer), "mse", run_eagerly=is_eager)
        for mix in (names, names[::-1]):
            with adapters.rows(each, mix):
                each.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        adapters.set_active(each, "bob")
        each.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    agree(model, twin, rtol=1e-5, atol=1e-6)


def test_compile_step(model):
    twin, loss = copy.deepcopy(model), torch.nn.functional.mse_loss
    ours, theirs = (torch.optim.Adam(each.parameters(), 1e-2) for each in (model, twin))
    step = fanin.compile_step(model, loss, ours)
    drawn = torch.Generator().manual_seed(0)
    twin.train()
    for _ in range(12):
        names = [[*NAMES, None][place] for place in torch.randint(4, (5,), generator=drawn).tolist()]
        x, y = torch.randn(5, 6), torch.randn(5, 3)
        if not any(names):
            continue
        with adapters.rows(model, names):
            found = step(x, y)
        with adapters.rows(twin, names):
            expected = loss(twin(x), y)
            theirs.zero_grad()
            expected.backward()
            theirs.step()
        torch.testing.assert_close(found, expected.detach())
    agree(model, twin, rtol=1e-4, atol=1e-5)
    assert None not in step.engine._programs.values()


def test_predict(model):
    x = np.random.randn(4, 6).astype("f")
    compiled = fanin.compile_predict(model, x)
    for _ in range(2):
        alone = model.predict(x, verbose=0)
        for names in MIXES:
            with adapters.rows(model, names):
                expected = model(x).detach().numpy()
                for found in (model.predict(x, verbose=0), compiled(x)):
                    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(alone, model.predict(x, verbose=0))
        np.testing.assert_allclose(alone, compiled(x), rtol=1e-5, atol=1e-6)
