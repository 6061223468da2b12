"""InputSpec: what a layer accepts, and the messages when it does not fit."""

from __future__ import annotations

import pytest
import torch

from fanin.layers import Input, InputSpec, Layer


class Takes(Layer):
    def __init__(self, spec):
        super().__init__(name="takes")
        self.input_spec = spec

    def call(self, inputs):
        return inputs[0] if isinstance(inputs, list) else inputs


CASES = [
    (InputSpec(ndim=2), (2, 3), (2, 3, 4), "expected ndim=2, found ndim=3"),
    (InputSpec(min_ndim=2), (2, 3), (3,), "expected min_ndim=2, found ndim=1"),
    (InputSpec(max_ndim=2), (2, 3), (2, 3, 4), "expected max_ndim=2, found ndim=3"),
    (InputSpec(axes={-1: 3}), (2, 3), (2, 4), "expected axis -1 to have size 3, found 4"),
    (InputSpec(axes={1: 3}), (2, 3), (2,), "expected axis 1 to have size 3, found no such axis"),
    (InputSpec(shape=(None, 3)), (2, 3), (2, 4), r"expected shape=\(None, 3\), found shape=\(2, 4\)"),
    (InputSpec(shape=(2, 3)), (2, 3), (2, 3, 1), "expected ndim=2, found ndim=3"),
]


@pytest.mark.parametrize(("spec", "right", "wrong", "message"), CASES)
def test_messages_on_real_and_symbolic_tensors(spec, right, wrong, message):
    layer = Takes(spec)
    layer(torch.ones(right))
    layer(Input(batch_shape=right))
    for value in (torch.ones(wrong), Input(batch_shape=wrong)):
        with pytest.raises(ValueError, match=f"Input 0 of layer 'takes' is incompatible: {message}") as caught:
            layer(value)
        assert f"Full shape received: {wrong}" in str(caught.value)


def test_dtype():
    layer = Takes(InputSpec(dtype="int64"))
    layer(torch.ones(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected dtype=int64, found dtype=int32"):
        layer(torch.ones(2, dtype=torch.int32))


def test_unknown_sizes_fit():
    layer = Takes(InputSpec(shape=(4, 3)))
    layer(Input(batch_shape=(None, 3)))
    layer(Input(batch_shape=(4, None)))
    Takes(InputSpec(axes={-1: 3}))(Input((None,)))


def test_one_spec_for_each_input():
    layer = Takes([InputSpec(ndim=2), InputSpec(ndim=3)])
    layer([torch.ones(1, 2), torch.ones(1, 2, 3)])
    with pytest.raises(ValueError, match="Input 1 of layer 'takes' is incompatible: expected ndim=3"):
        layer([torch.ones(1, 2), torch.ones(1, 2)])
    with pytest.raises(ValueError, match=r"expects 2 input\(s\), found 1"):
        layer(torch.ones(1, 2))


def test_bad_specs_are_refused():
    with pytest.raises(ValueError, match="axis 2 does not exist in an input of rank 2"):
        InputSpec(ndim=2, axes={2: 3})
    with pytest.raises(ValueError, match="axis -3 does not exist"):
        InputSpec(shape=(2, 3), axes={-3: 3})
    with pytest.raises(TypeError, match="axes must be a dict"):
        InputSpec(axes=[1])
    with pytest.raises(ValueError, match="Unknown dtype"):
        InputSpec(dtype="float3")


def test_config_and_repr():
    spec = InputSpec(dtype="float32", min_ndim=2, axes={-1: 3})
    twin = InputSpec.from_config(spec.get_config())
    assert twin.get_config() == spec.get_config()
    assert repr(spec) == "InputSpec(dtype=float32, min_ndim=2, axes={-1: 3})"
    assert InputSpec(shape=(None, 3)).ndim == 2
    assert InputSpec.from_config(InputSpec(shape=(None, 3)).get_config()).shape == (None, 3)
