"""The masks that `call` and `compute_mask` get, for one layer written once, in Keras and in fanin."""

from __future__ import annotations

import warnings

import keras
import pytest
import torch

import fanin
from fanin.graph.tree import leaves, tree_map
from fanin.masks import get_mask

MASK = torch.tensor([[True, False, True], [True, True, False]])


def noting(K):
    """A layer that notes the masks that it gets, and the place where."""

    class Notes(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True
            self.noted = {}

        def call(self, inputs, mask=None):
            self.noted["call"] = tree_map(lambda leaf: leaf is not None, mask)
            return next(leaves(inputs)) * 1.0

        def compute_mask(self, inputs, mask=None):
            self.noted["compute_mask"] = tree_map(lambda leaf: leaf is not None, mask)

    return Notes()


def on_tensors(K, masked):
    x = torch.ones(2, 3, 4)
    if masked:
        x._keras_mask = MASK
    return x


def in_a_graph(K, masked):
    x = K.Input((3, 4))
    return K.layers.Masking()(x) if masked else x


INPUTS = {
    "one": lambda x, m: x,
    "one, masked": lambda x, m: m,
    "a list of one": lambda x, m: [m],
    "two": lambda x, m: [x, x],
    "two, one of them masked": lambda x, m: [x, m],
    "a tuple": lambda x, m: (m, x),
    "a dict": lambda x, m: {"b": m, "a": x},
    "nested": lambda x, m: [x, (m, {"q": x})],
}


@pytest.mark.parametrize("make", [on_tensors, in_a_graph])
@pytest.mark.parametrize("inputs", INPUTS)
def test_masks_have_the_structure_of_the_inputs(make, inputs):
    found = []
    for K in (keras, fanin):
        layer = noting(K)
        layer(INPUTS[inputs](make(K, False), make(K, True)))
        found.append(layer.noted)
    assert found[0].keys() == {"call", "compute_mask"}
    assert found[1] == found[0]


@pytest.mark.filterwarnings("ignore:.*does not support masking")  # says Keras's model, and hands them on all the same
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # for the key that is not used
@pytest.mark.parametrize("K", [keras, fanin])
def test_a_mask_of_a_model_stays_with_its_input(K):
    a, b = K.Input((3, 4), name="a"), K.Input((3, 4), name="b")
    model = K.Model({"a": a, "b": b}, {"a": K.layers.Activation("relu")(a), "b": K.layers.Activation("relu")(b)})
    for given, masks in [
        ({"b": on_tensors(K, True), "a": on_tensors(K, False)}, None),
        ({"b": on_tensors(K, True), "a": on_tensors(K, False), "unused": on_tensors(K, False)}, None),
        ({"b": on_tensors(K, False), "a": on_tensors(K, False)}, {"a": None, "b": MASK}),
    ]:
        found = model(given, mask=masks)
        assert getattr(found["a"], "_keras_mask", None) is None
        assert torch.equal(found["b"]._keras_mask, MASK)


# --- models in models ----------------------------------------------------------------------------------------


def parts(K):
    """Layers by what they do with masks."""

    class Plain(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, inputs):
            return inputs * 1.0

    class Unsupported(K.layers.Layer):
        def call(self, inputs):
            return inputs * 1.0

    class Drops(Plain):
        def compute_mask(self, inputs, mask=None):
            return None

    class Makes(Plain):
        def compute_mask(self, inputs, mask=None):
            return inputs[..., 0] > 100

    class Within(K.layers.Layer):
        """The layer inside makes the mask."""

        def __init__(self):
            super().__init__()
            self.masking = K.layers.Masking()

        def call(self, inputs):
            return self.masking(inputs)

    class WithinDrops(Within):
        compute_mask = Drops.compute_mask

    class WithinMakes(Within):
        compute_mask = Makes.compute_mask

    class GivesItsInput(Plain):
        def call(self, inputs):
            return inputs

        def compute_mask(self, inputs, mask=None):
            return None

    own = [Plain, Unsupported, Drops, Makes, Within, WithinDrops, WithinMakes, GivesItsInput]
    return {kind.__name__: kind for kind in own} | {"Dense": lambda: K.layers.Dense(4), "Masking": K.layers.Masking}


def models(K):
    """Models of one layer, by their kind."""

    def functional(make):
        x = K.Input((3, 4))
        return K.Model(x, make()(x))

    def own(make):
        class Own(K.Model):
            def __init__(self, supports_masking=False):
                super().__init__()
                self.layer = make()
                if supports_masking:
                    self.supports_masking = True

            def call(self, inputs):
                return self.layer(inputs)

        return Own

    def own_mask(result):
        def make_model(make):
            class Masks(own(make)):
                def compute_mask(self, inputs, mask=None):
                    return mask if result == "given" else None

            return Masks()

        return make_model

    return {
        "layer": lambda make: make(),
        "sequential": lambda make: K.Sequential([make()]),
        "functional": functional,
        "own": lambda make: own(make)(),
        "own that supports masks": lambda make: own(make)(supports_masking=True),
        "own that hands masks on": own_mask("given"),
        "own that drops masks": own_mask(None),
        "functional, sequential": lambda make: functional(lambda: K.Sequential([make()])),
        "sequential, own, functional": lambda make: K.Sequential([own(lambda: functional(make))()]),
    }


def shown(outputs):
    return tree_map(lambda leaf: None if (mask := get_mask(leaf)) is None else mask.tolist(), outputs)


def real(masked):
    x = torch.ones(2, 3, 4)
    x[0, 0] = 0  # what Masking leaves out
    if masked:
        x._keras_mask = MASK
    return x


@pytest.mark.filterwarnings("ignore:.*does not support masking")
@pytest.mark.parametrize("layer", parts(fanin))
@pytest.mark.parametrize("kind", models(fanin))
def test_masks_through_models(kind, layer):
    found = []
    for K in (keras, fanin):
        make, x = parts(K)[layer], K.Input((3, 4))
        model, inside = models(K)[kind](make), models(K)[kind](make)
        first = noting(K)
        outer = K.Model(x, inside(inside(x)))  # shared
        masked = K.Model(x, first(inside(K.layers.Masking(1.0)(x))))
        masked(real(False))
        found.append([
            shown(model(real(False))), shown(model(real(True))), shown(outer(real(False))), shown(outer(real(True))),
            first.noted["call"],
        ])  # fmt: skip
    assert found[1] == found[0]


@pytest.mark.parametrize("kind", ["sequential", "functional", "functional, sequential", "sequential, own, functional"])
def test_a_symbolic_mask_goes_through_nested_models(kind):
    """Keras's symbol has none: a layer that needs one, as this, cannot follow there."""

    class Needs(fanin.layers.Layer):
        def call(self, inputs, mask=None):
            return inputs * mask.unsqueeze(-1)

    x = fanin.Input((3, 4))
    inside = models(fanin)[kind](lambda: fanin.layers.Dropout(0.5, seed=1))
    outer = fanin.Model(x, Needs()(inside(fanin.layers.Masking(1.0)(x))))
    assert outer(real(False)).sum(-1).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert outer(real(False) + 1).sum(-1).tolist() == [[0, 8, 8], [8, 8, 8]]


@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_a_model_that_cannot_be_tried_without_values_hands_masks_on():
    found = []
    for K in (keras, fanin):

        class ByValue(K.layers.Layer):
            def __init__(self):
                super().__init__()
                self.supports_masking = True

            def call(self, inputs):
                return inputs * 1.0 if float(inputs.sum()) > 0 else inputs * 2.0

            def compute_output_shape(self, shape):
                return shape

            def compute_output_spec(self, inputs):
                return keras.KerasTensor(inputs.shape, inputs.dtype)

        x, y = K.Input((3, 4)), K.Input((3, 4))
        inside, notes = K.Model(x, ByValue()(x)), noting(K)
        outer = K.Model(y, notes(inside(K.layers.Masking()(y))))
        outer(real(False))
        found.append((getattr(inside(K.layers.Masking()(y)), "_keras_mask", None), notes.noted["call"]))
    assert found == [(None, True)] * 2


def outputs_of(K):
    """Outputs of each structure, one of them masked."""
    x = K.Input((3, 4))
    a, b = K.layers.Masking()(x), K.layers.Dense(2)(x)
    nests = [a, [a], [a, b], (a, b), {"z": a, "y": b}, [a, {"z": (b, a)}], {"q": [a], "a": b}]
    return [(x, nest) for nest in nests]


@pytest.mark.filterwarnings("ignore:.*does not support masking")
@pytest.mark.parametrize("case", range(7))
def test_compute_mask_has_the_structure_of_the_outputs(case):
    """Keras's own `compute_mask` of a model gives the mask of the inputs back; those that its outputs carry count."""
    theirs, ours = keras.Model(*outputs_of(keras)[case]), fanin.Model(*outputs_of(fanin)[case])
    assert shown(ours(real(True))) == shown(theirs(real(True)))
    for masked in (False, True):
        masks = ours.compute_mask(real(masked))
        expected = theirs(real(masked))
        assert tree_map(lambda mask: None if mask is None else mask.tolist(), masks) == shown(expected)
    assert ours.compute_mask(real(False), MASK) is not None
    symbolic = ours.compute_mask(fanin.Input((3, 4)))
    assert tree_map(lambda mask: mask is not None, symbolic) == tree_map(
        lambda leaf: get_mask(leaf) is not None, ours(real(False))
    )


def test_compute_mask_of_a_model_without_a_graph_is_the_one_given():
    for K in (keras, fanin):
        model = models(K)["own"](lambda K=K: K.layers.Dense(2))
        assert model.compute_mask(real(False), MASK) is MASK
        assert K.Sequential([K.layers.Dense(2)]).compute_mask(real(False), None) is None


def test_a_mask_given_to_a_model_whose_call_takes_none_reaches_its_layers():
    model = models(fanin)["own"](lambda: fanin.layers.Dense(2))
    assert torch.equal(get_mask(model(real(False), mask=MASK)), MASK)
    assert torch.equal(get_mask(model(real(False).numpy(), mask=MASK.numpy())), MASK)


# --- layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_a_cast_keeps_the_mask_for_the_layers_inside(dtype):
    found = []
    for K in (keras, fanin):

        class Block(K.layers.Layer):
            def __init__(self, inside):
                super().__init__(dtype=dtype)
                self.inside = inside

            def call(self, inputs):
                return self.inside(inputs)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(shown(Block(K.layers.Dense(2))(real(True))))
    assert found[0] == found[1] == MASK.tolist()


def two(inputs):
    return inputs * 1.0, inputs * 2.0


def of_two(inputs):
    return inputs[0] + inputs[1]


def by_name(inputs):
    return {"b": inputs * 1.0, "a": inputs * 2.0}


@pytest.mark.parametrize(
    ("call", "compute", "count"),
    [
        (two, None, 1),  # the first output takes the one mask
        (of_two, None, 2),
        (by_name, lambda mask: {"a": None, "b": mask}, 1),
        (by_name, lambda mask: [None, mask], 1),  # in the order of the keys
        (two, lambda mask: (None, mask), 1),
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_masks_of_several_outputs(call, compute, count, symbolic):
    found = []
    for K in (keras, fanin):

        class Several(K.layers.Layer):
            def __init__(self):
                super().__init__()
                self.supports_masking = True

            def call(self, inputs):
                return call(inputs)

        class Own(Several):
            def compute_mask(self, inputs, mask=None):
                return compute(mask)

        x = K.layers.Masking()(K.Input((3, 4))) if symbolic else real(True)
        outputs = (Several if compute is None else Own)()(x if count == 1 else [x] * count)
        found.append(tree_map(lambda leaf: getattr(leaf, "_keras_mask", None) is not None, outputs))
    assert found[1] == found[0]
