"""What every test starts from: seeded generators, default settings, automatic names counted from the first."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

import fanin.config

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers already share the cores


# What tests run in other ways than by importing it: scripts, and a program for other Pythons.
HERE = Path(__file__).parent
collect_ignore = [
    *(str(path) for path in (HERE / "scripts").glob("*.py") if not path.name.startswith("test_")),
    str(HERE / "parity" / "other_keras.py"),
]
if "SECOND_DEVICE" not in os.environ:
    collect_ignore += [str(path) for path in (HERE / "devices").glob("*.py") if not path.name.startswith("test_")]


class CleanStart:
    """Registered as a plugin, so that it holds for the doctests under src as well."""

    @pytest.fixture(autouse=True)
    def clean_start(self) -> None:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        fanin.config.clear_session(free_memory=False)
        fanin.config.set_floatx("float32")
        fanin.config.set_epsilon(1e-7)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Torch, Keras and all the tests are a million objects that stay. Collections of garbage, which `clear_session`,
    tracing and many tests ask for, would look at each of them again: half the time of all tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(CleanStart(), "clean-start")
