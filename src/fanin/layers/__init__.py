"""Layers: the contract, Dense, the input layer, and a wrapper for any `torch.nn.Module`."""

from fanin.layers.dense import Dense
from fanin.layers.input_layer import Input, InputLayer
from fanin.layers.input_spec import InputSpec
from fanin.layers.layer import Layer
from fanin.layers.module import TorchModule

__all__ = ["Dense", "Input", "InputLayer", "InputSpec", "Layer", "TorchModule"]
