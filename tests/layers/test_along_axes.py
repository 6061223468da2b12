"""What the layers that normalize along axes share: the axes, which inputs they refuse, and their dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin.layers import Input, LayerNormalization, RMSNormalization, UnitNormalization

every_layer = pytest.mark.parametrize("kind", [LayerNormalization, RMSNormalization, UnitNormalization])


@every_layer
@pytest.mark.parametrize(
    ("axis", "error", "message"),
    [
        (1.5, TypeError, "axis must be an integer or several, found 1.5"),
        ("1", TypeError, "axis must be an integer or several, found '1'"),
        (None, TypeError, "axis must be an integer or several, found None"),
        ([1, 0.5], TypeError, "axis must be an integer or several"),
        ([], ValueError, "axis must name at least one axis, found none"),
    ],
)
def test_axes_that_are_refused(kind, axis, error, message):
    with pytest.raises(error, match=f"{kind.__name__}: {message}"):
        kind(axis)


@every_layer
def test_axes_are_kept_as_given(kind):
    assert kind(np.int64(1)).get_config()["axis"] == 1
    assert kind((2, -2)).get_config()["axis"] == [2, -2]


@every_layer
def test_inputs_that_are_refused(kind):
    for call in (lambda layer: layer(torch.ones(2, 3)), lambda layer: layer.compute_output_shape((None, 3))):
        with pytest.raises(ValueError, match="'mine': axis 2 does not exist in an input of rank 2"):
            call(kind(axis=2, name="mine"))
        with pytest.raises(ValueError, match=r"'mine': axes \[1, -1\] name the same axis twice"):
            call(kind(axis=[1, -1], name="mine"))
    with pytest.raises(ValueError, match="'mine': axis -1 does not exist in an input of rank 0"):
        kind(name="mine").compute_output_shape(())
    with pytest.raises(TypeError, match="'mine' takes real numbers"):
        kind(name="mine")(torch.ones(2, 3, dtype=torch.complex64))


@every_layer
@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_bfloat16", "float32", "float64"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8])
def test_the_output_is_that_of_float64_rounded_once(kind, policy, dtype):
    layer, exact = kind(dtype=policy), kind(dtype="float64")
    x = torch.tensor([[1, 2, 4], [3, 3, 9]], dtype=dtype)
    y = layer(x)
    assert y.dtype == layer.dtype_policy.compute == layer(Input((3,))).dtype
    # float32's own roundings, and the one to the dtype of the result
    torch.testing.assert_close(y.double(), exact(x.double()), rtol=torch.finfo(y.dtype).eps, atol=2**-20)


@every_layer
def test_one_row_without_its_batch(kind):
    layer = kind()
    x = torch.randn(5, 3)
    y = layer(x)
    torch.testing.assert_close(layer(x[0]), y[0])
    torch.testing.assert_close(torch.func.vmap(layer)(x), y)
    assert layer(x[:0]).shape == (0, 3)
