"""Compiled steps of random models, against the bits of eager steps and against float64."""

import random

import numpy as np
import pytest
import torch
from engine_cases import BATCH, ROWS, flat, near, no_further, programs, rows, same_bits
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import fanin
import fanin.program.run
from fanin import constraints, layers, optimizers
from fanin.layers import (
    AlphaDropout,
    BatchNormalization,
    Concatenate,
    Dense,
    Dropout,
    Embedding,
    GaussianDropout,
    GaussianNoise,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)
from fanin.program.passes import PASSES, ROUNDING

RANDOM = {
    "derandomize": True,
    "deadline": None,
    "phases": [Phase.generate],
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


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
                RMSNormalization,
                UnitNormalization,
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
                    lambda: AlphaDropout(0.3),
                    lambda: GaussianDropout(0.2, seed=6),
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
    fanin.config.clear_session(free_memory=False)
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


def compare_distances(seed, policy):
    one, _, start = trained(seed, policy, False, draws=False)
    two, _, _ = trained(seed, policy, True, draws=False, start=start)
    exact, _, _ = trained(seed, "float64", True, draws=False, start=[w.astype("float64") for w in start])
    if policy == "float32":
        near(flat(one), flat(two), flat(exact))
        return
    eps = torch.finfo(torch.bfloat16).eps
    no_further(flat(one), flat(two), flat(exact), eps)  # often much nearer: small products are in float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", [one for one in PASSES if one not in ROUNDING])
        plain, _, _ = trained(seed, policy, False, draws=False, start=start)
    near(flat(plain), flat(two), flat(exact), eps)


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dropout(0.5),
        lambda: Dropout(0.5, seed=3),
        lambda: GaussianNoise(0.5),
        lambda: GaussianNoise(0.5, seed=3),
        lambda: AlphaDropout(0.5),
        lambda: AlphaDropout(0.5, noise_shape=(1, None), seed=3),
        lambda: GaussianDropout(0.5),
        lambda: GaussianDropout(0.5, seed=3),
        lambda: nn.Dropout(0.5),
        lambda: Dropout(0.5, noise_shape=(None, 1)),
        lambda: nn.AlphaDropout(0.5),
    ],
)
def test_random_layers_draw_what_they_draw_eagerly_and_anew_in_each_step(make, exact):
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
