"""Keras's LoRA on Dense, against real Keras: outputs, weights, what trains, config, and training."""

import copy
import os
import pickle

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.kernels import Full
from fanin.layers import Dense

EASY = settings(derandomize=True, deadline=None, max_examples=50, phases=[Phase.generate])
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def pair(rng, input_dim, units, rank, alpha=None, **arguments):
    """The same layer in Keras and here, LoRA enabled, with equal random weights."""
    theirs, ours = keras.layers.Dense(units, **arguments), Dense(units, **arguments)
    for layer in (theirs, ours):
        layer.build((None, input_dim))
        layer.enable_lora(rank, lora_alpha=alpha)
    values = [rng.normal(size=weight.shape).astype("float32") for weight in theirs.weights]
    for weight, value in zip(theirs.weights, values, strict=True):
        weight.assign(value)
    ours.set_weights(values)
    return theirs, ours


@EASY
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    leading=st.sampled_from([(1,), (6,), (2, 3), (2, 1, 3)]),
    alpha=st.sampled_from([None, 1, 8.0]),
    use_bias=st.booleans(),
    activation=st.sampled_from([None, "tanh", "gelu"]),
    regularizer=st.sampled_from([None, "l2", "l1"]),
    seed=st.integers(0, 99),
)
def test_everything_is_as_in_keras(sizes, leading, alpha, use_bias, activation, regularizer, seed):
    rng = np.random.default_rng(seed)
    arguments = {"use_bias": use_bias, "activation": activation, "kernel_regularizer": regularizer}
    theirs, ours = pair(rng, *sizes, alpha, **arguments)
    inputs = rng.normal(size=(*leading, sizes[0])).astype("float32")
    expected = theirs(torch.from_numpy(inputs)).detach().numpy()
    bound = 1e-6 * max(1.0, np.abs(expected).max(), 10 * sizes[2] * sizes[0])
    np.testing.assert_allclose(ours(inputs).detach().numpy(), expected, rtol=1e-5, atol=bound)
    names = {id(weight): name for name, weight in ours.named_parameters()}
    for kind in ("weights", "trainable_weights", "non_trainable_weights"):
        assert sorted(names[id(each)] for each in getattr(ours, kind)) == sorted(w.name for w in getattr(theirs, kind))
    assert [names[id(each)] for each in ours.weights] == ["kernel", *(["bias"] if use_bias else []), "lora_kernel_a",
                                                          "lora_kernel_b"]  # fmt: skip
    assert [w.name for w in theirs.trainable_weights] == [names[id(w)] for w in ours.trainable_weights]
    assert len(ours.losses) == len(theirs.losses)
    for one, other in zip(ours.losses, theirs.losses, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    config = theirs.get_config()
    found = ours.get_config()
    for name in ("lora_rank", "lora_alpha"):
        assert found[name] == config[name] == getattr(ours, name)
    assert [key for key in found if key in config] == [key for key in config if key in found]
    assert list(found)[-2:] == list(config)[-2:] == ["lora_rank", "lora_alpha"]


def test_a_training_run_is_kerass():
    """Two runs of SGD in float32 over the same batches stay within 1e-5: products in another order, 30 steps."""
    rng = np.random.default_rng(0)
    theirs, ours = pair(rng, 6, 3, 2, 4)
    x, y = rng.normal(size=(40, 6)).astype("float32"), rng.normal(size=(40, 3)).astype("float32")
    models = []
    for library, layer in ((keras, theirs), (fanin, ours)):
        for weight, value in zip(layer.weights, [w * 0.3 for w in pair_values(ours)], strict=True):
            assign(weight, value)
        model = library.Sequential([library.Input((6,)), layer])
        model.compile(library.optimizers.SGD(0.01, momentum=0.9), "mse")
        models.append((model, model.fit(x, y, batch_size=8, epochs=6, shuffle=False, verbose=0).history["loss"]))
    kernel = ours.kernel.detach().clone()
    (theirs_model, their_losses), (ours_model, our_losses) = models
    np.testing.assert_allclose(our_losses, their_losses, rtol=1e-5)
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.numpy(), rtol=1e-5, atol=1e-5)
    assert torch.equal(ours.kernel, kernel)
    assert their_losses[-1] < 0.9 * their_losses[0]
    np.testing.assert_allclose(ours_model.predict(x), theirs_model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


def pair_values(layer):
    rng = np.random.default_rng(5)
    return [rng.normal(size=tuple(weight.shape)).astype("float32") for weight in layer.weights]


def assign(weight, value):
    if isinstance(weight, torch.Tensor):
        with torch.no_grad():
            weight.copy_(torch.from_numpy(value))
    else:
        weight.assign(value)


def test_the_argument_does_what_enable_lora_does():
    layer = Dense(4, lora_rank=2, lora_alpha=8, kernel_regularizer="l2")
    assert [name for name, _ in layer.named_parameters()] == ["kernel", "bias", "lora_kernel_a", "lora_kernel_b"]
    assert [weight.requires_grad for weight in layer.parameters()] == [False, True, True, True]
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)  # before the first call
    inputs = torch.randn(5, 3)
    plain = torch.nn.functional.linear(inputs, layer(inputs).new_zeros(4, 3)) + layer(inputs)
    assert layer.lora_kernel_a.shape == (3, 2)
    assert layer.lora_kernel_a.abs().max() <= (6 / 3) ** 0.5  # he_uniform
    assert (layer.lora_kernel_b == 0).all()
    assert torch.equal(plain, inputs @ layer.kernel + layer.bias)
    before = [weight.detach().clone() for weight in layer.weights]
    layer(inputs).sum().backward()
    optimizer.step()
    changed = [not torch.equal(now, then) for now, then in zip(layer.weights, before, strict=True)]
    assert changed == [False, True, False, True]  # the gradient of A is zero while B is
    assert layer.scheme.adapter("lora").scale == 4.0
    assert len(layer.losses) == 2
    assert "adapters=['lora']" in repr(layer)
    assert Dense.from_config(layer.get_config()).get_config() == layer.get_config()


def test_initializers_of_the_pair():
    layer = Dense(4)
    layer.build((None, 3))
    layer.enable_lora(2, a_initializer="ones", b_initializer=fanin.initializers.Constant(0.5))
    assert (layer.lora_kernel_a == 1).all()
    assert (layer.lora_kernel_b == 0.5).all()
    torch.testing.assert_close(layer.effective_kernel, layer.kernel + 1.0)
    layer.reset_parameters()
    assert (layer.lora_kernel_b == 0.5).all()


@pytest.mark.parametrize("policy", ["float32", "float64", "bfloat16", "mixed_bfloat16", "float16"])
def test_pairs_are_float32_under_every_policy(policy):
    layer = Dense(4, dtype=policy)
    inputs = torch.randn(5, 3)
    before = layer(inputs)
    layer.enable_lora(2, 4, b_initializer="ones")
    assert layer.lora_kernel_a.dtype == layer.lora_kernel_b.dtype == torch.float32
    outputs = layer(inputs)
    assert outputs.dtype == before.dtype
    wide = [tensor.detach().double() for tensor in (layer.kernel, layer.lora_kernel_a, layer.lora_kernel_b)]
    expected = inputs.double() @ (wide[0] + 2.0 * wide[1] @ wide[2])
    size = (inputs.double().abs() @ (wide[0].abs() + 2.0 * wide[1].abs() @ wide[2].abs())).max()
    bound = 8 * torch.finfo(outputs.dtype).eps * size  # roundings of the inputs, three tensors, two products, a sum
    assert (outputs.detach().double() - expected).abs().max() <= max(bound, 8 * torch.finfo(torch.float32).eps * size)
    outputs.sum().backward()
    assert layer.lora_kernel_b.grad.dtype == torch.float32
    assert layer.kernel.grad is None


def test_refusals():
    with pytest.raises(ValueError, match="Layer 'dense' is not built, so enable_lora does not know"):
        Dense(3).enable_lora(2)
    layer = Dense(3)
    layer.build((None, 2))
    for rank in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="rank must be a positive integer"):
            layer.enable_lora(rank)
    with pytest.raises(ValueError, match="unknown_thing"):
        layer.enable_lora(2, a_initializer="unknown_thing")
    with pytest.raises(ValueError, match="returned shape"):
        layer.enable_lora(2, b_initializer=lambda shape, dtype: torch.zeros(7))
    assert layer.scheme == Full()
    assert [name for name, _ in layer.named_parameters()] == ["kernel", "bias"]
    assert layer.kernel.requires_grad
    layer.enable_lora(2)
    with pytest.raises(ValueError, match="adapter 'lora' already"):
        layer.enable_lora(2)
    with pytest.raises(ValueError, match="cannot have a kernel_constraint"):
        layer.kernel_constraint = "non_neg"
    constrained = Dense(3, kernel_constraint="non_neg")
    constrained.build((None, 2))
    with pytest.raises(ValueError, match="a constraint on the kernel"):
        constrained.enable_lora(2)
    with pytest.raises(ValueError, match="cannot have a kernel_constraint"):
        Dense(3, kernel_constraint="non_neg", lora_rank=2)
    with pytest.raises(ValueError, match="lora_alpha=4 needs a lora_rank"):
        Dense(3, lora_alpha=4)
    with pytest.raises(ValueError, match="rank must be a positive integer, found 0"):
        Dense(3, lora_rank=0)
    bare = Dense(3)
    bare.build((None, 2))
    torch.nn.utils.parametrizations.weight_norm(bare, "kernel")
    with pytest.raises(ValueError, match="parametrized or pruned"):
        bare.enable_lora(2)


def test_freezing_and_thawing_leaves_the_kernel_frozen():
    layer = Dense(3, lora_rank=2)
    layer.build((None, 2))
    layer.trainable = False
    assert not any(weight.requires_grad for weight in layer.weights)
    layer.trainable = True
    assert [weight.requires_grad for weight in layer.weights] == [False, True, True, True]
    frozen = Dense(3, lora_rank=2, trainable=False)
    frozen.build((None, 2))
    assert not any(weight.requires_grad for weight in frozen.weights)
    frozen.trainable = True
    assert [weight.requires_grad for weight in frozen.weights] == [False, True, True, True]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("built", [True, False])
def test_copies(again, built):
    layer = Dense(3, lora_rank=2, kernel_regularizer="l2")
    inputs = torch.randn(4, 2)
    if built:
        layer(inputs)
        torch.nn.init.normal_(layer.lora_kernel_b)
    twin = again(layer)
    assert twin.lora_rank == 2
    assert [weight.requires_grad for weight in twin.parameters()] == [False, True, True, True]
    twin(inputs)
    if built:
        assert torch.equal(twin(inputs), layer(inputs))
    layer(inputs)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(inputs), layer(inputs))
    assert len(twin.losses) == 2


def test_a_state_dict_builds_a_layer():
    layer = Dense(3, lora_rank=2)
    layer(torch.randn(4, 5))
    other = Dense(3, lora_rank=2)
    other.load_state_dict(layer.state_dict())
    assert other.lora_kernel_a.shape == (5, 2)
    assert torch.equal(other.lora_kernel_a, layer.lora_kernel_a)
    with pytest.raises(RuntimeError, match="lora_kernel_a"):
        Dense(3, lora_rank=3).load_state_dict(layer.state_dict())


def test_first_values_with_and_without_the_pair():
    kernel, bias = np.ones((2, 3), "float32"), np.zeros(3, "float32")
    layer = Dense(3, lora_rank=2, weights=[kernel, bias])
    layer.build((None, 2))
    assert (layer.kernel == 1).all()
    assert (layer.lora_kernel_a != 0).any()
    layer = Dense(3, lora_rank=1, weights=[kernel, bias, kernel[:, :1], 2 * kernel[:1]])
    layer.build((None, 2))
    assert (layer.effective_kernel == 3).all()


def test_to_linear_merges_and_from_linear_fills_the_base():
    layer = Dense(3)
    inputs = torch.randn(4, 2)
    layer(inputs)
    layer.add_adapter("ann", 2, b_initializer="ones")
    torch.testing.assert_close(layer.to_linear()(inputs), layer(inputs))
    linear = torch.nn.Linear(2, 3)
    torch.testing.assert_close(Dense.from_linear(linear, lora_rank=2)(inputs), linear(inputs))


def test_dropout_follows_the_training_of_the_call():
    layer = Dense(3)
    inputs = torch.ones(64, 8)
    model = fanin.Sequential([fanin.Input((8,)), layer])
    layer.add_adapter("ann", 2, dropout=0.5, b_initializer="ones")
    still = model(inputs)
    assert torch.equal(model(inputs, training=False), still)
    assert not torch.equal(model(inputs, training=True), still)
    layer.train()
    assert not torch.equal(layer(inputs), layer(inputs))
    layer.eval()
    assert torch.equal(layer(inputs), layer(inputs))
    assert not torch.equal(layer(inputs, training=True), layer(inputs, training=True))


def test_a_name_that_is_taken():
    layer = Dense(3)
    layer.build((None, 2))
    layer.add_adapter("ann", 2)
    with pytest.raises(ValueError, match="adapter 'ann' already"):
        layer.add_adapter("ann", 3)
    layer.bob_kernel_a = 3
    with pytest.raises(ValueError, match="the name 'bob_kernel_a' is taken"):
        layer.add_adapter("bob", 3)
    assert list(layer.adapters) == ["ann"]
    assert layer.active_adapter == "ann"
    with pytest.raises(ValueError, match="not built"):
        Dense(3).add_adapter("ann", 2)
    layer.enable_lora(1)
    assert layer.active_adapter == "lora"
    assert [weight.requires_grad for weight in layer.weights] == [False, False, False, False, True, True]


def test_compiles_and_runs_in_transforms():
    layer = Dense(3, lora_rank=2)
    inputs = torch.randn(5, 4)
    expected = layer(inputs)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(inputs), expected)
    torch.testing.assert_close(torch.func.vmap(layer)(inputs), expected)
    parameters = {name: weight.detach() for name, weight in layer.named_parameters()}
    one_row = torch.func.grad(lambda p, row: torch.func.functional_call(layer, p, (row,)).square().sum())
    per_sample = torch.func.vmap(one_row, (None, 0))(parameters, inputs)
    whole = one_row(parameters, inputs)
    torch.testing.assert_close(per_sample["lora_kernel_b"].sum(0), whole["lora_kernel_b"])
