"""The cases: model, batch, precision, what is asked of fanin, and the least work of a step, counted.

A case is Dense layers of the given widths with relu between them. The data, the first weights and the labels are drawn
from fixed seeds, so that every peer starts from the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

RATE, EPSILON = 1e-3, 1e-7  # Adam, for every peer
DROPPED = 0.1

KERAS = ("keras-torch", "keras-jax", "keras-tensorflow")
TORCH = ("torch", "torch-compile")
JAX = ("jax-scan", "jax-step")
ALL = (*TORCH, *JAX, *KERAS, "flax", "sklearn")


@dataclass(frozen=True)
class Target:
    """`own` shall take at most this share of the time that the fastest of `peers` takes."""

    at_most: float
    title: str
    peers: tuple[str, ...]
    own: str = "fanin"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    `steps` is the number of steps in an epoch, 0 for a prediction; `epochs` how many of them are timed, after one that
    is not; `share` the least part of the machine's limit that `own` shall reach; `norm` adds LayerNorm and Dropout to a
    plain torch module.
    """

    name: str
    title: str
    widths: tuple[int, ...]
    batch: int
    peers: tuple[str, ...]
    dtype: str = "float32"
    steps: int = 0
    epochs: int = 5
    targets: tuple[Target, ...] = ()
    share: float | None = None
    norm: bool = False
    own: str = "fanin"

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, units) of each Dense layer."""
        return list(zip(self.widths, self.widths[1:], strict=False))

    def products(self) -> list[tuple[str, int, int, int]]:
        """The matrix products of a step, (kind, rows, inner, columns); the first layer's input has no gradient."""
        found = [("forward", self.batch, inputs, units) for inputs, units in self.layers]
        if self.steps:
            found += [("weights' gradient", inputs, self.batch, units) for inputs, units in self.layers]
            found += [("inputs' gradient", self.batch, units, inputs) for inputs, units in self.layers[1:]]
        return found

    def flops(self) -> int:
        """Two for each multiplication and addition in the products."""
        return sum(2 * rows * inner * columns for _, rows, inner, columns in self.products())

    def bytes(self) -> int:
        """What has to move at least, were all else kept in registers.

        A prediction reads the weights in its precision and the rows in float32, and writes the outputs. A step reads
        the rows and labels, each weight, its gradient and Adam's two moments, and writes weight and moments, in
        float32.
        """
        weights = sum(inputs * units + units for inputs, units in self.layers)
        if self.steps:
            return 7 * 4 * weights + self.batch * (4 * self.widths[0] + 8)
        return weights * (2 if self.dtype == "bfloat16" else 4) + 4 * self.batch * (self.widths[0] + self.widths[-1])


def data(case: Case) -> tuple[Any, Any]:
    """Rows (N, I) in float32, and labels (N,) that a linear map gives them, so that a loss can fall."""
    random = np.random.default_rng(1)
    x = random.standard_normal((max(1, case.steps) * case.batch, case.widths[0]), dtype=np.float32)
    teacher = random.standard_normal((case.widths[0], case.widths[-1]), dtype=np.float32)
    return x, (x @ teacher).argmax(1)


def weights(case: Case) -> list[tuple[Any, Any]]:
    """Kernels (I, U), Glorot's uniform, and zero biases (U,), in float32."""
    random = np.random.default_rng(2)
    found = []
    for inputs, units in case.layers:
        bound = math.sqrt(6 / (inputs + units))
        kernel = (random.random((inputs, units), dtype=np.float32) * 2 - 1) * np.float32(bound)
        found.append((kernel, np.zeros(units, np.float32)))
    return found


TRAIN = (
    Case(
        "small", "fit 784-128-128-10, batch 32", (784, 128, 128, 10), 32, ("fanin", *ALL), steps=200, share=0.25,
        targets=(
            Target(0.6, "JAX's scan", ("jax-scan",)),
            Target(0.4, "torch with fused Adam", ("torch",)),
            Target(0.4, "Keras's best backend", KERAS),
            Target(0.1, "Keras on torch", ("keras-torch",)),
        ),
    ),
    Case(
        "medium", "fit 784-512-512-10, batch 128", (784, 512, 512, 10), 128, ("fanin", *ALL), steps=100, share=0.65,
        targets=(Target(0.85, "the best peer", ALL),),
    ),
    Case(
        "large", "fit 784-2048-2048-10, batch 1024", (784, 2048, 2048, 10), 1024, ("fanin", *ALL), steps=10, epochs=3,
        share=0.92, targets=(Target(0.9, "the best peer", ALL),),
    ),
    Case(
        "large-bf16", "fit 784-2048-2048-10, batch 1024, mixed_bfloat16", (784, 2048, 2048, 10), 1024,
        ("fanin", *TORCH, *JAX, *KERAS, "flax"), "bfloat16", steps=10, epochs=3, share=0.5,
        targets=(Target(0.8, "torch's autocast with fused Adam", ("torch",)),),
    ),
    Case(
        "module", "a torch.nn module in compile_step: 784-256-256-10 with LayerNorm and Dropout, batch 64",
        (784, 256, 256, 10), 64, ("fanin", *TORCH), steps=100, norm=True,
        targets=(Target(0.5, "its eager loop with fused Adam", ("torch",)),),
    ),
)  # fmt: skip

PREDICT = (
    Case(
        "row", "predict of one row, 784-128-128-10", (784, 128, 128, 10), 1,
        ("fanin", "fanin-call", *TORCH, "jax", *KERAS, "onnxruntime", "openvino", "numpy"),
        targets=(
            Target(1.3, "ONNX Runtime", ("onnxruntime",)),
            Target(1.05, "ONNX Runtime", ("onnxruntime",), own="fanin-call"),
            Target(0.03, "Keras's best backend", KERAS),
        ),
    ),
    Case(
        "rows-bf16", "predict of 256 rows, 1024 x 4, bfloat16", (1024,) * 5, 256,
        ("fanin", "fanin-call", *TORCH, "jax", *KERAS, "openvino"), "bfloat16", share=0.5,
        targets=(Target(0.7, "OpenVINO", ("openvino",)),),
    ),
)  # fmt: skip

MILLION = Case(
    "million",
    "predict of 1,000,000 rows, 784-128-128-10",
    (784, 128, 128, 10),
    1_000_000,
    ("fanin", "torch"),
    share=0.9,
)
CASES = {case.name: case for case in (*TRAIN, *PREDICT, MILLION)}
