"""Weights in `.weights.h5`: all or nothing, both ways, with every mismatch named."""

import os
import resource
import sys
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import fanin
from fanin.errors import CorruptError, FormatError, MismatchError
from fanin.layers import BatchNormalization, Concatenate, Dense, Dropout, Embedding, PReLU
from fanin.saving import load_weights, save_weights

FORMATS = [".weights.h5", ".safetensors"]


def data(rows=12, inputs=3, outputs=2):
    generator = np.random.default_rng(1)
    return generator.normal(size=(rows, inputs)).astype("f4"), generator.normal(size=(rows, outputs)).astype("f4")


def small(optimizer=None, units=4, **kwargs):
    model = fanin.Sequential([fanin.Input((3,)), Dense(units, "relu", **kwargs), Dense(2)])
    if optimizer is not None:
        model.compile(optimizer, "mse")
    return model


def bits(model):
    return [w.detach().flatten().view(torch.uint8).clone() for w in model.state_dict().values()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- round trip -------------------------------------------------------------------------------------------------------

kinds = st.sampled_from(["dense", "plain", "norm", "dropout", "prelu", "nested", "frozen"])


def build(parts, dtype, seed):
    torch.manual_seed(seed)
    layers = []
    for kind, units in parts:
        made = {
            "dense": lambda u: Dense(u, "tanh", dtype=dtype),
            "plain": lambda u: Dense(u, use_bias=False, dtype=dtype),
            "norm": lambda _: BatchNormalization(dtype=dtype),
            "dropout": lambda _: Dropout(0.5, dtype=dtype),
            "prelu": lambda _: PReLU(dtype=dtype),
            "nested": lambda u: fanin.Sequential([Dense(u, dtype=dtype), BatchNormalization(dtype=dtype)]),
            "frozen": lambda u: Dense(u, trainable=False, dtype=dtype),
        }[kind](units)
        layers.append(made)
    model = fanin.Sequential([fanin.Input((3,)), *layers])
    with torch.no_grad():
        for weight in model.weights:
            weight.copy_(torch.randn(weight.shape))
    return model


@pytest.mark.parametrize("ending", FORMATS)
@settings(derandomize=True, deadline=None, max_examples=25, phases=[Phase.generate])
@given(
    parts=st.lists(st.tuples(kinds, st.integers(1, 5)), min_size=1, max_size=5),
    dtype=st.sampled_from(["float32", "float64", "float16", "bfloat16", "mixed_bfloat16"]),
)
def test_random_models_come_back(tmp_path_factory, ending, parts, dtype):
    path = tmp_path_factory.mktemp("w") / f"m{ending}"
    model, other = build(parts, dtype, 1), build(parts, dtype, 2)
    save_weights(model, path)
    load_weights(other, str(path))
    assert same(bits(model), bits(other))
    assert [w.dtype for w in other.weights] == [w.dtype for w in model.weights]
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("ending", FORMATS)
def test_graphs_subclasses_and_torch_modules_come_back(tmp_path, ending):
    def graph():
        words, rest = fanin.Input((4,), dtype="int32", name="words"), fanin.Input((3,), name="rest")
        shared = Dense(5, name="shared")
        pieces = [shared(rest), shared(rest), fanin.layers.Flatten()(Embedding(9, 2)(words))]
        return fanin.Model([words, rest], Dense(2)(Concatenate()(pieces)))

    class Own(fanin.Model):
        def __init__(self):
            super().__init__()
            self.first, self.rest = Dense(4), nn.ModuleList([Dense(4), nn.Linear(4, 4)])
            self.scale = nn.Parameter(torch.randn(3))

        def call(self, x):
            x = self.first(x * self.scale)
            for layer in self.rest:
                x = layer(x)
            return x

    def own():
        model = Own()
        model(torch.ones(2, 3))
        return model

    def plain():
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Dense(2))
        model(torch.ones(2, 3))
        return model

    for number, make in enumerate((graph, own, plain)):
        model, other = make(), make()
        assert not same(bits(model), bits(other))
        path = tmp_path / f"m{number}{ending}"
        save_weights(model, path)
        load_weights(other, path)
        assert same(bits(model), bits(other))


def test_training_goes_on_where_it_stopped(tmp_path):
    x, y = data()
    model = small("adam")
    model.fit(x, y, verbose=0)
    save_weights(model, tmp_path / "m.weights.h5")
    other = small("adam")
    load_weights(other, tmp_path / "m.weights.h5")
    assert other.optimizer.iterations == 1
    for m in (model, other):
        m.fit(x, y, shuffle=False, verbose=0)
    assert same(bits(model), bits(other))


def test_optimizers_that_do_not_fit_are_left_alone_with_a_warning(tmp_path):
    x, y = data()
    model = small("adam")
    model.fit(x, y, verbose=0)
    save_weights(model, tmp_path / "adam.weights.h5")
    save_weights(small("adam"), tmp_path / "new.weights.h5")
    save_weights(small(), tmp_path / "none.weights.h5")
    other = small("sgd")
    with pytest.warns(UserWarning, match=r"state of the optimizer 'sgd.*' is left out") as caught:
        load_weights(other, tmp_path / "adam.weights.h5")
    assert caught[0].filename == __file__
    assert same(bits(model), bits(other))
    assert other.optimizer.iterations == 0
    load_weights(small(), tmp_path / "adam.weights.h5")  # not compiled: only the weights
    before = [v.clone() for v in model.optimizer.variables]
    load_weights(model, tmp_path / "none.weights.h5")
    with pytest.warns(UserWarning, match="is left out"):  # slots of 0 steps would not fit this iteration
        load_weights(model, tmp_path / "new.weights.h5")
    assert all(torch.equal(a, b) for a, b in zip(before, model.optimizer.variables, strict=True))


@pytest.mark.parametrize("stored", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("wanted", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("ending", FORMATS)
def test_floats_of_another_width_are_cast(tmp_path, ending, stored, wanted):
    model, other = small(dtype=stored), small(dtype=wanted)
    save_weights(model, tmp_path / f"m{ending}")
    load_weights(other, tmp_path / f"m{ending}")
    for a, b in zip(model.weights, other.weights, strict=True):
        assert torch.equal(a.detach().to(b.dtype), b.detach())


def test_equal_models_give_equal_bytes(tmp_path):
    model = small("adam")
    model.fit(*data(), verbose=0)
    for ending in FORMATS:
        for name in ("a", "b"):
            save_weights(model, tmp_path / f"{name}{ending}")
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_weights_out_of_an_archive(tmp_path):
    model, other = small("adam"), small("adam")
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "m.keras")
    load_weights(other, tmp_path / "m.keras")
    assert same(bits(model), bits(other))
    assert other.optimizer.iterations == 1


def test_objects_to_skip(tmp_path):
    model, other = small(), small()
    save_weights(model, tmp_path / "m.weights.h5")
    before = other.layers[0].kernel.detach().clone()
    load_weights(other, tmp_path / "m.weights.h5", objects_to_skip=[other.layers[0]])
    assert torch.equal(other.layers[0].kernel, before)
    assert torch.equal(other.layers[1].kernel, model.layers[1].kernel)


# --- mismatches -------------------------------------------------------------------------------------------------------


def misfit(ending):
    """A model, and one whose first and third layer have other shapes."""
    one = fanin.Sequential([fanin.Input((3,)), Dense(4), Dense(4), Dense(2)])
    two = fanin.Sequential([fanin.Input((5,)), Dense(4), Dense(4), Dense(7)])
    return one, two


@pytest.mark.parametrize("ending", FORMATS)
def test_all_mismatches_come_in_one_error_and_nothing_changes(tmp_path, ending):
    model, other = misfit(ending)
    save_weights(model, tmp_path / f"m{ending}")
    other.compile("adam", "mse")
    other.fit(*data(4, 5, 7), verbose=0)
    before, state = bits(other), [v.clone() for v in other.optimizer.variables]
    with pytest.raises(MismatchError) as caught:
        load_weights(other, tmp_path / f"m{ending}")
    message = str(caught.value)
    assert f"m{ending}" in message
    for shapes in ("(3, 4)", "(5, 4)", "(4, 2)", "(4, 7)", "(2,)", "(7,)"):
        assert shapes in message, shapes
    assert same(bits(other), before)
    assert all(torch.equal(a, b) for a, b in zip(state, other.optimizer.variables, strict=True))


@pytest.mark.parametrize("ending", FORMATS)
def test_skip_mismatch_loads_the_rest_and_lists_what_it_left_out(tmp_path, ending):
    model, other = misfit(ending)
    save_weights(model, tmp_path / f"m{ending}")
    before = other.layers[0].kernel.detach().clone(), other.layers[2].kernel.detach().clone()
    with pytest.warns(UserWarning, match="does not fit") as caught:
        load_weights(other, tmp_path / f"m{ending}", skip_mismatch=True)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert all(text in str(caught[0].message) for text in ("(3, 4)", "(5, 4)", "(4, 2)", "(4, 7)", f"m{ending}"))
    assert torch.equal(other.layers[1].kernel, model.layers[1].kernel)
    assert torch.equal(other.layers[0].kernel, before[0])
    assert torch.equal(other.layers[2].kernel, before[1])


@pytest.mark.parametrize("ending", FORMATS)
def test_layers_more_or_less(tmp_path, ending):
    save_weights(small(), tmp_path / f"m{ending}")
    more = fanin.Sequential([fanin.Input((3,)), Dense(4), Dense(2), Dense(3)])
    less = fanin.Sequential([fanin.Input((3,)), Dense(4)])
    for other in (more, less):
        before = bits(other)
        with pytest.raises(MismatchError):
            load_weights(other, tmp_path / f"m{ending}")
        assert same(bits(other), before)
        with pytest.warns(UserWarning, match="left out"):
            load_weights(other, tmp_path / f"m{ending}", skip_mismatch=True)


def test_hundreds_of_mismatches_are_counted(tmp_path):
    model = fanin.Sequential([fanin.Input((3,)), *(Dense(3) for _ in range(60))])
    other = fanin.Sequential([fanin.Input((4,)), *(Dense(4) for _ in range(60))])
    save_weights(model, tmp_path / "m.weights.h5")
    with pytest.raises(MismatchError, match="and 40 more"):
        load_weights(other, tmp_path / "m.weights.h5")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ending", FORMATS)
def test_a_warning_turned_into_an_error_changes_nothing_either(tmp_path, ending):
    model, other = misfit(ending)
    save_weights(model, tmp_path / f"m{ending}")
    before = bits(other)
    with pytest.raises(UserWarning):
        load_weights(other, tmp_path / f"m{ending}", skip_mismatch=True)
    assert same(bits(other), before)


# --- bad calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_models_that_are_not_built(tmp_path, ending):
    unbuilt = [
        fanin.Sequential([Dense(2)]),
        Dense(2, name="alone"),
        nn.Sequential(nn.LazyLinear(3)),
        nn.Sequential(Dense(2)),
    ]
    save_weights(small(), tmp_path / f"m{ending}")
    for model in unbuilt:
        with pytest.raises(ValueError, match="has no weights yet"):
            save_weights(model, tmp_path / f"n{ending}")
        with pytest.raises(ValueError, match="has no weights yet"):
            load_weights(model, tmp_path / f"m{ending}")
    assert os.listdir(tmp_path) == [f"m{ending}"]


def test_paths(tmp_path):
    model = small()
    for name in ("m.h5", "m.hdf5", "m.keras", "m.pt", "m"):
        with pytest.raises(ValueError, match=r"must end in '.weights.h5' or '.safetensors'"):
            save_weights(model, tmp_path / name)
    for name, save in (("m.h5", save_weights), ("n.h5", fanin.Sequential.save)):
        with pytest.raises(ValueError, match=r"Keras 2's \.h5 is only read"):
            save(model, tmp_path / name)
    with pytest.raises(ValueError, match="use save"):
        save_weights(model, tmp_path / "m.keras")
    with pytest.raises(FileNotFoundError):
        save_weights(model, tmp_path / "no" / "m.weights.h5")
    for ending in FORMATS:
        save_weights(model, tmp_path / f"m{ending}")
        with pytest.raises(ValueError, match="exists already"):
            save_weights(model, tmp_path / f"m{ending}", overwrite=False)
        with pytest.raises(FileNotFoundError):
            load_weights(model, tmp_path / f"none{ending}")
        os.mkdir(tmp_path / f"folder{ending}")
        with pytest.raises(IsADirectoryError):
            load_weights(model, tmp_path / f"folder{ending}")
        with pytest.raises(IsADirectoryError):
            save_weights(model, tmp_path / f"folder{ending}")
        os.mkfifo(tmp_path / f"pipe{ending}")
        with pytest.raises(CorruptError):
            load_weights(model, tmp_path / f"pipe{ending}")
    with pytest.raises(TypeError, match="'by_order'"):
        load_weights(model, tmp_path / "m.weights.h5", by_order=True)
    for ending in FORMATS:
        with pytest.raises(ValueError, match="by_name"):
            load_weights(model, tmp_path / f"m{ending}", by_name=True)
    with pytest.raises(ValueError, match="objects_to_skip"):
        load_weights(model, tmp_path / "m.safetensors", objects_to_skip=[model.layers[0]])


# --- checksums --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_every_flipped_bit_is_found_or_harmless(tmp_path, ending):
    model, other = small("adam"), small("adam")
    model.fit(*data(), verbose=0)
    path = tmp_path / f"m{ending}"
    save_weights(model, path)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    before, accepted = bits(other), 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            load_weights(other, path)
            accepted += 1
            assert same(bits(other), bits(model))
            other = small("adam")
            before = bits(other)
        except FormatError as error:
            assert f"m{ending}" in str(error)  # noqa: PT017 - either outcome is right
            assert same(bits(other), before)
    assert accepted < 25  # of the name and the version in the metadata, and of the checksum's own name


def test_files_without_a_checksum_load(tmp_path):
    model, other = small(), small()
    save_weights(model, tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5", "r+") as file:
        del file.attrs["sha256"]
    load_weights(other, tmp_path / "m.weights.h5")
    assert same(bits(model), bits(other))
    with h5py.File(tmp_path / "m.weights.h5", "r+") as file:
        file.attrs["sha256"] = np.bytes_(b"0" * 64)
    with pytest.raises(CorruptError, match="delete the attribute"):
        load_weights(other, tmp_path / "m.weights.h5")


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk():
    """While it is called, files of this process do not grow beyond 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextmanager
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # Python ignores the signal that comes with it
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_disk_leaves_the_old_file(tmp_path, ending, small_disk):
    path = tmp_path / f"m{ending}"
    save_weights(small(), path)
    old = path.read_bytes()
    large = small(units=20_000)
    with small_disk(), pytest.raises(OSError, match="File too large"):
        save_weights(large, path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [f"m{ending}"]


def test_loading_does_not_import_h5py(tmp_path, monkeypatch):
    """That `import fanin` does not either is in tests/test_imports.py."""
    model, other = small(), small()
    save_weights(model, tmp_path / "m.weights.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)  # importing it fails
    load_weights(other, tmp_path / "m.weights.h5")
    assert same(bits(model), bits(other))
