"""Compiled steps inside `fit`: against eager steps and float64 runs, after changes, and where they cannot be."""

import copy
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import fanin
import fanin.program.run
from fanin import constraints, layers, optimizers
from fanin.layers import BatchNormalization, Concatenate, Dense, Dropout, Embedding, GaussianNoise, LayerNormalization
from fanin.program.passes import PASSES
from fanin.program.passes.biases import sum_rows_by_product
from fanin.program.passes.cross_entropy import simplify_cross_entropy
from fanin.training import engine as engine_module

REWRITES = (sum_rows_by_product, simplify_cross_entropy)  # these change the arithmetic
EXACT = tuple(one for one in PASSES if one not in REWRITES)
RANDOM = {
    "derandomize": True,
    "deadline": None,
    "phases": [Phase.generate],
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
ROWS, BATCH = 10, 4  # the last batch has 2 rows


@pytest.fixture
def exact(monkeypatch):
    """Programs without the passes that change the arithmetic."""
    monkeypatch.setattr(fanin.program.run, "PASSES", EXACT)


def programs(model):
    """The programs of a model; all its steps were compiled."""
    found = list(model._compiled_with.engine._programs.values())
    assert found
    assert None not in found
    return found


def close_to_nothing(model):
    """All that training may change: weights, and the state of the optimizer."""
    return [one.detach().clone() for one in [*model.parameters(), *model.buffers()]]


def same_bits(one, two):
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second), (first, second)
        assert first.grad is None
        assert not first.is_inference()
    for first, second in zip(one.buffers(), two.buffers(), strict=True):
        assert torch.equal(first, second), (first, second)
    a, b = one.optimizer, two.optimizer
    if isinstance(a, optimizers.Optimizer):
        assert (a.iterations, a._iterations) == (b.iterations, b._iterations)
        for x, y in zip(a.get_state(list(one.parameters())), b.get_state(list(two.parameters())), strict=True):
            np.testing.assert_array_equal(x, y)


# --- random models --------------------------------------------------------------------------------------------


class Gate(layers.Layer):
    """A layer of one's own: weights with a regularizer, a buffer that it changes, and an added loss."""

    def build(self, input_shape):
        self.scale = self.add_weight(
            "scale", (input_shape[-1],), initializer="ones", regularizer="l2", constraint="non_neg"
        )
        self.seen = self.add_weight("seen", (), initializer="zeros", trainable=False)
        super().build(input_shape)

    def call(self, x, training=False):
        if training:
            with torch.no_grad():
                self.seen.add_(x.detach().float().mean().to(self.seen.dtype))
        y = x * self.scale
        self.add_loss(0.01 * (y * y).mean())
        return torch.where(y > 0, y, 0.2 * y)


class Pool(layers.Layer):
    """The mean over the time steps that a mask leaves."""

    def call(self, x, mask=None):
        if mask is None:
            return x.mean(1)
        kept = mask.to(x.dtype)[..., None]
        return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


def bent(x):
    return x * torch.sigmoid(1.5 * x)


def quartic(w):
    return 0.01 * w.pow(4).sum()


def boxed(w):
    return w.clamp(-0.6, 0.6)


def log_cosh(y, p):
    return torch.log(torch.cosh(p - y)).mean(-1)


def random_model(seed, draws):
    """A functional model of features (6,) and tokens (3,); with `draws`, layers that take random numbers."""
    rng = random.Random(seed)
    features, tokens = fanin.Input((6,), name="features"), fanin.Input((3,), dtype="int64", name="tokens")

    def dense(units, **options):
        more = {
            "activation": rng.choice(["relu", "tanh", "sigmoid", "gelu", "softmax", None, bent]),
            "kernel_regularizer": rng.choice([None, None, "l2", "l1", quartic]),
            "bias_regularizer": rng.choice([None, None, "l2"]),
            "activity_regularizer": rng.choice([None, None, "l2", "l1"]),
            "kernel_constraint": rng.choice(
                [None, None, "max_norm", "unit_norm", constraints.MinMaxNorm(0.1, 1.0), boxed]
            ),
            "bias_constraint": rng.choice([None, None, "non_neg"]),
            "use_bias": rng.random() < 0.8,
        }
        return Dense(units, **{**more, **options})

    def between(h):
        for _ in range(rng.randint(0, 2)):
            kinds = [
                LayerNormalization,
                Gate,
                lambda: BatchNormalization(momentum=0.8),
                lambda: layers.TorchModule(nn.GELU()),
            ]
            if draws:
                kinds += [
                    lambda: Dropout(0.3),
                    lambda: Dropout(0.4, seed=4),
                    lambda: GaussianNoise(0.1),
                    lambda: layers.TorchModule(nn.Dropout(0.2)),
                    lambda: GaussianNoise(0.2, seed=2),
                    lambda: Dropout(0.5, noise_shape=(None, 1)),
                ]
            h = rng.choice(kinds)()(h)
        return h

    h = between(dense(5)(features))
    if rng.random() < 0.6:
        table = Embedding(4, 3, mask_zero=rng.random() < 0.5, embeddings_regularizer=rng.choice([None, "l2"]))
        h = Concatenate()([h, Pool()(table(tokens))])
    else:
        h = Concatenate()([h, layers.Rescaling(0.1)(tokens)])
    h = between(dense(5)(h))
    classes = rng.random() < 0.5
    out = Dense(3, "softmax")(h) if classes else dense(1, activation=None)(h)
    model = fanin.Model([features, tokens], out)
    loss = "sparse_categorical_crossentropy" if classes else rng.choice(["mse", "huber", log_cosh, "mae"])
    return model, loss, (["accuracy"] if classes else ["mae"])


def random_optimizer(seed):
    rng = random.Random(seed)
    kind, options = rng.choice(
        [
            ("SGD", {}),
            ("SGD", {"momentum": 0.9}),
            ("SGD", {"momentum": 0.5, "nesterov": True}),
            ("RMSprop", {}),
            ("RMSprop", {"centered": True, "momentum": 0.5}),
            ("Adam", {}),
            ("Adam", {"amsgrad": True}),
            ("AdamW", {}),
            ("Nadam", {}),
            ("Adamax", {}),
            ("Adagrad", {}),
            ("Adadelta", {}),
            ("Lion", {}),
        ]
    )
    options = dict(options)
    schedules = optimizers.schedules
    options["learning_rate"] = rng.choice(
        [0.05, 0.01, schedules.ExponentialDecay(0.05, 2, 0.5), schedules.CosineDecay(0.05, 4)]
    )
    options |= rng.choice([{}, {}, {"clipnorm": 0.1}, {"clipvalue": 0.05}, {"global_clipnorm": 0.2}])
    if rng.random() < 0.3:
        options["weight_decay"] = 0.1
    if rng.random() < 0.3:
        options |= {"use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": rng.choice([None, 2])}
    if rng.random() < 0.3:
        options["gradient_accumulation_steps"] = rng.choice([2, 3])
    multipliers = {"*/bias": 2.0, "dense*": 0.5} if rng.random() < 0.2 else None
    return lambda: getattr(optimizers, kind)(**options), multipliers


def random_data(seed, classes):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(ROWS, 6)).astype("float32"), rng.integers(0, 4, size=(ROWS, 3))]
    y = rng.integers(0, 3, size=ROWS) if classes else rng.normal(size=(ROWS, 1)).astype("float32")
    return x, y, (rng.random(ROWS).astype("float32") if seed % 3 == 0 else None)


def trained(seed, policy, run_eagerly, draws, start=None, epochs=2):
    """A random model after two epochs, its history, and the weights that it began with."""
    fanin.config.clear_session()
    fanin.config.set_dtype_policy(policy)
    fanin.utils.set_random_seed(seed % 1000)
    model, loss, metrics = random_model(seed, draws)
    optimizer, multipliers = random_optimizer(seed)
    x, y, weight = random_data(seed, loss == "sparse_categorical_crossentropy")
    model([one[:2] for one in x])
    if start is not None:
        model.set_weights(start)
    start = model.get_weights()
    model.compile(optimizer(), loss, metrics=metrics, run_eagerly=run_eagerly, learning_rate_multipliers=multipliers)
    fanin.utils.set_random_seed(7)
    history = model.fit(x, y, sample_weight=weight, batch_size=BATCH, epochs=epochs, validation_data=(x, y), verbose=0)
    if not run_eagerly:
        assert len(programs(model)) >= 4  # two sizes, in training and in evaluation
    return model, history.history, start


def compare_bits(seed, policy):
    one, logs, start = trained(seed, policy, False, draws=True)
    two, expected, _ = trained(seed, policy, True, draws=True, start=start)
    same_bits(one, two)
    assert logs == expected


@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_bfloat16"])
@settings(**RANDOM, max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_compiled_steps_give_the_bits_of_eager_ones(policy, seed, exact):
    compare_bits(seed, policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_bfloat16"])
@settings(**RANDOM, max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_many_compiled_steps_give_the_bits_of_eager_ones(policy, seed, exact):
    compare_bits(seed, policy)


def flat(model):
    return torch.cat([one.detach().double().flatten() for one in [*model.parameters(), *model.buffers()]])


def compare_distances(seed, policy):
    one, _, start = trained(seed, policy, False, draws=False)
    two, _, _ = trained(seed, policy, True, draws=False, start=start)
    exact, _, _ = trained(seed, "float64", True, draws=False, start=[w.astype("float64") for w in start])
    near(flat(one), flat(two), flat(exact), torch.finfo(torch.bfloat16 if "16" in policy else torch.float32).eps)


def near(one, two, exact, eps):
    """Both are about equally far from float64: not twice as far as the other, but for a few roundings."""
    floor = 4 * eps * exact.norm()
    first, second = (one - exact).norm(), (two - exact).norm()
    assert first <= 2 * second + floor, (first, second, floor)
    assert second <= 2 * first + floor, (first, second, floor)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@settings(**RANDOM, max_examples=4)
@given(seed=st.integers(0, 2**32))
def test_compiled_steps_are_as_near_to_float64_as_eager_ones(policy, seed):
    compare_distances(seed, policy)


@pytest.mark.slow
@settings(**RANDOM, max_examples=400)
@given(seed=st.integers(0, 2**32))
def test_many_compiled_steps_are_as_near_to_float64_as_eager_ones(seed):
    compare_distances(seed, "float32")


# --- torch's optimizers ---------------------------------------------------------------------------------------

TORCH = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "maximize": lambda p: torch.optim.SGD(p, lr=0.01, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "adam with decay": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1, betas=(0.8, 0.9)),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.2),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.02, amsgrad=True, eps=1e-3),
    "fused": lambda p: torch.optim.Adam(p, lr=0.02, fused=True),
    "foreach": lambda p: torch.optim.Adam(p, lr=0.02, foreach=True),
    "two groups": lambda p: torch.optim.SGD([{"params": p[:1], "lr": 0.5}, {"params": p[1:], "momentum": 0.5}], lr=0.1),
    "two groups of adamw": lambda p: torch.optim.AdamW(
        [{"params": p[2:], "weight_decay": 0.0}, {"params": p[:2], "betas": (0.5, 0.9)}], lr=0.01
    ),
    "rate as a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.02)),
}


def simple(policy="float32", rate=0.3, start=None):
    fanin.config.set_dtype_policy(policy)
    model = fanin.Sequential([fanin.Input((6,)), Dense(5, "tanh"), Dropout(rate), Dense(3, "softmax")])
    if start is not None:
        model.set_weights(start)
    fanin.config.set_dtype_policy(None)
    return model


def rows(seed=0, count=ROWS):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6)).astype("float32"), rng.integers(0, 3, size=count)


def by_torch(make, run_eagerly, policy="float32", start=None):
    model = simple(policy, 0.0, start)
    start = model.get_weights()
    model.compile(make(list(model.parameters())), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
    model.fit(*rows(), batch_size=BATCH, epochs=3, shuffle=False, verbose=0)
    return model, start


def tensors_of(state):
    return {
        (place, name): value
        for place, slots in state["state"].items()
        for name, value in slots.items()
        if isinstance(value, torch.Tensor)
    }


@pytest.mark.parametrize("name", TORCH)
def test_optimizers_of_torch(name):
    one, start = by_torch(TORCH[name], False)
    two, _ = by_torch(TORCH[name], True, start=start)
    exact, _ = by_torch(TORCH[name], True, "float64", [w.astype("float64") for w in start])
    programs(one)
    near(flat(one), flat(two), flat(exact), torch.finfo(torch.float32).eps)
    found, expected = one.optimizer.state_dict(), two.optimizer.state_dict()
    assert str(found["param_groups"]) == str(expected["param_groups"])
    assert {place: list(slots) for place, slots in found["state"].items()} == {
        place: list(slots) for place, slots in expected["state"].items()
    }
    slots = tensors_of(expected)
    for key, value in tensors_of(found).items():
        assert (value.dtype, value.shape, value.device) == (slots[key].dtype, slots[key].shape, slots[key].device), key
        torch.testing.assert_close(value, slots[key], rtol=1e-4, atol=1e-6)
    assert [w.grad for w in one.parameters()] == [None] * 4


def test_state_of_a_torch_optimizer_can_be_loaded_and_goes_on():
    one, _ = by_torch(TORCH["momentum"], False)
    twin = copy.deepcopy(one)
    state = copy.deepcopy(one.optimizer.state_dict())  # torch would share the tensors
    twin.compile(TORCH["momentum"](list(twin.parameters())), "sparse_categorical_crossentropy")
    twin.optimizer.load_state_dict(state)
    for model in (one, twin):
        model.fit(*rows(1), batch_size=BATCH, shuffle=False, verbose=0)
    for first, second in zip(one.parameters(), twin.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.RMSprop(p, lr=0.01), lambda p: torch.optim.LBFGS(p, max_iter=3)]
)
def test_other_optimizers_of_torch_run_eagerly_and_do_not_warn(make):
    one, start = by_torch(make, False)
    two, _ = by_torch(make, True, start=start)
    assert torch.equal(flat(one), flat(two))


def test_a_torch_optimizer_with_hooks_runs_its_hooks():
    seen = []

    def make(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_post_hook(lambda *given: seen.append(1))
        return optimizer

    by_torch(make, False)
    assert len(seen) == 9


def test_schedulers_of_torch_do_not_warn():
    model = simple()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(*rows(), epochs=2, callbacks=[scheduler], verbose=0)
    programs(model)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    model.train_on_batch(*rows())
    scheduler.step()


# --- random layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dropout(0.5),
        lambda: Dropout(0.5, seed=3),
        lambda: GaussianNoise(0.5),
        lambda: GaussianNoise(0.5, seed=3),
        lambda: nn.Dropout(0.5),
        lambda: Dropout(0.5, noise_shape=(None, 1)),
        lambda: nn.AlphaDropout(0.5),
    ],
)
def test_random_layers_draw_what_they_draw_eagerly_and_anew_in_each_step(make):
    runs = []
    x, y = rows(count=4)
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(1)
        model = fanin.Sequential([fanin.Input((6,)), Dense(50), make(), Dense(3, "softmax")])
        model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        fanin.utils.set_random_seed(2)
        runs.append([model.train_on_batch(x, y) for _ in range(4)])
        if not run_eagerly:
            programs(model)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 4  # the weights stay: only the draws differ


# --- changes between steps ------------------------------------------------------------------------------------


def network():
    return fanin.Sequential(
        [
            fanin.Input((6,)),
            Dense(8, "tanh", name="first"),
            Dropout(0.2, name="thinned"),
            nn.Dropout(0.1),
            BatchNormalization(momentum=0.5, name="normal"),
            Dense(8, "relu", name="second", kernel_regularizer="l2"),
            Dense(3, "softmax", name="last"),
        ]
    )


class Twins:
    """A model trained compiled and one trained eagerly, from the same weights."""

    def __init__(self, optimizer, make=network, loss="sparse_categorical_crossentropy"):
        self.models = [make(), make()]
        self.models[1].set_weights(self.models[0].get_weights())
        for model, run_eagerly in zip(self.models, (False, True), strict=True):
            model.compile(optimizer(model), loss, run_eagerly=run_eagerly)

    def step(self, count=2, seed=0):
        found = []
        for model in self.models:
            fanin.utils.set_random_seed(5)
            found.append([model.train_on_batch(*rows(seed + i, 4)) for i in range(count)])
        assert found[0] == found[1]
        same_bits(*self.models)
        return found[0]

    def change(self, function):
        for model in self.models:
            fanin.utils.set_random_seed(6)
            function(model)


def halve(model):
    model.set_weights([w / 2 for w in model.get_weights()])


def assign(model):
    state = {name: value.detach().clone() / 2 for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def double(model):
    model.double()


def freeze(model):
    model.get_layer("first").trainable = False


def forward_hook(model):
    model.get_layer("second").register_forward_hook(lambda layer, given, found: found * 0.5)


def pre_hook(model):
    model.get_layer("second").register_forward_pre_hook(lambda layer, given: (given[0] * 0.5,))


def shift(model):
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)


def new_data(model):
    for weight in model.parameters():
        weight.data = weight.data.clone() * 0.5


def use(model):
    model(torch.ones(2, 6), training=True).sum().backward()
    assert model.layers[0].kernel.grad is not None
    for weight in model.parameters():
        weight.grad = None


def attribute(path, value):
    def change(model):
        *owners, name = path.split(".")
        owner = model.optimizer if owners == ["optimizer"] else model.get_layer(owners[0])
        setattr(owner, name, value)

    return change


def add_layer(model):
    model.add(Dense(3, "softmax", kernel_initializer="identity"))


def pop_layer(model):
    layer = model.layers[-1]
    model.pop()
    model.add(layer)


def torch_dropout(model):
    for part in model.modules():
        if type(part) is nn.Dropout:
            part.p = 0.9


def regularize(model):
    fanin.regularize(model.get_layer("first"), {"kernel": "l2"})


def constrain(model):
    fanin.constrain(model.get_layer("first"), {"kernel": "unit_norm"})


def exclude(model):
    model.optimizer.exclude_from_weight_decay(list(model.get_layer("first").parameters()))


def recompile(model):
    model.compile(model.optimizer, "sparse_categorical_crossentropy", run_eagerly=model._compiled_with.run_eagerly)


def reset_count(model):
    model.optimizer.iterations = 0


def low_rank(model):
    model.get_layer("first").enable_lora(2, a_initializer="ones", b_initializer="ones")


def normed_weight(model):
    torch.nn.utils.parametrizations.weight_norm(model.get_layer("second"), "kernel")


def add_global_loss(model):
    model.add_loss(lambda: 0.1 * model.get_layer("first").kernel.pow(2).sum())


CHANGES = {
    "learning rate": attribute("optimizer.learning_rate", 0.5),
    "schedule": attribute("optimizer.learning_rate", optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)),
    "clipnorm": attribute("optimizer.clipnorm", 0.001),
    "weight decay": attribute("optimizer.weight_decay", 0.9),
    "momentum": attribute("optimizer.momentum", 0.1),
    "count of steps": reset_count,
    "frozen": freeze,
    "frozen normalization": lambda model: setattr(model.get_layer("normal"), "trainable", False),
    "frozen by torch": lambda model: model.get_layer("first").kernel.requires_grad_(False),
    "set_weights": halve,
    "assigned": assign,
    "double": double,
    "changed in place": shift,
    "new data": new_data,
    "used eagerly": use,
    "rate of dropout": attribute("thinned.rate", 0.9),
    "no dropout": attribute("thinned.rate", 0.0),
    "dropout of torch": torch_dropout,
    "activation": attribute("first.activation", torch.relu),
    "momentum of averages": attribute("normal.momentum", 0.1),
    "epsilon": attribute("normal.epsilon", 0.5),
    "another layer": add_layer,
    "popped and added": pop_layer,
    "hook": forward_hook,
    "hook before": pre_hook,
    "regularizer": regularize,
    "constraint": constrain,
    "added loss": add_global_loss,
    "compiled again": recompile,
    "low rank": low_rank,
    "parametrized": normed_weight,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_take_effect_at_the_next_step(name, exact):
    twins = Twins(lambda model: optimizers.SGD(0.1, momentum=0.5, weight_decay=0.01))
    twins.step()
    programs(twins.models[0])
    twins.change(CHANGES[name])
    twins.step(seed=2)
    twins.step(seed=4)
    programs(twins.models[0])


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("Adam", "beta_1", 0.1),
        ("Adam", "beta_2", 0.5),
        ("Adam", "epsilon", 0.5),
        ("Adam", "amsgrad", False),
        ("SGD", "nesterov", True),
        ("RMSprop", "rho", 0.1),
        ("Lion", "beta_1", 0.1),
        ("Adam", "clipvalue", 0.001),
        ("Adam", "global_clipnorm", 0.001),
        ("Adam", "ema_momentum", 0.1),
        ("Adam", "ema_overwrite_frequency", 1),
    ],
)
def test_changed_options_of_an_optimizer_take_effect_at_the_next_step(kind, name, value, exact):
    more = {"amsgrad": True} if name == "amsgrad" else {"momentum": 0.9} if kind == "SGD" else {}
    more |= {"use_ema": True} if "ema" in name else {}
    twins = Twins(lambda model: getattr(optimizers, kind)(0.05, **more))
    twins.step()
    twins.change(attribute(f"optimizer.{name}", value))
    twins.step(seed=2)
    programs(twins.models[0])


def test_decay_that_is_excluded_takes_effect(exact):
    twins = Twins(lambda model: optimizers.AdamW(0.1, weight_decay=0.5))
    twins.change(exclude)
    twins.step()
    programs(twins.models[0])


def test_freezing_and_thawing_keeps_the_optimizers_state(exact):
    twins = Twins(lambda model: optimizers.Adam(0.05))
    for trainable in (True, False, True):
        twins.change(lambda model, t=trainable: setattr(model.get_layer("first"), "trainable", t))
        before = twins.models[0].get_layer("first").kernel.detach().clone()
        twins.step()
        assert torch.equal(before, twins.models[0].get_layer("first").kernel) is not trainable


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.5},
        {"momentum": 0.1},
        {"weight_decay": 0.5},
        {"nesterov": False},
        {"maximize": True},
        {"dampening": 0.1, "nesterov": False},
    ],
)
def test_changed_groups_of_torch_take_effect(change):
    twins = Twins(
        lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True), lambda: simple(rate=0.0)
    )
    for _ in range(2):
        for model in twins.models:
            model.train_on_batch(*rows(count=4))
    twins.change(lambda model: model.optimizer.param_groups[0].update(change))
    for model in twins.models:
        model.train_on_batch(*rows(count=4))
    programs(twins.models[0])
    torch.testing.assert_close(flat(twins.models[0]), flat(twins.models[1]), rtol=1e-5, atol=1e-6)


def test_a_changed_beta_of_torch_takes_effect():
    twins = Twins(lambda model: torch.optim.Adam(model.parameters(), lr=0.1), lambda: simple(rate=0.0))
    for betas in ((0.9, 0.999), (0.1, 0.5)):
        twins.change(lambda model, b=betas: model.optimizer.param_groups[0].update(betas=b))
        for model in twins.models:
            model.train_on_batch(*rows(count=4))
    torch.testing.assert_close(flat(twins.models[0]), flat(twins.models[1]), rtol=1e-5, atol=1e-6)


def test_a_group_added_to_a_torch_optimizer_takes_effect():
    twins = Twins(lambda model: torch.optim.SGD(list(model.parameters())[:2], lr=0.1), lambda: simple(rate=0.0))
    for add in (False, True):
        if add:
            twins.change(
                lambda model: model.optimizer.add_param_group({"params": list(model.parameters())[2:], "lr": 0.5})
            )
        for model in twins.models:
            model.train_on_batch(*rows(count=4))
    torch.testing.assert_close(flat(twins.models[0]), flat(twins.models[1]), rtol=1e-5, atol=1e-6)


def test_changes_by_callbacks_within_an_epoch(exact):
    class Change(fanin.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.1 / (epoch + 1)
            self.model.get_layer("thinned").rate = 0.1 * epoch
            self.model.get_layer("first").trainable = epoch != 1

        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.1 / (batch + 1)
            self.model.get_layer("thinned").rate = 0.2 * batch
            self.model.get_layer("second").trainable = batch != 1

    twins = Twins(lambda model: optimizers.SGD(0.1))
    histories = []
    for model in twins.models:
        fanin.utils.set_random_seed(5)
        histories.append(model.fit(*rows(), batch_size=BATCH, epochs=3, callbacks=[Change()], verbose=0).history)
    assert histories[0] == histories[1]
    same_bits(*twins.models)
    programs(twins.models[0])


def test_a_callback_that_changes_the_model_after_a_batch(exact):
    class Change(fanin.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            halve(self.model)
            self.model.get_layer("normal").trainable = batch == 0

    twins = Twins(lambda model: optimizers.SGD(0.1))
    for model in twins.models:
        fanin.utils.set_random_seed(5)
        model.fit(*rows(), batch_size=BATCH, callbacks=[Change()], verbose=0)
    same_bits(*twins.models)


def test_autocast_of_the_caller_counts(exact):
    twins = Twins(lambda model: optimizers.SGD(0.1))
    twins.step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        twins.step(count=1)  # torch keeps what it has cast until autocast ends
    twins.step()


def test_copies_and_pickles_go_on_by_themselves(exact):
    twins = Twins(lambda model: optimizers.Adam(0.05))
    twins.step()
    for again in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
        others = [again(model) for model in twins.models]
        before = close_to_nothing(twins.models[0])
        found = []
        for model in others:
            fanin.utils.set_random_seed(5)
            found.append([model.train_on_batch(*rows(i, 4)) for i in range(2)])
        assert found[0] == found[1]
        same_bits(*others)
        assert all(torch.equal(one, two) for one, two in zip(before, close_to_nothing(twins.models[0]), strict=True))
        programs(others[0])


def test_autograd_notices_that_a_step_changed_its_weights():
    for optimizer in (optimizers.SGD(0.1), torch.optim.SGD):
        model = simple()
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.train_on_batch(*rows())
        kept = (model.layers[0].kernel ** 2).sum()
        version = model.layers[0].kernel._version
        model.train_on_batch(*rows())
        programs(model)
        assert model.layers[0].kernel._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            kept.backward()


# --- what cannot be traced ------------------------------------------------------------------------------------


class SameShape(layers.Layer):
    def compute_output_shape(self, input_shape):
        return input_shape


class Branches(SameShape):
    def call(self, x):
        if x.mean() > 0:
            return x * 2
        return x


class ByNumpy(SameShape):
    def call(self, x):
        return x * float(np.abs(x.detach().numpy()).max())


class ByItem(SameShape):
    def call(self, x):
        return x * x.detach().std().item()


class Counts(SameShape):
    calls = 0

    def call(self, x):
        self.calls += 1
        return x * self.calls


class Keeps(SameShape):
    last = None

    def call(self, x):
        y = x if self.last is None or self.last.shape != x.shape else x + 0.1 * self.last
        self.last = x.detach()
        return y


class Collects(SameShape):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.__dict__["seen"] = []

    def call(self, x):
        self.seen.append(float(x.detach().mean()))
        return x + len(self.seen)


class Updates(SameShape):
    def build(self, input_shape):
        self.total = self.add_weight("total", (), initializer="zeros", trainable=False)
        super().build(input_shape)

    def call(self, x):
        mean = x.detach().mean()
        self.add_update(lambda: self.total.add_(mean))
        return x + self.total


class Plain(nn.Module):
    def forward(self, x):
        return x if bool((x > 0).any()) else -x


class AroundPlain(fanin.Model):
    def __init__(self):
        super().__init__()
        self.one, self.plain, self.two = Dense(5), Plain(), Dense(3, "softmax")

    def call(self, x):
        return self.two(self.plain(self.one(x)))


@pytest.mark.parametrize("kind", [Branches, ByNumpy, ByItem, Counts, Keeps, Collects, Updates, Plain])
def test_what_cannot_be_traced_runs_eagerly_and_says_so_once(kind):
    x, y = rows()

    def make():
        if kind is Plain:
            model = AroundPlain()
            model(x)
            return model
        return fanin.Sequential([fanin.Input((6,)), Dense(5, "tanh"), kind(name="culprit"), Dense(3, "softmax")])

    made = make(), make()
    made[1].set_weights(made[0].get_weights())
    histories = []
    for model, run_eagerly in zip(made, (False, True), strict=True):
        model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            histories.append(model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0).history)
            model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        messages = [str(one.message) for one in caught]
        if run_eagerly:
            assert not messages
        else:
            assert len(messages) == 1, messages
            assert caught[0].category is UserWarning
            assert ("Plain" if kind is Plain else "culprit") in messages[0], messages[0]
            if kind not in (Counts, Keeps, Updates):
                assert "test_engine.py" in messages[0]
                assert "line " in messages[0]
            assert "run_eagerly=True" in messages[0]
    assert histories[0] == histories[1]
    same_bits(*made)


def test_a_loss_that_cannot_be_traced():
    def loss(y, p):
        return (p - y).abs().mean(-1) * (2.0 if float(p.detach().mean()) > 0 else 1.0)

    x, _ = rows()
    model = fanin.Sequential([fanin.Input((6,)), Dense(1)])
    model.compile("sgd", loss)
    with pytest.warns(UserWarning, match=r"test_engine\.py"):
        model.fit(x, x[:, :1], verbose=0)


def test_run_eagerly_makes_no_program_and_does_not_warn():
    model = fanin.Sequential([fanin.Input((6,)), Branches(), Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(*rows(), verbose=0)
    model.evaluate(*rows(), verbose=0)
    assert not model._compiled_with.engine._programs


# --- errors ---------------------------------------------------------------------------------------------------


def raised(call):
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    raise AssertionError("nothing was raised")


def state_of(model):
    state = model.optimizer.get_state(list(model.parameters()))
    return close_to_nothing(model), [np.array(one) for one in state], model.optimizer._iterations


def unchanged(model, before):
    after = state_of(model)
    assert all(torch.equal(one, two) for one, two in zip(before[0], after[0], strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]


@pytest.mark.parametrize("first", [False, True], ids=["in the first step", "later"])
@pytest.mark.parametrize("fault", ["place", "label", "shape", "target shape"])
def test_errors_are_those_of_eager_steps_and_change_nothing(fault, first):
    tokens, labels = np.arange(8).reshape(4, 2) % 5, np.array([0, 1, 2, 1])
    bad = {
        "place": (tokens + 1, labels),
        "label": (tokens, labels + 1),
        "shape": (tokens[:, :1], labels),
        "target shape": (tokens, np.stack([labels] * 2, 1)),
    }[fault]
    found = []
    for run_eagerly in (False, True):
        fanin.config.clear_session()
        model = fanin.Sequential(
            [fanin.Input((2,), dtype="int64"), Embedding(5, 3), layers.Flatten(), Dense(3, "softmax")]
        )
        model.compile(optimizers.Adam(0.1), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        if first:
            model.train_on_batch(tokens, labels)
        else:
            model.optimizer.build(list(model.parameters()))
        before = state_of(model)
        found.append(raised(lambda: model.train_on_batch(*bad)))  # noqa: B023
        unchanged(model, before)
        model.train_on_batch(tokens, labels)
    assert found[0] == found[1]


# --- programs -------------------------------------------------------------------------------------------------


@pytest.fixture
def traces(monkeypatch):
    """One entry for each program that is made."""
    made = []

    make = fanin.program.Program.__init__

    def counted(self, *given, **named):
        make(self, *given, **named)
        made.append(self)

    monkeypatch.setattr(fanin.program.Program, "__init__", counted)
    return made


def test_programs_are_made_once_for_each_kind_of_batch(traces):
    model = simple()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = rows()
    model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0)
    assert len(traces) == 2
    model.fit(x, y, batch_size=BATCH, epochs=2, validation_data=(x, y), verbose=0)
    assert len(traces) == 4
    model.evaluate(x, y, batch_size=BATCH, verbose=0)
    model.train_on_batch(x[:4], y[:4])
    model.test_on_batch(x[:2], y[:2])
    model.optimizer.learning_rate = 0.5
    model.set_weights(model.get_weights())
    model.train_on_batch(x[:4], y[:4])
    assert len(traces) == 4
    model.train_on_batch(x[:4].astype("float32"), y[:4].astype("int32"))
    model.train_on_batch(x[:4], y[:4], sample_weight=np.ones(4, "float32"))
    assert 5 <= len(traces) <= 6  # targets of another dtype may be cast before; weights need another program


def test_programs_are_kept_when_nothing_changes_but_learning_rates(traces):
    model = simple()
    model.compile(optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)), "sparse_categorical_crossentropy")
    model.fit(*rows(8), batch_size=5, epochs=4, verbose=0)
    assert len(traces) == 1
    model.compile(torch.optim.Adam(model.parameters(), lr=0.1), "sparse_categorical_crossentropy")
    for rate in (0.1, 0.2, 0.3):
        model.optimizer.param_groups[0]["lr"] = rate
        model.train_on_batch(*rows())
    assert len(traces) == 2


def test_accumulation_needs_a_program_for_each_kind_of_call(traces):
    model = simple()
    model.compile(optimizers.Adam(gradient_accumulation_steps=3), "sparse_categorical_crossentropy")
    model.fit(*rows(), batch_size=5, epochs=6, verbose=0)
    assert len(traces) == 2


def test_a_failed_trace_is_not_tried_again(monkeypatch):
    tried = []

    make = fanin.program.Program.__init__

    def counted(self, *given, **named):
        tried.append(1)
        make(self, *given, **named)

    monkeypatch.setattr(fanin.program.Program, "__init__", counted)
    model = fanin.Sequential([fanin.Input((6,)), Branches(), Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="run_eagerly"):
        model.fit(*rows(), batch_size=5, epochs=4, verbose=0)
    assert len(tried) == 1


def test_programs_are_bounded(traces, monkeypatch):
    monkeypatch.setattr(engine_module, "_MOST_PROGRAMS", 3)
    model = simple()
    model.compile("sgd", "sparse_categorical_crossentropy")
    for count in (1, 2, 3, 4, 5, 1, 5):
        model.train_on_batch(*rows(count=count))
        assert len(programs(model)) <= 3
    assert len(traces) == 6


def test_a_dropped_model_is_freed_with_its_programs():
    import gc
    import weakref

    model = simple()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*rows(), verbose=0)
    programs(model)
    gone = weakref.ref(model.layers[0].kernel)
    del model
    gc.collect()
    assert gone() is None


# --- the whole of fit -----------------------------------------------------------------------------------------


def test_metrics_history_and_own_states_are_those_of_eager_steps(exact):
    class Mine(fanin.metrics.Metric):
        def __init__(self, name="mine"):
            super().__init__(name=name)
            self.total = self.add_variable((), "zeros", name="total")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign(self.total + y_pred.amax())

        def result(self):
            return self.total

    x, y = rows()
    logs = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        model = simple()
        model.compile(
            "adam",
            "sparse_categorical_crossentropy",
            run_eagerly=run_eagerly,
            metrics=["accuracy", fanin.metrics.SparseTopKCategoricalAccuracy(2)],
            weighted_metrics=["accuracy"],
        )
        history = model.fit(
            x, y, batch_size=BATCH, epochs=2, validation_split=0.3, class_weight={0: 2.0, 1: 0.5}, verbose=0
        ).history
        logs.append([history, model.evaluate(x, y, verbose=0), model.predict(x, verbose=0).tolist()])
    assert logs[0] == logs[1]


def test_several_outputs_of_different_kinds(exact):
    logs = []
    x, y = rows()
    for run_eagerly in (False, True):
        fanin.config.clear_session()
        fanin.utils.set_random_seed(3)
        inputs = fanin.Input((6,))
        h = Dense(5, "relu")(inputs)
        model = fanin.Model(inputs, {"kind": Dense(3, "softmax")(h), "size": Dense(1)(h), "free": Dense(2)(h)})
        model.compile(
            "adam",
            {"kind": "sparse_categorical_crossentropy", "size": "mse", "free": None},
            {"kind": 0.3},
            metrics={"kind": ["accuracy"], "size": ["mae"]},
            run_eagerly=run_eagerly,
        )
        history = model.fit(x, {"kind": y, "size": x[:, 0]}, batch_size=BATCH, epochs=2, verbose=0).history
        logs.append((history, [w.tolist() for w in model.get_weights()]))
        if not run_eagerly:
            programs(model)
    assert logs[0] == logs[1]


def test_a_subclass_with_a_call_of_its_own(exact):
    class Net(fanin.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.drop = Dense(5), Dense(3), Dropout(0.3)

        def call(self, x, training=False):
            h = self.drop(F.silu(self.one(x)), training=training)
            self.add_loss(h.pow(2).mean())
            return torch.softmax(self.two(h), -1)

    twins = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        model = Net()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=run_eagerly)
        model.fit(*rows(), batch_size=BATCH, epochs=2, verbose=0)
        twins.append(model)
    programs(twins[0])
    same_bits(*twins)


def test_compute_loss_and_train_step_of_ones_own(exact):
    class Own(fanin.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 0.5 * super().compute_loss(x, y, y_pred, sample_weight, training)

        def train_step(self, data):
            logs = super().train_step(data)
            return {**logs, "twice": 2 * logs["loss"]}

    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        model = Own([fanin.Input((6,)), Dense(3, "softmax", kernel_regularizer="l2")])
        model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        found.append((model.fit(*rows(), batch_size=BATCH, verbose=0).history, model))
    assert found[0][0] == found[1][0]
    same_bits(found[0][1], found[1][1])


def test_shared_layers_and_tied_weights(exact):
    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        inputs = fanin.Input((6,))
        shared = Dense(6, "tanh")
        model = fanin.Model(inputs, Dense(3, "softmax")(shared(shared(inputs))))
        model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        model.fit(*rows(), batch_size=BATCH, epochs=2, verbose=0)
        found.append(model)
    programs(found[0])
    same_bits(*found)


def test_two_models_that_share_a_layer_train_in_turns(exact):
    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        shared = Dense(6, "tanh")
        models = [fanin.Sequential([fanin.Input((6,)), shared, Dense(3, "softmax")]) for _ in range(2)]
        for model in models:
            model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        for i in range(3):
            for model in models:
                model.train_on_batch(*rows(i, 4))
        found.append(models)
    for one, two in zip(*found, strict=True):
        same_bits(one, two)


def test_one_optimizer_for_two_models_as_in_a_gan(exact):
    found = []
    for run_eagerly in (False, True):
        fanin.utils.set_random_seed(3)
        inner = fanin.Sequential([fanin.Input((6,)), Dense(3, "softmax")])
        outer = fanin.Sequential([fanin.Input((6,)), Dense(6, "tanh"), inner])
        for model in (inner, outer):
            model.compile(optimizers.SGD(0.1, momentum=0.5), "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
        for i in range(3):
            inner.trainable = True
            inner.train_on_batch(*rows(i, 4))
            inner.trainable = False
            outer.train_on_batch(*rows(i + 1, 4))
        found.append(outer)
    same_bits(*found)


def test_a_model_without_weights_and_one_that_is_all_frozen():
    x, y = rows()
    model = fanin.Sequential([fanin.Input((6,)), Dense(3, "softmax")])
    model.trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
