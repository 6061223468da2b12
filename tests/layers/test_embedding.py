"""Embedding: rows of a matrix, by index."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import fanin
from fanin.layers import Dense, Embedding, Input
from fanin.training.compiled import Compiled
from fanin.training.data import Batch
from fanin.training.step import Step

INDICES = [[1, 0, 4], [2, 2, 3]]


def made(**arguments):
    layer = Embedding(5, 2, **arguments)
    layer.build((None, 3))
    return layer


@pytest.mark.parametrize(
    "dtype",
    ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"],
)
@pytest.mark.parametrize("array", [torch.tensor, np.array])
def test_rows_by_index_of_any_dtype(dtype, array):
    layer = made()
    indices = array(INDICES, dtype=getattr(torch, dtype) if array is torch.tensor else dtype)
    y = layer(indices)
    assert torch.equal(y, layer.embeddings[torch.tensor(INDICES)])
    assert y.shape == layer.compute_output_shape((2, 3)) == (2, 3, 2)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64", "bfloat16"])
def test_indices_are_not_rounded_by_the_policy(policy):
    """Above 256 bfloat16 holds not every whole number, above 2048 float16."""
    layer = Embedding(5001, 1, dtype=policy, weights=np.arange(5001.0)[:, None] % 7)
    for dtype in (torch.float32, torch.int16):
        x = torch.tensor([4999, 257, 3001], dtype=dtype)
        y = layer(x)
        assert y.dtype == layer.dtype_policy.compute
        assert y.flatten().tolist() == [4999 % 7, 257 % 7, 3001 % 7]
        assert torch.equal(layer(x.numpy()), y)


@pytest.mark.parametrize(
    ("indices", "found"),
    [([[0, 5]], r"index 5 at \(0, 1\)"), ([[3], [-1]], r"index -1 at \(1, 0\)"), ([7], r"index 7 at \(0,\)")],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_an_index_out_of_range_is_named(indices, found, dtype):
    layer = made(name="words")
    message = rf"Layer 'words': {found} is out of range, expected 0 to 4 \(input_dim=5\)\."
    with pytest.raises(IndexError, match=message):
        layer(torch.tensor(indices, dtype=dtype))
    model = fanin.Sequential([layer])
    with pytest.raises(IndexError, match=message):
        model.predict(np.array(indices), verbose=0)


def test_an_index_beyond_32_bits_is_named():
    with pytest.raises(IndexError, match=rf"index {2**40 + 1} at \(0, 0\) is out of range"):
        made()(np.array([[2.0**40 + 1]]))


def test_nothing_is_read_from_the_indices_in_advance():
    """What compilers trace: no comparison, no number taken out."""
    layer = made()
    x = torch.tensor(INDICES)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    traced = make_fx(lambda e, x: torch.func.functional_call(layer, {"embeddings": e}, (x,)), tracing_mode="fake")(
        layer.embeddings, x
    )
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.embedding.default
    ]


def test_zero_as_mask():
    layer = made(mask_zero=True)
    x = torch.tensor(INDICES)
    expected = torch.tensor([[True, False, True], [True, True, True]])
    assert torch.equal(layer.compute_mask(x), expected)
    assert torch.equal(layer.compute_mask(x.float(), mask=torch.ones(2, 3)), expected)
    assert layer.supports_masking
    assert layer(Input((3,), dtype="int32")).mask.shape == (None, 3)
    plain = made()
    assert plain.compute_mask(x) is None
    assert not plain.supports_masking
    assert plain(Input((3,))).mask is None


def test_symbolic_inputs():
    layer = Embedding(5, 2)
    y = layer(Input((None,), dtype="int32"))
    assert (y.shape, y.dtype) == ((None, None, 2), torch.float32)
    assert layer(Input((3, 4))).shape == (None, 3, 4, 2)


def test_weights_build_at_once():
    matrix = np.arange(10.0).reshape(5, 2)
    for given in (matrix, [matrix], torch.from_numpy(matrix)):
        layer = Embedding(5, 2, weights=given)
        assert layer.built
        assert (layer.embeddings.detach().numpy() == matrix).all()
        assert layer.embeddings.data_ptr() != torch.as_tensor(matrix).data_ptr()
    with pytest.raises(ValueError, match=r"'embeddings' of layer 'e' has shape \(5, 2\), found a value of shape"):
        Embedding(5, 2, weights=matrix.T, name="e")


def test_only_rows_that_were_met_train():
    layer = made()
    before = layer.embeddings.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.tensor([[1, 3, 3]])).sum().backward()
    optimizer.step()
    moved = before - layer.embeddings
    torch.testing.assert_close(moved, torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0])[:, None].expand(5, 2))


def test_fit_by_integers_and_by_floats():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (20, 3)), rng.normal(size=(20, 1))
    found = []
    for given in (x, x.astype("f4")):
        fanin.utils.set_random_seed(1)
        model = fanin.Sequential([Embedding(5, 2), fanin.layers.Flatten(), Dense(1)])
        model.compile("adam", "mse")
        model.fit(given, y, verbose=0, shuffle=False)
        found.append(model.get_weights())
    assert all((a == b).all() for a, b in zip(*found, strict=True))


def test_the_pure_step_takes_integers():
    model = fanin.Sequential([Embedding(5, 2), fanin.layers.Flatten(), Dense(1)])
    batch = Batch(torch.tensor(INDICES), torch.zeros(2, 1), None, 2)
    model(batch.x)
    compiled = Compiled("sgd", "mse")
    compiled.bind(model, (None, 1), batch.y)
    step = Step(model, compiled.compute_loss, compiled.measuring.measure)
    result = step.train(step.live_state([]), batch)
    assert result.gradients["0.embeddings"].shape == (5, 2)


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", True, None])
@pytest.mark.parametrize("argument", ["input_dim", "output_dim"])
def test_sizes_that_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"Embedding: {argument} must be a positive integer, found {value!r}"):
        Embedding(**{"input_dim": 5, "output_dim": 2, argument: value})
    assert Embedding(np.int64(5), np.int32(2)).input_dim == 5


def lora_pair(**arguments):
    """The same Embedding in Keras and here, LoRA enabled, with equal random weights."""
    theirs, ours = keras.layers.Embedding(5, 3, **arguments), Embedding(5, 3, **arguments)
    rng = np.random.default_rng(0)
    for layer in (theirs, ours):
        layer.build((None, 2))
        layer.enable_lora(2, lora_alpha=6)
    values = [rng.normal(size=weight.shape).astype("float32") for weight in theirs.weights]
    for weight, value in zip(theirs.weights, values, strict=True):
        weight.assign(value)
    ours.set_weights(values)
    return theirs, ours


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_lora_is_as_in_keras():
    theirs, ours = lora_pair(embeddings_regularizer="l2", mask_zero=True)
    expected = theirs(torch.tensor(INDICES)).detach().numpy()
    np.testing.assert_allclose(ours(torch.tensor(INDICES)).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    names = [name for name, _ in ours.named_parameters()]
    assert names == [weight.name for weight in theirs.weights]
    assert [weight.requires_grad for weight in ours.weights] == [weight.trainable for weight in theirs.weights]
    torch.testing.assert_close(sum(ours.losses), sum(theirs.losses), rtol=1e-5, atol=1e-6)
    keys = [key for key in theirs.get_config() if key != "quantization_config"]
    assert list(ours.get_config()) == keys
    assert {key: ours.get_config()[key] for key in keys[-2:]} == {"lora_rank": 2, "lora_alpha": 6}
    np.testing.assert_allclose(
        ours.effective_embeddings.detach().numpy(), theirs.embeddings.detach().numpy(), rtol=1e-5, atol=1e-5
    )


def test_lora_trains_two_small_matrices():
    layer = Embedding(5, 3, lora_rank=2, lora_alpha=4)
    layer(torch.tensor(INDICES)).sum().backward()
    assert layer.embeddings.grad is None
    assert layer.lora_embeddings_a.shape == (5, 2)
    assert layer.lora_embeddings_b.grad.shape == (2, 3)
    assert Embedding.from_config(layer.get_config()).lora_alpha == 4
    other = Embedding(5, 3, lora_rank=2)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.lora_embeddings_a, layer.lora_embeddings_a)


def test_lora_beside_given_weights():
    table = np.arange(15, dtype="float32").reshape(5, 3)
    layer = Embedding(5, 3, weights=table, lora_rank=2)
    assert layer(torch.tensor([4])).tolist() == [[12.0, 13.0, 14.0]]
    assert not layer.embeddings.requires_grad


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_lora_under_other_policies(policy):
    layer = Embedding(5, 3, dtype=policy)
    before = layer(torch.tensor(INDICES))
    layer.add_adapter("ann", 2, b_initializer="ones")
    outputs = layer(torch.tensor(INDICES))
    assert outputs.dtype == before.dtype
    assert layer.ann_embeddings_a.dtype == torch.float32
    expected = layer.effective_embeddings[torch.tensor(INDICES)].to(outputs.dtype)
    torch.testing.assert_close(outputs, expected, rtol=2e-2, atol=2e-2)


def test_lora_that_is_refused():
    with pytest.raises(ValueError, match="not built, so enable_lora"):
        Embedding(5, 2).enable_lora(2)
    layer = Embedding(5, 2, embeddings_constraint="max_norm", weights=np.zeros((5, 2)))
    with pytest.raises(ValueError, match="a constraint on the embeddings"):
        layer.enable_lora(2)
    with pytest.raises(ValueError, match="needs a lora_rank"):
        Embedding(5, 2, lora_alpha=2.0)
    with pytest.raises(IndexError, match="index 7 at"):
        Embedding(5, 2, lora_rank=2)(torch.tensor([7]))
    with pytest.raises(ValueError, match="quantization_config is not supported"):
        Embedding(5, 2, quantization_config={"mode": "int8"})


def test_the_config_makes_an_equal_layer():
    layer = Embedding(5, 2, "ones", "l2", "max_norm", mask_zero=True, activity_regularizer="l1", input_length=3)
    twin = Embedding.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    twin(torch.tensor(INDICES))
    assert (twin.embeddings == 1).all()
    assert len(twin.losses) == 2
