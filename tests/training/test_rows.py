import copy

import numpy as np
import pytest
import torch

import fanin
from fanin import adapters
from fanin.layers import Dense

NAMES = ["ann", "bob", "cid"]


def make(dropout=0.0):
    m = fanin.Sequential([fanin.Input((6,)), Dense(8, "relu"), Dense(3)])
    for i, n in enumerate(NAMES):
        adapters.add(m, n, i + 1, alpha=i + 1.5, b_initializer="glorot_uniform")
    return m


@pytest.mark.parametrize("opt", ["adam", "sgd"])
def test_fit(opt):
    m = make()
    t = copy.deepcopy(m)
    x = np.random.randn(12, 6).astype("f")
    y = np.random.randn(12, 3).astype("f")
    names = ["ann", None, "cid", "ann"]
    for each, eager in ((m, False), (t, True)):
        each.compile(fanin.optimizers.get(opt), "mse", run_eagerly=eager)
        with adapters.rows(each, names):
            each.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        with adapters.rows(each, names[::-1]):
            each.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        adapters.set_active(each, "bob")
        each.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(m.parameters(), t.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_compile_step_and_predict():
    m = make()
    t = copy.deepcopy(m)
    loss = torch.nn.functional.mse_loss
    with adapters.rows(m, NAMES), adapters.rows(t, NAMES):
        pass
    om, ot = [torch.optim.Adam(k.parameters(), 1e-2) for k in (m, t)]
    m(torch.ones(1, 6))
    step = fanin.compile_step(m, loss, om)
    g = torch.Generator().manual_seed(0)
    for k in range(12):
        names = [([*NAMES, None])[i] for i in torch.randint(4, (5,), generator=g).tolist()]
        if not any(names):
            continue
        x, y = torch.randn(5, 6), torch.randn(5, 3)
        with adapters.rows(m, names):
            a = step(x, y)
        t.train()
        with adapters.rows(t, names):
            b = loss(t(x), y)
        ot.zero_grad()
        b.backward()
        ot.step()
        t.eval()
        torch.testing.assert_close(a, b.detach())
    for a, b in zip(m.parameters(), t.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    print(len(step.engine._programs), [v is None for v in step.engine._programs.values()])
    assert all(v is not None for v in step.engine._programs.values())
    x = np.random.randn(4, 6).astype("f")
    for _ in range(3):
        plain = m.predict(x, verbose=0)
        for names in (["ann", "bob", None, "cid"], ["bob", "ann", "cid", None], [None] * 4):
            with adapters.rows(m, names):
                got = m.predict(x, verbose=0)
                want = m(x).detach().numpy()
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(plain, m.predict(x, verbose=0))
    p = fanin.compile_predict(m, x) if hasattr(fanin, "compile_predict") else None
    if p:
        for names in (["ann", "bob", None, "cid"], ["bob", "ann", "cid", None], [None] * 4):
            for _ in range(2):
                with adapters.rows(m, names):
                    np.testing.assert_allclose(p(x), m(x).detach().numpy(), rtol=1e-5, atol=1e-6)
                np.testing.assert_allclose(p(x), m(x).detach().numpy(), rtol=1e-5, atol=1e-6)
