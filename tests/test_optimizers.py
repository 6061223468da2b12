import copy
import functools
import gc
import json
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fanin import optimizers
from fanin.errors import MismatchError
from fanin.optimizers import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, Nadam, RMSprop
from fanin.registry import register_keras_serializable

# Every optimizer in every form of its rule.
KINDS = {
    "sgd": SGD,
    "sgd momentum": functools.partial(SGD, momentum=0.9),
    "sgd nesterov": functools.partial(SGD, momentum=0.9, nesterov=True),
    "adam": Adam,
    "adam amsgrad": functools.partial(Adam, amsgrad=True),
    "adamw": functools.partial(AdamW, weight_decay=0.1),
    "rmsprop": RMSprop,
    "rmsprop all": functools.partial(RMSprop, momentum=0.5, centered=True),
    "nadam": Nadam,
    "adamax": Adamax,
    "adagrad": Adagrad,
    "adadelta": functools.partial(Adadelta, epsilon=0.1),
    "lion": Lion,
    "nadam all": functools.partial(Nadam, weight_decay=0.1, clipnorm=0.5, use_ema=True, ema_momentum=0.5),
    "adam clipnorm": functools.partial(Adam, clipnorm=0.5),
    "adam clipvalue": functools.partial(Adam, clipvalue=0.1),
    "adam global_clipnorm": functools.partial(Adam, global_clipnorm=0.5),
}
EACH = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def weights(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or ((3, 4), (4,), (4, 2), ())
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def gradients(like, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(w.shape, generator=generator).to(w.dtype) for w in like]


def one(optimizer, grads, start=1.0):
    """The weight after each of the gradients, from one number."""
    w = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    found = []
    for g in grads:
        optimizer.apply([torch.tensor(g, dtype=torch.float64)], [w])
        found.append(w.item())
    return found


# --- formulas ---------------------------------------------------------------------------------------------------------

LR = float(np.float32(0.1))


def test_sgd_formula():
    assert one(SGD(0.1), [2.0, -1.0]) == pytest.approx([1 - 2 * LR, 1 - LR])


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_momentum_keeps_the_rate_inside(nesterov):
    optimizer = SGD(0.1, momentum=0.5, nesterov=nesterov)
    w = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    expected, v = 1.0, 0.0
    for rate, g in ((0.1, 2.0), (0.01, -1.0), (0.0, 3.0)):
        optimizer.learning_rate = rate
        optimizer.apply([torch.tensor(g, dtype=torch.float64)], [w])
        step = float(np.float32(rate)) * g
        v = 0.5 * v - step
        expected += 0.5 * v - step if nesterov else v
        assert w.item() == pytest.approx(expected)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_formula(amsgrad):
    grads = [2.0, -1.0, 0.1, 0.0]
    w, m, v, top, expected = 1.0, 0.0, 0.0, 0.0, []
    for t, g in enumerate(grads, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.5 * v + 0.5 * g * g
        top = max(top, v) if amsgrad else v
        w -= LR * math.sqrt(1 - 0.5**t) / (1 - 0.9**t) * m / (math.sqrt(top) + 1e-3)
        expected.append(w)
    assert one(Adam(0.1, beta_2=0.5, epsilon=1e-3, amsgrad=amsgrad), grads) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_formula(momentum, centered):
    grads = [2.0, -1.0, 0.1, 0.0]
    w, v, a, b, expected = 1.0, 0.0, 0.0, 0.0, []
    for g in grads:
        v = 0.9 * v + 0.1 * g * g
        a = 0.9 * a + 0.1 * g
        b = momentum * b + LR * g / math.sqrt((v - a * a if centered else v) + 1e-7)
        w -= b
        expected.append(w)
    optimizer = RMSprop(0.1, momentum=momentum, centered=centered)
    assert one(optimizer, grads) == pytest.approx(expected, rel=1e-12)


def test_centered_rmsprop_survives_a_constant_gradient():
    w = torch.nn.Parameter(torch.zeros(1000))
    optimizer = RMSprop(1e-3, centered=True)
    g = torch.linspace(1e3, 1e5, 1000)
    for _ in range(300):
        optimizer.apply([g], [w])
    assert w.isfinite().all()


def test_weight_decay_comes_after_clipping_and_before_the_step():
    decay = 1 - LR * 0.5
    assert one(SGD(0.1, weight_decay=0.5, clipvalue=1.0), [5.0]) == pytest.approx([decay - LR])
    assert one(AdamW(0.1, weight_decay=0.5), [0.0]) == pytest.approx([decay])


def test_clipping():
    w = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))]
    g = [torch.tensor([3.0, -4.0]), torch.tensor([0.5]), torch.tensor([0.0])]

    def clipped(**options):
        fresh = copy.deepcopy(w)
        SGD(1.0, **options).apply(g, fresh)
        return [(-x).tolist() for x in fresh]

    assert clipped(clipvalue=1.0) == [[1.0, -1.0], [0.5], [0.0]]
    assert clipped(clipnorm=1.0) == [pytest.approx([0.6, -0.8]), [0.5], [0.0]]
    norm = math.sqrt(25.25)
    expected = [3 / norm, -4 / norm]
    found = clipped(global_clipnorm=1.0)
    assert found[0] == pytest.approx(expected)
    assert found[1] == pytest.approx([0.5 / norm])
    assert clipped(global_clipnorm=100.0) == [[3.0, -4.0], [0.5], [0.0]]
    assert [x.tolist() for x in g] == [[3.0, -4.0], [0.5], [0.0]]  # gradients stay as they are


def test_a_global_norm_that_is_not_finite_is_loud():
    w = weights((2,), (2,))
    SGD(global_clipnorm=1.0).apply([torch.tensor([math.inf, 1.0]), torch.ones(2)], w)
    assert all(x.isnan().all() for x in w)


# --- the pure core ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_kernel_is_the_plain_rule(amsgrad, dtype):
    fused, plain = (Adam(0.01, amsgrad=amsgrad) for _ in range(2))
    a, b = weights((300, 40), (7,), (), (0, 3), dtype=dtype), weights((300, 40), (7,), (), (0, 3), dtype=dtype)
    slots_a, slots_b = fused.slots(a), plain.slots(b)
    for t in range(1, 20):
        size = torch.tensor(fused.size(0.01, float(t)), dtype=dtype)
        g = gradients(a, seed=t)
        with torch.no_grad():
            fused.rule(a, g, slots_a, size)
            plain.plain(b, g, slots_b, size)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_betas_that_the_fused_kernel_would_correct_go_the_plain_way():
    slow, grads = Adam(0.1, beta_1=1 - 1e-11, beta_2=1 - 1e-11), [2.0, -1.0]
    w, m, v, expected = 1.0, 0.0, 0.0, []
    for t, g in enumerate(grads, 1):
        b = 1 - 1e-11
        m, v = b * m + (1 - b) * g, b * v + (1 - b) * g * g
        w -= LR * math.sqrt(1 - b**t) / (1 - b**t) * m / (math.sqrt(v) + 1e-7)
        expected.append(w)
    assert one(slow, grads) == pytest.approx(expected, rel=1e-6)


@EACH
def test_a_gradient_or_weight_of_another_layout_gives_the_same(make):
    plain, other = weights((5, 3)), weights((5, 3))
    strided = [torch.nn.Parameter(plain[0].detach().t().contiguous().t())]
    first, second, third = make(), make(), make()
    for t in range(3):
        g = gradients(plain, seed=t)
        first.apply(g, plain)
        second.apply([x.t().contiguous().t() for x in g], other)
        third.apply(g, strided)
    assert not strided[0].is_contiguous()
    torch.testing.assert_close(other, plain)
    torch.testing.assert_close(strided, plain)


def scalars(optimizer, rate, t):
    """Size and decay of step number t, as tensors."""
    return [torch.tensor(value) for value in optimizer.scalars(rate, float(t))]


@EACH
def test_a_trace_under_fake_tensors_is_the_update(make):
    optimizer = make()
    start = [w.detach() for w in weights()]
    slots = [optimizer.init_slots(w) for w in start]
    names = optimizer.slot_names()
    flat = [s[n] for s in slots for n in names]

    def update(weights, flat, g, size, decay):
        dicts = [
            dict(zip(names, flat[i * len(names) : (i + 1) * len(names)], strict=True)) for i in range(len(weights))
        ]
        optimizer.step(weights, g, dicts, size, decay)
        return weights, flat

    traced = make_fx(update, tracing_mode="fake")(start, flat, gradients(start), *scalars(optimizer, 0.01, 1))
    mine = [w.clone() for w in start], [s.clone() for s in flat]
    theirs = [w.clone() for w in start], [s.clone() for s in flat]
    for step in range(1, 5):
        g, of_step = gradients(start, seed=step), scalars(optimizer, 0.01 / step, step)
        update(*mine, g, *of_step)
        traced(*theirs, g, *of_step)
    for x, y in zip(mine[0] + mine[1], theirs[0] + theirs[1], strict=True):
        assert torch.equal(x, y)


@EACH
def test_apply_is_a_step_with_the_numbers_of_each(make):
    optimizer, pure = make(), make()
    a, b = weights(), [w.detach() for w in weights()]
    slots = [pure.init_slots(w) for w in b]
    for t in range(1, 6):
        g = gradients(a, seed=t)
        optimizer.apply(g, a)
        pure.step(b, g, slots, *scalars(pure, pure.learning_rate, t))
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.detach(), y, rtol=1e-6, atol=1e-7)


def test_scalars_are_plain_numbers_from_plain_numbers():
    size, decay = AdamW(weight_decay=0.5).scalars(0.1, 1.0)
    assert (size, decay) == (pytest.approx(0.1 * math.sqrt(1 - 0.999) / (1 - 0.9)), 0.95)
    size, decay = SGD().scalars(0.1, 1.0)
    assert (size, decay) == (0.1, 1.0)


def test_adam_needs_no_digits_lost_at_the_first_step():
    w = torch.nn.Parameter(torch.tensor([0.0]))
    Adam(0.1).apply([torch.tensor([2.0])], [w])
    root = math.sqrt(0.001 * 4)  # of v; the corrections make it 2
    assert w.item() == pytest.approx(-LR * root / (root + 1e-7), rel=3e-7)


# --- parameters and state ---------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(make, dtype):
    w = weights((4, 3), (3,), dtype=dtype)
    optimizer = make(learning_rate=0.01)
    before = [x.detach().clone() for x in w]
    for t in range(3):
        optimizer.apply(gradients(w, seed=t), w)
    for x, y in zip(w, before, strict=True):
        assert x.dtype == dtype
        assert x.isfinite().all()
        assert not torch.equal(x, y)
    assert all(v.dtype == dtype for s in optimizer.slots(w) for v in s.values())


def test_weights_of_several_dtypes_at_once():
    mixed = [*weights((4, 3)), *weights((3,), dtype=torch.float64, seed=3)]
    alone = [copy.deepcopy(mixed[:1]), copy.deepcopy(mixed[1:])]
    optimizer, parts = AdamW(0.01), [AdamW(0.01), AdamW(0.01)]
    for t in range(3):
        g = gradients(mixed, seed=t)
        optimizer.apply(g, mixed)
        parts[0].apply(g[:1], alone[0])
        parts[1].apply(g[1:], alone[1])
    torch.testing.assert_close(mixed[0], alone[0][0])
    torch.testing.assert_close(mixed[1], alone[1][0], rtol=1e-6, atol=1e-7)


def test_gradients_of_another_dtype_and_sparse_ones():
    a, b = weights((4, 2)), weights((4, 2))
    g = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    Adam().apply([g], a)
    Adam().apply([g.double().to_sparse()], b)
    torch.testing.assert_close(a, b)


def test_the_two_lists_may_come_in_either_order_and_no_other_way():
    a, b = weights((3,)), weights((3,))
    g = gradients(a)
    SGD().apply(g, a)
    SGD().apply(b, g)
    torch.testing.assert_close(a, b)
    c = weights((3,))
    assert SGD().apply_gradients(zip(g, c, strict=True)) == 1
    torch.testing.assert_close(a, c)
    with pytest.raises(TypeError, match="neither list holds weights"):
        SGD().apply(g, [torch.zeros(3)])
    with pytest.raises(TypeError, match="both lists hold weights"):
        SGD().apply(a, b)


def test_gradients_that_are_none_are_skipped():
    w = weights((3,), (2,))
    before = w[0].detach().clone()
    optimizer = Adam()
    optimizer.apply([None, torch.ones(2)], w)
    assert torch.equal(w[0], before)
    assert optimizer.iterations == 1
    assert len(optimizer.variables) == 2 + 4
    with pytest.raises(ValueError, match="Every gradient is None"):
        optimizer.apply([None, None], w)
    assert optimizer.iterations == 1


def test_lists_that_do_not_fit():
    w = weights((3,), (2,))
    with pytest.raises(ValueError, match="Found 1 gradients for 2 weights"):
        SGD().apply([torch.ones(3)], w)
    with pytest.raises(ValueError, match=r"gradient of shape \(2,\) for a weight of shape \(3,\)"):
        SGD().apply([torch.ones(2), torch.ones(2)], w)
    with pytest.raises(ValueError, match="does not know its weights"):
        SGD().apply([torch.ones(2)])
    lazy = torch.nn.UninitializedParameter()
    with pytest.raises(ValueError, match="no shape yet"):
        Adam().build([lazy])


def test_slots_stay_with_their_parameter():
    w = weights((3,), (3,))
    optimizer = Adam(0.1)
    optimizer.apply(gradients(w), w)
    kept = [v.clone() for v in optimizer.slots(w[:1])[0].values()]
    for t in range(3):
        optimizer.apply(gradients(w[1:], seed=t), w[1:])  # the first is frozen
    for v, before in zip(optimizer.slots(w)[0].values(), kept, strict=True):
        assert torch.equal(v, before)
    assert optimizer.iterations == 4


def test_slots_go_with_their_parameter():
    optimizer = Adam()
    for seed in range(5):
        w = weights((3,), seed=seed)
        optimizer.apply(gradients(w), w)
    slot = weakref.ref(optimizer.slots(w)[0]["momentum"])
    del w
    optimizer.slots([])
    gc.collect()
    assert slot() is None
    assert len(optimizer._store) == 0


def test_an_optimizer_is_freed_without_a_collection():
    gc.disable()
    try:
        optimizer = Adam()
        w = weights()
        optimizer.apply(gradients(w), w)
        ref = weakref.ref(optimizer)
        del optimizer
        assert ref() is None
    finally:
        gc.enable()


def test_slots_follow_a_module_to_another_dtype():
    layer = torch.nn.Linear(3, 2)
    optimizer = Adam()
    optimizer.apply(gradients(layer.parameters()), list(layer.parameters()))
    before = optimizer.slots(list(layer.parameters()))[0]["momentum"].clone()
    layer.double()
    w = list(layer.parameters())
    torch.testing.assert_close(optimizer.slots(w)[0]["momentum"], before.double())
    optimizer.apply(gradients(w), w)
    with torch.no_grad():
        w[0].data = torch.zeros(5, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"shape \(5, 5\) and its momentum \(2, 3\)"):
        optimizer.slots(w)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@EACH
def test_a_copy_made_with_its_model_goes_on_the_same(make, copier):
    model, optimizer = torch.nn.Linear(3, 2), make()
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias"], module=model)
    optimizer.apply(gradients(model.parameters()), list(model.parameters()))
    twin, theirs = copier((model, optimizer))
    for m, o in ((model, optimizer), (twin, theirs)):
        o.apply(gradients(m.parameters(), seed=9), list(m.parameters()))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    assert theirs.iterations == 2
    assert len(theirs.get_state()) == len(optimizer.get_state())


@EACH
def test_state_goes_out_and_in(make):
    a = weights()
    first = make()
    for t in range(3):
        first.apply(gradients(a, seed=t), a)
    first.learning_rate = 0.05
    b = copy.deepcopy(a)
    second = make()
    second.set_state(b, first.get_state(a))
    assert (second.iterations, second.learning_rate) == (3, first.learning_rate)
    for optimizer, w in ((first, a), (second, b)):
        optimizer.apply(gradients(w, seed=7), w)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


def test_the_state_is_in_the_order_of_keras_files():
    w = weights((3, 2), (2,))
    optimizer = RMSprop(momentum=0.5, centered=True)
    optimizer.build(w)
    state = optimizer.get_state()
    assert [a.shape for a in state] == [(), (), (3, 2), (2,), (3, 2), (2,), (3, 2), (2,)]
    assert [a.dtype.name for a in state[:2]] == ["int32", "float32"]
    slots = optimizer.slots(w)
    expected = [slots[i][n] for n in ("velocity", "momentum", "average_gradient") for i in (0, 1)]
    assert all(a is b for a, b in zip(optimizer.variables[2:], expected, strict=True))
    adam = Adam(amsgrad=True)
    adam.build(w)
    slots = adam.slots(w)
    order = [(0, "momentum"), (0, "velocity"), (1, "momentum"), (1, "velocity"), (0, "velocity_hat")]
    assert all(a is slots[i][n] for a, (i, n) in zip(adam.variables[2:], order, strict=False))
    assert len(SGD().state_tensors(w)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:-1], "has 4 variables, found 3 arrays"),
        (lambda s: [*s, s[0]], "has 4 variables, found 5 arrays"),
        (lambda s: [*s[:-1], np.zeros(4)], r"velocity 0 has shape \(3,\), found an array of shape \(4,\)"),
        (lambda s: [np.array(-1), *s[1:]], "iteration must be a number in"),
        (lambda s: [np.array(1.5), *s[1:]], "iteration must be a whole number"),
        (lambda s: [np.array([1]), *s[1:]], r"iteration has shape \(\)"),
        (lambda s: [s[0], np.array(np.nan), *s[2:]], "learning_rate must be a number in"),
        (lambda s: [*s[:-1], np.array(["a", "b", "c"])], "made of numbers, found an array of <U1"),
        (lambda s: [*s[:-1], torch.zeros(3, dtype=torch.complex64)], "made of real numbers"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    w = weights((3,))
    optimizer = Adam()
    optimizer.apply(gradients(w), w)
    before = optimizer.get_state()
    other = Adam(0.5)
    other.apply(gradients(w, seed=5), w)
    with pytest.raises(ValueError, match=message):
        optimizer.set_state(w, change([a + 1 for a in other.get_state(w)]))
    for a, b in zip(optimizer.get_state(), before, strict=True):
        assert np.array_equal(a, b)


def test_half_precision_state_goes_through_arrays():
    w = weights((3,), dtype=torch.bfloat16)
    optimizer = Adam()
    optimizer.apply(gradients(w), w)
    state = optimizer.get_state()
    assert state[2].dtype == np.float32
    other = Adam()
    other.set_state(w, state)
    assert torch.equal(other.slots(w)[0]["momentum"], optimizer.slots(w)[0]["momentum"])


def test_autograd_notices_a_changed_weight():
    w = weights((3,))[0]
    loss = (w * w).sum()
    Adam().apply([torch.ones(3)], [w])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_weights_that_do_not_decay():
    layer = torch.nn.Linear(2, 2)
    w = list(layer.parameters())
    for options in ({"var_list": [layer.bias]}, {"var_names": ["bi.s"], "module": layer}):
        optimizer = AdamW(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(**options)
        assert optimizer.decays(w) == [True, False]
        before = [x.detach().clone() for x in w]
        optimizer.apply([torch.zeros_like(x) for x in w], w)
        torch.testing.assert_close(w[0].detach(), before[0] * (1 - LR * 0.5))
        assert torch.equal(w[1], before[1])
    with pytest.raises(ValueError, match="needs module="):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match="No parameter of Linear"):
        optimizer.exclude_from_weight_decay(var_names=["gamma"], module=layer)


def test_state_made_in_inference_mode_can_be_used_outside():
    w = weights((3,))
    optimizer = Adam()
    with torch.inference_mode():
        optimizer.build(w)
        optimizer.apply(gradients(w), w)
    optimizer.apply([torch.ones(3)], w)
    assert not optimizer.slots(w)[0]["momentum"].is_inference()
    (w[0] * w[0]).sum().backward()


# --- the learning rate ------------------------------------------------------------------------------------------------


def test_the_learning_rate_is_a_float32():
    optimizer = Adam(0.001)
    assert optimizer.learning_rate == 0.0010000000474974513
    optimizer.learning_rate = np.float64(0.3)
    assert optimizer.learning_rate == float(np.float32(0.3))
    optimizer.learning_rate = torch.tensor(1)
    assert optimizer.learning_rate == 1.0


def test_a_rate_of_zero_trains_nothing():
    for make in KINDS.values():
        w = weights()
        before = [x.detach().clone() for x in w]
        make(learning_rate=0.0).apply(gradients(w), w)
        torch.testing.assert_close([x.detach() for x in w], before, rtol=0, atol=0)


def test_schedules_get_the_number_of_updates():
    class Halving:
        def __call__(self, step):
            return 0.5**step

    for schedule in (Halving(), lambda step: torch.tensor(0.5) ** step):
        optimizer = SGD(schedule)
        assert one(optimizer, [1.0, 1.0, 1.0]) == pytest.approx([0.0, -0.5, -0.75])
        assert (optimizer.learning_rate, optimizer.has_schedule) == (0.125, True)
        assert len(optimizer.state_tensors(weights())) == 1
    rates = iter([0.5, 0.25])
    assert one(SGD(lambda: next(rates)), [1.0, 1.0]) == pytest.approx([0.5, 0.25])
    optimizer.learning_rate = 0.5
    assert (optimizer.learning_rate, optimizer.has_schedule) == (0.5, False)


def test_a_schedule_that_goes_wrong_stops_the_step():
    optimizer = SGD(lambda step: float("nan"))
    w = weights()
    before = [x.detach().clone() for x in w]
    with pytest.raises(ValueError, match=r"learning_rate must be a number in .* found nan"):
        optimizer.apply(gradients(w), w)
    assert optimizer.iterations == 0
    assert all(torch.equal(a, b) for a, b in zip(w, before, strict=True))


# --- arguments, names, configs ----------------------------------------------------------------------------------------

EVERY = [SGD, Adam, AdamW, RMSprop, Nadam, Adamax, Adagrad, Adadelta, Lion]
BAD = [float("nan"), float("inf"), -0.1, "0.1", True, [0.1, 0.2]]


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize(
    ("cls", "name"),
    [
        *[(cls, "learning_rate") for cls in EVERY],
        *[(SGD, n) for n in ("momentum", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "ema_momentum")],
        *[(Adam, n) for n in ("beta_1", "beta_2", "epsilon")],
        *[(RMSprop, n) for n in ("rho", "momentum", "epsilon")],
        *[(cls, n) for cls in (Nadam, Adamax) for n in ("beta_1", "beta_2", "epsilon")],
        *[(Adagrad, n) for n in ("initial_accumulator_value", "epsilon")],
        *[(Adadelta, n) for n in ("rho", "epsilon")],
        *[(Lion, n) for n in ("beta_1", "beta_2")],
        (AdamW, "weight_decay"),
    ],
)
def test_bad_numbers_are_named(cls, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be a number.*found "):
        cls(**{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(beta_1=1.0), r"beta_1 must be a number in \[0, 1\), found 1.0"),
        (lambda: Adam(beta_2=1.0), "beta_2"),
        (lambda: RMSprop(rho=1), "rho"),
        (lambda: SGD(momentum=1.1), r"momentum must be a number in \[0, 1\], found 1.1"),
        (lambda: SGD(clipnorm=0), r"clipnorm must be a number in \(0, inf\), found 0"),
        (lambda: SGD(clipnorm=1, clipvalue=2), r"Only one of .* found clipnorm=1.0, clipvalue=2.0"),
        (lambda: SGD(nesterov=1), "nesterov must be True or False, found 1"),
        (lambda: SGD(lr=0.1), "SGD does not know the argument 'lr'. The rate is learning_rate."),
        (lambda: Adam(decay=1e-6), "does not know the argument 'decay'. A rate that falls is a schedule"),
        (lambda: AdamW(weight_decay=None), "AdamW: weight_decay must be a number, found None"),
        (lambda: setattr(SGD(), "learning_rate", -1), "learning_rate must be"),
        (lambda: setattr(SGD(), "iterations", -1), "iterations must be a whole number"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("cls", EVERY)
def test_names_classes_instances_configs(cls):
    name = cls.__name__
    for identifier in (name, name.lower(), name.upper(), cls):
        assert type(optimizers.get(identifier)) is cls
    optimizer = cls(0.5, name="mine", clipnorm=2.0)
    assert optimizers.get(optimizer) is optimizer
    form = json.loads(json.dumps(optimizers.serialize(optimizer)))
    assert (form["module"], form["class_name"], form["registered_name"]) == ("keras.optimizers", name, None)
    for config in (form, {**form, "class_name": name.lower()}, {"class_name": name, "config": form["config"]}):
        again = optimizers.get(config)
        assert type(again) is cls
        assert again.get_config() == optimizer.get_config()


def test_configs_that_keras_writes_on_torch_are_read():
    inner = {"module": "keras.src.backend.torch.optimizers.torch_rmsprop", "class_name": "RMSprop", "config": {}}
    assert type(optimizers.deserialize({**inner, "registered_name": "RMSprop"})) is RMSprop


def test_schedules_are_saved_when_they_are_known():
    @register_keras_serializable("tests")
    class Slower:
        def __init__(self, start):
            self.start = start

        def __call__(self, step):
            return self.start / (1 + step)

        def get_config(self):
            return {"start": self.start}

    form = json.loads(json.dumps(optimizers.serialize(SGD(Slower(0.5)))))
    assert optimizers.deserialize(form).learning_rate == 0.5
    with pytest.raises(ValueError, match="Cannot save a lambda"):
        optimizers.serialize(SGD(lambda step: 0.1))


def test_an_own_optimizer_needs_its_rule_and_slots_only():
    @register_keras_serializable("tests")
    class Signs(optimizers.Optimizer):
        groups = [["seen"]]

        def rule(self, weights, gradients, slots, size):
            for w, g, s in zip(weights, gradients, slots, strict=True):
                s["seen"].add_(1)
                w.sub_(g.sign() * size)

    optimizer = optimizers.get(
        {"class_name": "Signs", "registered_name": "tests>Signs", "config": {"learning_rate": 1}}
    )
    assert one(optimizer, [3.0, -0.2]) == [0.0, 1.0]
    assert type(optimizer) is Signs
    with pytest.raises(NotImplementedError, match="Optimizer does not define rule"):
        optimizers.Optimizer(0.1).apply([torch.ones(1)], weights((1,)))


def test_what_is_no_optimizer():
    with pytest.raises(ValueError, match=r"Unknown optimizer 'adamm'.*'adam'"):
        optimizers.get("Adamm")
    for identifier in (5, len):
        with pytest.raises(TypeError, match="Could not interpret optimizer identifier"):
            optimizers.get(identifier)
    with pytest.raises(MismatchError, match="Unknown class 'Ftrl'"):
        optimizers.deserialize({"module": "keras.optimizers", "class_name": "Ftrl", "config": {}})
    assert optimizers.get(None) is None


def test_torch_optimizers_pass_through():
    w = weights()
    instance = torch.optim.SGD(w, lr=0.1)
    for identifier in (instance, torch.optim.Adam, functools.partial(torch.optim.Adam, lr=0.1)):
        assert optimizers.is_torch(identifier)
        assert optimizers.get(identifier) is identifier
    for identifier in (None, "adam", Adam, Adam(), functools.partial(Adam), len, {}):
        assert not optimizers.is_torch(identifier)


def test_names_are_unique():
    assert [Adam().name, Adam().name, RMSprop().name, AdamW().name] == ["adam", "adam_1", "rm_sprop", "adam_w"]
    assert repr(Adam(name="a")) == "<Adam name='a' iterations=0>"
