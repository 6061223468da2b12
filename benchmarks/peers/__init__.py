"""The peers: for each name what it needs, and the functions that train and predict with it.

A function takes a Case. A trainer returns the record of its epochs; a predictor returns a function from rows to
outputs, both numpy arrays. Each file imports its library, so it is imported only in the process that measures it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Case, data
from benchmarks.clock import Record, per_call
from benchmarks.rounds import Peer

CPU = {"JAX_PLATFORMS": "cpu"}


@dataclass(frozen=True)
class Contestant:
    """A peer, and where its functions are: "file:function" in this folder; empty where it does not take part."""

    peer: Peer
    train: str = ""
    predict: str = ""


def _keras(backend: str, package: str, environment: dict[str, str], slow: bool) -> Contestant:
    peer = Peer(f"keras-{backend}", ("keras", package), {"KERAS_BACKEND": backend, **environment}, slow)
    return Contestant(peer, "keras_:train", "keras_:predict")


_ALL = (
    Contestant(Peer("limit")),
    Contestant(Peer("fanin"), "fanin_:train", "fanin_:predict"),
    Contestant(Peer("fanin-call"), predict="fanin_:call"),
    Contestant(Peer("torch"), "torch_:train", "torch_:predict"),
    Contestant(Peer("torch-compile", slow=True), "torch_:train_compiled", "torch_:predict_compiled"),
    Contestant(Peer("jax", ("jax",), CPU), predict="jax_:predict"),
    Contestant(Peer("jax-scan", ("jax",), CPU), "jax_:train_scan"),
    Contestant(Peer("jax-step", ("jax",), CPU), "jax_:train_step"),
    _keras("torch", "torch", {}, slow=True),
    _keras("jax", "jax", CPU, slow=False),
    _keras("tensorflow", "tensorflow", {"TF_CPP_MIN_LOG_LEVEL": "3"}, slow=True),
    Contestant(Peer("flax", ("flax", "optax"), CPU), "flax_:train"),
    Contestant(Peer("sklearn", ("sklearn",)), "sklearn_:train"),
    Contestant(Peer("onnxruntime", ("onnx", "onnxruntime")), predict="onnx_:predict"),
    Contestant(Peer("openvino", ("onnx", "openvino")), predict="openvino_:predict"),
    Contestant(Peer("numpy"), predict="numpy_:predict"),
)
PEERS = {contestant.peer.name: contestant for contestant in _ALL}


def find(place: str) -> Callable[[Case], Any]:
    """The function at "file:function"."""
    file, name = place.split(":")
    found: Callable[[Case], Any] = getattr(importlib.import_module(f"benchmarks.peers.{file}"), name)
    return found


def run(case: Case, name: str) -> Record:
    """The record of one peer in this process."""
    if name == "limit":
        from benchmarks import limits

        return limits.limit(case)
    if case.steps:
        record: Record = find(PEERS[name].train)(case)
        return record
    rows, _ = data(case)
    predict = find(PEERS[name].predict)(case)
    return {"us": per_call(lambda: predict(rows))}
