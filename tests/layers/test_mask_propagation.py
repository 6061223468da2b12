"""Masks that travel with tensors through calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fanin
from fanin import Input, Model, Sequential, masks
from fanin.layers import Activation, Add, Concatenate, Dense, Embedding, Flatten, Layer, Masking

IDS = torch.tensor([[3, 1, 0], [2, 0, 0]])
MASK = IDS != 0


class Pooled(Layer):
    """The mean over the entries that count."""

    supports_masking = False

    def call(self, inputs, mask=None):
        assert mask is not None
        weights = mask.to(inputs.dtype).unsqueeze(-1)
        return (inputs * weights).sum(1) / weights.sum(1)


def pooled(embedding, ids=IDS):
    vectors = embedding.embeddings[ids]
    weights = (ids != 0).float().unsqueeze(-1)
    return (vectors * weights).sum(1) / weights.sum(1)


def test_from_layer_to_layer_on_tensors():
    embedding, dense, pool = Embedding(5, 4, mask_zero=True), Dense(4), Pooled()
    h = embedding(IDS)
    assert torch.equal(h._keras_mask, MASK)
    assert torch.equal(dense(h)._keras_mask, MASK)
    assert torch.equal(dense(h)._keras_mask, MASK)  # again, now that the layer knows a short way
    assert torch.allclose(pool(h), pooled(embedding))
    assert getattr(pool(h), "_keras_mask", None) is None


@pytest.mark.parametrize("kind", ["sequential", "functional", "nested", "subclass"])
def test_through_models(kind):
    embedding, pool = Embedding(5, 4, mask_zero=True), Pooled()
    if kind == "sequential":
        model = Sequential([embedding, Activation("linear"), pool])
    elif kind == "functional":
        ids = Input((3,), dtype="int32")
        model = Model(ids, pool(Activation("linear")(embedding(ids))))
    elif kind == "nested":
        ids, outer_ids = Input((3,), dtype="int32"), Input((3,), dtype="int32")
        inner = Model(ids, embedding(ids))
        model = Model(outer_ids, pool(inner(outer_ids)))
        assert torch.equal(inner(IDS)._keras_mask, MASK)
    else:

        class Own(Model):
            def __init__(self):
                super().__init__()
                self.embedding, self.pool = embedding, pool

            def call(self, inputs):
                return self.pool(self.embedding(inputs))

        model = Own()
    for _ in range(2):
        assert torch.allclose(model(IDS), pooled(embedding), atol=1e-6)
    assert np.allclose(model.predict(IDS, verbose=0), pooled(embedding).detach(), atol=1e-6)


def test_a_mask_given_to_a_model_reaches_the_layers():
    source = Input((3, 2))
    model = Model(source, Dense(2)(source))
    x = torch.randn(2, 3, 2)
    assert torch.equal(model(x, mask=MASK)._keras_mask, MASK)
    assert getattr(x, "_keras_mask", None) is None
    assert getattr(model(x), "_keras_mask", None) is None


def test_the_input_of_a_layer_that_hands_it_on_is_not_marked():
    class Marks(Layer):
        def call(self, inputs):
            return inputs

        def compute_mask(self, inputs, mask=None):
            return inputs[..., 0] > 0

    x = torch.randn(2, 3, 2)
    y = Marks()(x)
    assert torch.equal(y._keras_mask, x[..., 0] > 0)
    assert not hasattr(x, "_keras_mask")


def test_a_layer_without_masks_ends_it_with_a_warning():
    class Plain(Layer):
        def call(self, inputs):
            return inputs * 1

    h = Embedding(5, 4, mask_zero=True)(IDS)
    with pytest.warns(UserWarning, match="the mask ends here"):
        assert not hasattr(Plain()(h), "_keras_mask")


def test_several_inputs():
    a, b = Embedding(5, 4, mask_zero=True), Embedding(5, 4, mask_zero=True)
    other = torch.tensor([[1, 0, 2], [1, 0, 0]])
    assert torch.equal(Add()([a(IDS), b(other)])._keras_mask, MASK | (other != 0))
    assert torch.equal(Concatenate()([a(IDS), b(other)])._keras_mask, MASK | (other != 0))


def test_symbolic_masks_say_the_same():
    ids = Input((3,), dtype="int32")
    h = Dense(4)(Embedding(5, 4, mask_zero=True)(ids))
    assert h.mask is not None
    assert h.mask.shape == (None, 3)
    inner = Model(ids, h)
    outer = Input((3,), dtype="int32")
    assert inner(outer).mask.shape == (None, 3)
    assert torch.equal(Model(outer, inner(outer).mask)(IDS), MASK)


def test_compute_mask_must_fit_the_outputs():
    class Wrong(Layer):
        def call(self, inputs):
            return inputs, inputs + 1, inputs + 2

        def compute_mask(self, inputs, mask=None):
            return [inputs[..., 0] > 0, None]

    with pytest.raises(ValueError, match="layer 'wrong': expected a mask or None for each of 3 tensors, found 2"):
        Wrong()(torch.ones(2, 3))


def test_a_compute_mask_that_hands_on_no_mask_fits_any_outputs():
    class Joined(Layer):
        def call(self, inputs):
            return inputs[0] + inputs[1]

        def compute_mask(self, inputs, mask=None):
            return mask

    joined = Joined()([torch.ones(2, 3), torch.ones(2, 3)])
    assert masks.get_mask(joined) is None


def test_a_model_takes_a_mask_for_each_input():
    a, b = Input((3, 2)), Input((3, 2))
    model = Model([a, b], [Activation("relu")(a), Activation("relu")(b)])
    x = torch.ones(2, 3, 2)
    first, second = model([x, x], mask=[None, MASK])
    assert masks.get_mask(first) is None
    assert torch.equal(masks.get_mask(second), MASK)
    with pytest.raises(
        ValueError, match=f"Model '{model.name}': expected a mask or None for each of 2 tensors, found 1"
    ):
        model([x, x], mask=[MASK])


# --- losses and metrics -------------------------------------------------------------------------------------


def tagger():
    ids = Input((3,), dtype="int32")
    model = Model(ids, Dense(2, activation="softmax")(Embedding(5, 4, mask_zero=True)(ids)))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_losses_and_metrics_leave_out_what_is_masked():
    """Closed form: the mean over the entries that count, whatever the targets of the others are."""
    model = tagger()
    targets = torch.tensor([[1, 0, 0], [1, 1, 0]])
    probabilities = model(IDS).detach()
    picked = probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    expected = -(picked.log()[MASK]).mean()
    right = (probabilities.argmax(-1) == targets)[MASK].float().mean()
    found = model.evaluate(IDS, targets, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert found["accuracy"] == pytest.approx(float(right), rel=1e-6)
    other = torch.where(MASK, targets, 1 - targets)
    assert model.evaluate(IDS, other, verbose=0, return_dict=True)["loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_masked_entries_give_no_gradient():
    model = tagger()
    before = model.get_weights()[0].copy()
    model.train_on_batch(IDS, torch.tensor([[1, 0, 0], [1, 1, 0]]))
    moved = np.abs(model.get_weights()[0] - before).sum(-1) > 0
    assert moved.tolist() == [False, True, True, True, False]


def test_sample_weights_and_masks_multiply():
    model = tagger()
    targets = torch.tensor([[1, 0, 0], [1, 1, 0]])
    probabilities = model(IDS).detach()
    picked = -probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1).log()
    weights = torch.tensor([2.0, 0.5])
    expected = (picked * weights[:, None])[MASK].sum() / MASK.sum()
    found = model.evaluate(IDS, targets, sample_weight=weights, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_both_masks():
    a = torch.tensor([[True, False]])
    assert masks.both(None, None) is None
    assert masks.both(a, None) is a
    assert masks.both(a.unsqueeze(-1), a).tolist() == [[[True], [False]]]


def test_masking_by_value_in_a_model():
    x = torch.tensor([[[1.0, 2.0], [9.0, 9.0]], [[9.0, 9.0], [3.0, 9.0]]])
    model = Sequential([Input((2, 2)), Masking(9.0), Pooled()])
    assert model(x).tolist() == [[1.0, 2.0], [3.0, 9.0]]


def test_a_layer_that_reshapes_says_what_becomes_of_the_mask():
    h = Embedding(5, 4, mask_zero=True)(IDS)
    with pytest.warns(UserWarning, match="the mask ends here"):
        assert not hasattr(Flatten()(h), "_keras_mask")
    assert fanin.masks.get_mask(h) is not None


def test_a_mask_may_be_an_array():
    h = Dense(2)(torch.ones(2, 3, 2), mask=MASK.numpy())
    assert torch.equal(h._keras_mask, MASK)
