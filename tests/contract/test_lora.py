"""Rows 12 and 13: LoRA by argument and by `enable_lora`, and that its training costs less."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fanin.layers import Dense


def test_lora_rank_freezes_the_kernel_and_adds_two_small_matrices():
    layer = Dense(4, lora_rank=2, lora_alpha=8)
    inputs = torch.randn(5, 3)
    layer(inputs)
    names = {id(weight): name for name, weight in layer.named_parameters()}
    assert [names[id(weight)] for weight in layer.weights] == ["kernel", "bias", "lora_kernel_a", "lora_kernel_b"]
    assert [names[id(weight)] for weight in layer.trainable_weights] == ["bias", "lora_kernel_a", "lora_kernel_b"]
    assert [names[id(weight)] for weight in layer.non_trainable_weights] == ["kernel"]
    assert [tuple(weight.shape) for weight in layer.weights] == [(3, 4), (4,), (3, 2), (2, 4)]
    assert (layer.lora_rank, layer.lora_alpha) == (2, 8)
    torch.nn.init.normal_(layer.lora_kernel_b)
    expected = inputs @ (layer.kernel + 8 / 2 * layer.lora_kernel_a @ layer.lora_kernel_b) + layer.bias
    torch.testing.assert_close(layer(inputs), expected)


def test_lora_arguments_are_in_the_config():
    config = Dense(4, lora_rank=2).get_config()
    assert (config["lora_rank"], config["lora_alpha"]) == (2, 2)
    assert "lora_rank" not in Dense(4).get_config()
    assert Dense(4).lora_rank is None
    assert Dense.from_config({**config, "lora_alpha": 6}).lora_alpha == 6


def step_cost(layer: Dense, inputs: torch.Tensor) -> int:
    """The floating-point operations of a forward and a backward pass."""
    with FlopCounterMode(display=False) as counter:
        layer(inputs).sum().backward()
    return counter.get_total_flops()


def test_lora_trains_at_less_cost_than_the_whole_kernel():
    """Per row 2 I U forward, 2 I U for the gradient of the inputs; LoRA adds 6 R (I + U), the whole kernel 2 I U."""
    inputs = torch.randn(8, 256, requires_grad=True)
    full, lora = Dense(256), Dense(256, lora_rank=4)
    full(inputs), lora(inputs)
    assert step_cost(full, inputs) == 8 * 3 * 2 * 256 * 256
    assert step_cost(lora, inputs) == 8 * (2 * 2 * 256 * 256 + 3 * 2 * 4 * 512)
    assert sum(weight.numel() for weight in lora.trainable_weights) < full.count_params() / 20


def test_enable_lora_on_an_existing_layer():
    layer = Dense(4, "relu", kernel_regularizer="l2")
    inputs = torch.randn(5, 3)
    before = layer(inputs)
    kernel = layer.kernel
    layer.enable_lora(2)
    assert torch.equal(layer(inputs), before)
    assert layer.kernel is kernel
    assert isinstance(kernel, torch.nn.Parameter)
    assert not kernel.requires_grad
    assert (layer.lora_rank, layer.lora_alpha) == (2, 2)
    assert len(layer.losses) == 2  # of A and of B; the kernel does not train


def test_enable_lora_is_refused_before_build_twice_and_with_a_constraint():
    with pytest.raises(ValueError, match="not built, so enable_lora"):
        Dense(4).enable_lora(2)
    layer = Dense(4, lora_rank=2)
    layer.build((None, 3))
    with pytest.raises(ValueError, match="an adapter 'lora' already"):
        layer.enable_lora(2)
    layer = Dense(4, kernel_constraint="max_norm")
    layer.build((None, 3))
    with pytest.raises(ValueError, match="a constraint on the kernel"):
        layer.enable_lora(2)
    assert layer.kernel.requires_grad
