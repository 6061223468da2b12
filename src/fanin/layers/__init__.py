"""Layers: the contract, Dense, the input layer, the simple layers around Dense, and a wrapper for any
`torch.nn.Module`."""

from typing import TYPE_CHECKING

from fanin.layers.activation import Activation
from fanin.layers.activity_regularization import ActivityRegularization
from fanin.layers.alpha_dropout import AlphaDropout
from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.layer import Layer
from fanin.layers.base.serialization import deserialize, serialize
from fanin.layers.batch_normalization import BatchNormalization
from fanin.layers.concatenate import Concatenate, concatenate
from fanin.layers.dense import Dense
from fanin.layers.dropout import Dropout
from fanin.layers.embedding import Embedding
from fanin.layers.flatten import Flatten
from fanin.layers.gaussian_dropout import GaussianDropout
from fanin.layers.gaussian_noise import GaussianNoise
from fanin.layers.identity import Identity
from fanin.layers.input_layer import Input, InputLayer
from fanin.layers.layer_normalization import LayerNormalization
from fanin.layers.masking import Masking
from fanin.layers.merge import (
    Add,
    Average,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    maximum,
    minimum,
    multiply,
    subtract,
)
from fanin.layers.module import TorchModule
from fanin.layers.normalization import Normalization
from fanin.layers.prelu import PReLU
from fanin.layers.relu import ELU, LeakyReLU, ReLU
from fanin.layers.rescaling import Rescaling
from fanin.layers.reshape import Reshape
from fanin.layers.rms_normalization import RMSNormalization
from fanin.layers.softmax import Softmax
from fanin.layers.unit_normalization import UnitNormalization
from fanin.missing_names import explain

if not TYPE_CHECKING:  # which would then take every name for known
    __getattr__ = explain(__name__)

__all__ = [
    "ELU",
    "Activation",
    "ActivityRegularization",
    "Add",
    "AlphaDropout",
    "Average",
    "BatchNormalization",
    "Concatenate",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "Input",
    "InputLayer",
    "InputSpec",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "Maximum",
    "Minimum",
    "Multiply",
    "Normalization",
    "PReLU",
    "RMSNormalization",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
    "Subtract",
    "TorchModule",
    "UnitNormalization",
    "add",
    "average",
    "concatenate",
    "deserialize",
    "maximum",
    "minimum",
    "multiply",
    "serialize",
    "subtract",
]
