"""`.safetensors` against the safetensors package and plain PyTorch."""

import hashlib
import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import fanin
from fanin.errors import CorruptError, MismatchError
from fanin.formats import tensors
from fanin.layers import Dense
from fanin.saving import load_weights, save_weights

DTYPES = list(tensors._DTYPES.values())


def equal(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype
        assert value.shape == other[key].shape
        assert torch.equal(value.flatten().view(torch.uint8), other[key].flatten().view(torch.uint8)), key


class Holder(nn.Module):
    """Any tensors as buffers, under names with dots."""

    def __init__(self, values):
        super().__init__()
        for number, (name, value) in enumerate(values.items()):
            part = nn.Module()
            part.register_buffer("x", value)
            self.add_module(f"{name}_{number}", part)


values = st.lists(
    st.tuples(
        st.text("abcü_ /\\\"'\n\U0001f600", min_size=1, max_size=6),
        st.sampled_from(DTYPES),
        st.lists(st.integers(0, 4), max_size=4).map(tuple),
    ),
    max_size=8,
)


def random_tensor(dtype, shape, generator):
    size = int(np.prod(shape)) * torch.empty((), dtype=dtype).itemsize
    raw = generator.integers(0, 2 if dtype == torch.bool else 256, size).astype("u1")
    flat = torch.from_numpy(raw)
    return (flat.view(dtype) if size else torch.empty(0, dtype=dtype)).reshape(shape)


@settings(derandomize=True, deadline=None, max_examples=100, phases=[Phase.generate])
@given(values, st.integers(0, 9))
def test_random_tensors_cross_over_in_both_directions(tmp_path_factory, described, seed):
    generator = np.random.default_rng(seed)
    kept = {name: random_tensor(dtype, shape, generator) for name, dtype, shape in described}
    path = tmp_path_factory.mktemp("t") / "m.safetensors"
    module = Holder(kept)
    save_weights(module, path)
    equal(module.state_dict(), safetensors.torch.load_file(path))
    empty = Holder({name: torch.zeros_like(value) for name, value in kept.items()})
    load_weights(empty, path)
    equal(module.state_dict(), empty.state_dict())
    safetensors.torch.save_file(dict(module.state_dict()), path, {"format": "pt"})
    empty = Holder({name: torch.zeros_like(value) for name, value in kept.items()})
    load_weights(empty, path)
    equal(module.state_dict(), empty.state_dict())


def test_a_plain_torch_model_takes_the_file_and_gives_one(tmp_path):
    model = fanin.Sequential([fanin.Input((3,)), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)])
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    save_weights(model, tmp_path / "m.safetensors")
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "m.safetensors"))
    equal(plain.state_dict(), model.state_dict())
    nn.init.ones_(plain[0].weight)
    safetensors.torch.save_model(plain, str(tmp_path / "p.safetensors"))
    load_weights(model, tmp_path / "p.safetensors")
    equal(plain.state_dict(), model.state_dict())


def test_the_file_says_what_it_is(tmp_path):
    model = fanin.Sequential([fanin.Input((3,)), Dense(4)])
    save_weights(model, tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {"0.kernel", "0.bias"}
    assert metadata["format"] == "pt"
    assert metadata["fanin_version"] == fanin.__version__
    data = (tmp_path / "m.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    assert metadata["sha256"] == hashlib.sha256(data[start:]).hexdigest()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.third.bias = self.first.bias


def test_shared_tensors_are_stored_once(tmp_path):
    model, other, plain = Tied(), Tied(), Tied()
    save_weights(model, tmp_path / "m.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "m.safetensors")
    assert set(stored) == {"first.weight", "first.bias", "second.bias", "third.weight"}
    load_weights(other, tmp_path / "m.safetensors")
    equal(model.state_dict(), other.state_dict())
    assert other.second.weight is other.first.weight
    assert safetensors.torch.load_model(plain, str(tmp_path / "m.safetensors")) == (set(), [])
    safetensors.torch.save_file({k: v.clone() for k, v in model.state_dict().items()}, tmp_path / "p.safetensors")
    load_weights(other, tmp_path / "p.safetensors")  # each name on its own fits too


def test_tensors_that_are_not_contiguous_or_parts_of_others(tmp_path):
    module = nn.Module()
    module.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4).t())
    module.register_buffer("same", torch.ones(()).expand(3, 4))
    module.register_buffer("part", module.weight.detach()[:2])
    save_weights(module, tmp_path / "m.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "m.safetensors")
    assert torch.equal(stored["weight"], module.weight)
    assert torch.equal(stored["same"], module.same)
    assert torch.equal(stored["part"], module.part)


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"a": 1}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Extra(2, 2), "dict"),
        (lambda: nn.Linear(2, 2, device="meta"), "meta device"),
        (lambda: Holder({"x": torch.eye(3).to_sparse()}), "layout"),
        (lambda: Holder({"x": torch.zeros(2, dtype=torch.complex128)}), "complex128"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, make, match):
    with pytest.raises(ValueError, match=match):
        save_weights(make(), tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == []


def test_kinds_of_numbers_must_be_those_of_the_model(tmp_path):
    save_weights(Holder({"x": torch.zeros(3, dtype=torch.int32)}), tmp_path / "m.safetensors")
    for dtype in (torch.int64, torch.float32, torch.uint8, torch.bool):
        with pytest.raises(MismatchError, match="int32 numbers, the model has"):
            load_weights(Holder({"x": torch.zeros(3, dtype=dtype)}), tmp_path / "m.safetensors")


def test_numbers_that_are_not_aligned(tmp_path):
    """The format allows any order; torch can look at aligned memory only."""
    header = {
        "a_0.x": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b_1.x": {"dtype": "F64", "shape": [1], "data_offsets": [3, 11]},
    }
    encoded = json.dumps(header).encode()
    numbers = bytes([1, 2, 3]) + np.float64(2.5).tobytes()
    (tmp_path / "m.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + numbers)
    module = Holder({"a": torch.zeros(3, dtype=torch.uint8), "b": torch.zeros(1, dtype=torch.float64)})
    load_weights(module, tmp_path / "m.safetensors")
    assert module.state_dict()["b_1.x"].item() == 2.5
    read = tensors.Entry(header["b_1.x"]).read(bytearray(numbers))
    assert read.data_ptr() % 8 == 0
    as_bool = tensors.Entry({"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}).read(bytearray(numbers))
    assert as_bool.view(torch.uint8).tolist() == [1, 1, 1]


def test_headers_are_compared_before_numbers_are_read(tmp_path):
    """A file that does not fit is refused for that, though its numbers are damaged too."""
    model = fanin.Sequential([fanin.Input((3,)), Dense(4)])
    path = tmp_path / "m.safetensors"
    save_weights(model, path)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    other = fanin.Sequential([fanin.Input((4,)), Dense(4)])
    with pytest.raises(MismatchError, match=r"'0.kernel' has shape \(3, 4\), the model has \(4, 4\)"):
        load_weights(other, path)
    with pytest.raises(CorruptError, match="checksum"):
        load_weights(other, path, skip_mismatch=True)
