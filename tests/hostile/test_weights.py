"""Files of weights, and the `.h5` of Keras 2, made to do harm: each ends in a FormatError, soon and without memory, or
is harmless. A model that was to take the weights stays as it was.

The recipe numbers (M30, ...) are those of test_archive.py.
"""

import base64
import json
import marshal
import os
import random
import struct
import zipfile
from contextlib import suppress

import h5py
import numpy as np
import pytest
import torch
from bounds import bounded
from torch import nn

import fanin
from fanin.errors import CorruptError, FormatError, MismatchError, TooLargeError, UnsafeError
from fanin.layers import BatchNormalization, Dense
from fanin.saving import load_model, load_weights, save_weights

SECRET = bytes(range(48, 112))
LAYERS = ("dense", "norm", "dense_1")


def model():
    torch.manual_seed(0)
    return fanin.Sequential(
        [fanin.Input((3,)), Dense(4, "relu", name="dense"), BatchNormalization(name="norm"), Dense(2, name="dense_1")]
    )


def bits(module):
    return [w.detach().flatten().view(torch.uint8).clone() for w in module.state_dict().values()]


def refuse(path, kind=FormatError, taker=None, **kwargs):
    """Loading must raise `kind`, naming the file, and leave the taker as it was; returns the message."""
    taker = model() if taker is None else taker
    before = bits(taker)
    with bounded(), pytest.raises(kind) as caught:
        load_weights(taker, path, **kwargs)
    assert os.path.basename(path) in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, bits(taker), strict=True))
    return str(caught.value)


def refuse_model(path, kind=FormatError):
    with bounded(), pytest.raises(kind) as caught:
        load_model(path)
    assert os.path.basename(path) in str(caught.value)
    assert not os.path.exists(os.path.join(os.path.dirname(path), "canary"))
    return str(caught.value)


def taken_or_refused(path):
    """Loads, or a FormatError that names the file; no other error, and nothing changed on an error."""
    taker = model()
    before = bits(taker)
    try:
        with bounded():
            load_weights(taker, path)
    except FormatError as error:
        assert os.path.basename(path) in str(error)  # noqa: PT017 - either outcome is right
        assert all(torch.equal(a, b) for a, b in zip(before, bits(taker), strict=True))


# --- the files --------------------------------------------------------------------------------------------------------


def described():
    """The model in Keras 2's words."""
    dense = {"trainable": True, "dtype": "float32", "activation": "relu", "use_bias": True,
             "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
             "bias_initializer": {"class_name": "Zeros", "config": {}}}  # fmt: skip
    layers = [
        {"class_name": "Dense", "config": {"name": "dense", "units": 4, "batch_input_shape": [None, 3], **dense}},
        {"class_name": "BatchNormalization", "config": {"name": "norm", "axis": [1], "momentum": 0.9}},
        {"class_name": "Dense", "config": {"name": "dense_1", "units": 2, **dense}},
    ]
    return {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}


HOW = {"optimizer_config": {"class_name": "SGD", "config": {"lr": 0.25, "momentum": 0.9}}, "loss": "mse",
       "metrics": ["mae"], "loss_weights": None}  # fmt: skip


def write_legacy(path, config=None, training=None):
    config, training = described() if config is None else config, HOW if training is None else training
    weights = model()
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.9.0"
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        file.attrs["training_config"] = training if isinstance(training, str) else json.dumps(training)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = list(LAYERS)
        state = [("SGD/iter:0", np.int64(3))]
        for layer, name in zip(weights.layers, LAYERS, strict=True):
            part = group.create_group(name)
            part.attrs["weight_names"] = [f"{name}/{i}:0" for i in range(len(layer.weights))]
            for i, weight in enumerate(layer.weights):
                part[f"{name}/{i}:0"] = weight.detach().numpy()
                if weight.requires_grad:
                    state.append((f"SGD/{name}/{i}/momentum:0", weight.detach().numpy()))
        part = file.create_group("optimizer_weights")
        part.attrs["weight_names"] = [name for name, _ in state]
        for name, value in state:
            part[name] = value
    return path


@pytest.fixture(params=["m.weights.h5", "m.h5"])
def path(request, tmp_path):
    """A good file of each kind, without a checksum; changes reach the readers."""
    found = tmp_path / request.param
    if request.param == "m.h5":
        write_legacy(found)
    else:
        save_weights(model(), found)
        with h5py.File(found, "r+") as file:
            del file.attrs["sha256"]
    load_weights(model(), found)
    return found


def places(path):
    """Where the first layer's kernel and bias are, and the groups around them."""
    if path.name == "m.h5":
        return "model_weights/dense/dense/0:0", "model_weights/dense/dense/1:0", "model_weights/dense", "model_weights"
    return "layers/dense/vars/0", "layers/dense/vars/1", "layers/dense/vars", "layers"


def changed(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replaced(name, **kwargs):
    def change(file):
        del file[name]
        file.create_dataset(name, **kwargs)

    return change


# --- M30 to M39: HDF5 -------------------------------------------------------------------------------------------------


def test_other_files_are_not_read(tmp_path, path):
    """M33 to M35: external storage, virtual datasets, and links of both soft kinds at every level."""
    good = path.read_bytes()
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.zeros((3, 4), "f4")
    kernel, bias, vars_group, root = places(path)

    def external(file):
        del file[bias]
        file.create_dataset(bias, shape=(4,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 16)])

    def virtual(source):
        def change(file):
            layout = h5py.VirtualLayout((3, 4), "f4")
            layout[:] = h5py.VirtualSource(source, "x", (3, 4))
            del file[kernel]
            file.create_virtual_dataset(kernel, layout)

        return change

    def linked(place, link):
        def change(file):
            del file[place]
            file[place] = link

        return change

    changes = [external, virtual(str(tmp_path / "secret.h5")), virtual(".")]
    for place in (kernel, bias, vars_group, root):
        changes += [linked(place, h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")),
                    linked(place, h5py.SoftLink("/x")), linked(place, h5py.SoftLink(f"/{place}"))]  # fmt: skip
    for change in changes:
        path.write_bytes(good)
        changed(path, change)
        refuse(path, UnsafeError)
        if path.name == "m.h5":
            refuse_model(path, UnsafeError)


KINDS = [h5py.vlen_dtype("f4"), h5py.string_dtype(), "S4", h5py.ref_dtype, np.dtype([("a", "f4")]), "V4",
         h5py.enum_dtype({"a": 1}, "i4"), "?", "c8", "i4"]  # fmt: skip


def test_what_does_not_fit(path):
    """M30, M31, M36, M39: bombs, kinds of numbers, shapes, and things that are missing or too many."""
    good = path.read_bytes()
    kernel, bias, vars_group, root = places(path)
    changes = [
        replaced(kernel, shape=(2**25, 2**25), dtype="f4", chunks=(1024, 1024), compression="gzip"),
        replaced(kernel, shape=(3, 4), dtype="f4", chunks=(3, 4), compression="gzip"),
        replaced(kernel, shape=(3, 4), dtype="f4"),  # never stored
        *(replaced(kernel, shape=(3, 4), dtype=kind) for kind in KINDS),
        replaced(kernel, data=np.ones((4, 3), "f4")),
        replaced(kernel, data=np.float32(1)),
        replaced(kernel, data=np.ones((0, 4), "f4")),
        replaced(kernel, data=h5py.Empty("f4")),
        lambda f: f.__delitem__(bias),
        lambda f: f.__delitem__(vars_group),
        lambda f: (f.__delitem__(bias), f.create_group(bias)),
        lambda f: (f.__delitem__(vars_group), f.create_dataset(vars_group, data=1)),
        lambda f: (f.__delitem__(vars_group), f.__setitem__(vars_group, f[root])),
    ]
    for change in changes:
        path.write_bytes(good)
        changed(path, change)
        refuse(path)


def test_one_dataset_for_many_layers_takes_no_memory(tmp_path):
    """A config of 2,000 layers whose kernels are hard links to one: refused before their memory is taken."""
    layer = described()["config"]["layers"][0]
    layer["config"].update(units=512, use_bias=False, batch_input_shape=[None, 512])
    layers = [{**layer, "config": {**layer["config"], "name": f"d{i}"}} for i in range(2000)]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    path = write_legacy(tmp_path / "m.h5", config)

    def link(file):
        group = file["model_weights"]
        group["one"] = np.ones((512, 512), "f4")
        group.attrs["layer_names"] = [f"d{i}" for i in range(2000)]
        for i in range(2000):
            part = group.create_group(f"d{i}")
            part.attrs["weight_names"] = ["k"]
            part["k"] = group["one"]

    changed(path, link)
    refuse_model(path, TooLargeError)


@pytest.mark.parametrize("units", [10**9, 10**12, 2**62, -1, 0, "4", None, 2.5, True])
def test_giant_and_wrong_units(tmp_path, units):
    config = described()
    config["config"]["layers"][0]["config"]["units"] = units
    refuse_model(write_legacy(tmp_path / "m.h5", config))


def test_a_state_that_no_optimizer_has_changes_nothing(tmp_path):
    path, taker = tmp_path / "m.weights.h5", model()
    for compiled in (model(), taker):
        compiled.compile("adam", "mse")
        compiled.fit(np.ones((4, 3), "f4"), np.ones((4, 2), "f4"), verbose=0)
        save_weights(compiled, path)
    with h5py.File(path, "r+") as file:
        del file.attrs["sha256"]
    good, state = path.read_bytes(), [v.clone() for v in taker.optimizer.variables]
    for name, value in (("0", np.int32(-1)), ("0", np.int32([1, 2])), ("1", np.float32("nan")), ("1", np.float32(-1))):
        path.write_bytes(good)
        changed(path, replaced(f"optimizer/vars/{name}", data=value))
        refuse(path, taker=taker)
        assert all(torch.equal(a, b) for a, b in zip(state, taker.optimizer.variables, strict=True))


class Takes(Dense):
    """Takes all that the file has."""

    def load_own_variables(self, store):
        self.taken = {name: store[name] for name in store}


def takers():
    return fanin.Sequential([fanin.Input((3,)), Takes(4, name="takes")])


def test_arrays_for_a_layer_that_reads_itself(tmp_path):
    """M30 to M36 and M39, where no shape is known: nothing but plain numbers, which the file stores."""
    path = tmp_path / "m.weights.h5"
    (tmp_path / "secret").write_bytes(SECRET)
    save_weights(takers(), path)
    with h5py.File(path, "r+") as file:
        del file.attrs["sha256"]
    good, group, more = path.read_bytes(), "layers/takes/vars", "layers/takes/vars/more"

    def links(file):
        file[f"{group}/wide"] = np.ones(100_000, "f4")
        for i in range(100):
            file[f"{group}/{i + 2}"] = file[f"{group}/wide"]

    def external(file):
        file.create_dataset(more, shape=(16,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 64)])

    changes = [
        (lambda f: f.create_dataset(more, shape=(2**20, 2**20), dtype="f4"), TooLargeError),  # never stored
        (
            lambda f: f.create_dataset(more, (2**25, 2**25), "f4", chunks=(1024, 1024), compression="gzip"),
            MismatchError,
        ),
        *((lambda f, kind=kind: f.create_dataset(more, (3,), kind), MismatchError) for kind in KINDS[:7]),
        (lambda f: f.create_dataset(more, data=h5py.Empty("f4")), MismatchError),
        (lambda f: f.create_group(more), MismatchError),
        (lambda f: f.__setitem__(more, h5py.SoftLink("/x")), UnsafeError),
        (lambda f: f.__setitem__(more, h5py.ExternalLink("secret.h5", "x")), UnsafeError),
        (external, UnsafeError),
        (links, CorruptError),
    ]
    for change, kind in changes:
        path.write_bytes(good)
        changed(path, change)
        taker = takers()
        refuse(path, kind, taker)
        assert not hasattr(taker.layers[0], "taken")
    taker = takers()
    for data in damaged_files(good, 100, 4):
        path.write_bytes(data)
        with bounded(), suppress(FormatError):
            load_weights(taker, path)


def test_giant_units_of_a_layer_that_reads_itself_take_no_memory(tmp_path):
    path = tmp_path / "m.keras"
    takers().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].replace(b'"units": 4', b'"units": 4000000000')
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with bounded(), pytest.raises(TooLargeError, match="takes"):
        load_model(path, {"Takes": Takes})


# --- M38: damage ------------------------------------------------------------------------------------------------------


def damaged_files(data, count, seed):
    """Copies of a file with one to three bits, bytes or whole numbers changed, or cut off."""
    generator = random.Random(seed)
    special = [0, 1, 7, 8, 0x7F, 0xFF, 0xFFFF, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data), len(data) - 8]
    for number in range(count):
        copy = bytearray(data)
        if number % 10 == 9:
            yield bytes(copy[: generator.randrange(len(copy))])
            continue
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(len(copy) - 8)
            if number % 3 == 0:
                copy[place] ^= 1 << generator.randrange(8)
            elif number % 3 == 1:
                size = generator.choice([1, 2, 4, 8])
                copy[place : place + size] = (generator.choice(special) % 256**size).to_bytes(size, "little")
            else:
                place -= place % 8  # where addresses and lengths are
                copy[place : place + 8] = generator.choice(special).to_bytes(8, "little")
        yield bytes(copy)


def test_damaged_weights_end_in_a_format_error_or_load(path):
    for data in damaged_files(path.read_bytes(), 200, 1):
        path.write_bytes(data)
        taken_or_refused(path)


@pytest.mark.filterwarnings("ignore:The (state of the )?optimizer", "ignore:The activation 'hard_sigmoid'")
def test_damaged_models_end_in_a_format_error_or_load(tmp_path):
    path = write_legacy(tmp_path / "m.h5")
    loaded = 0
    for data in damaged_files(path.read_bytes(), 200, 2):
        path.write_bytes(data)
        with bounded():
            try:
                loaded += load_model(path) is not None
            except FormatError as error:
                assert "m.h5" in str(error)  # noqa: PT017 - either outcome is right
    assert 0 < loaded < 150


def test_damage_where_strings_are_kept_is_found_at_once(tmp_path):
    """Lengths and addresses of attributes and of the heap behind them, where HDF5's own library can hang."""
    path = write_legacy(tmp_path / "m.h5")
    data, generator = path.read_bytes(), random.Random(3)
    marks = [
        data.index(mark) for mark in (b"GCOL", b"model_config", b"training_config", b"layer_names", b"weight_names")
    ]
    for mark in marks:
        for place in range(mark - 16, mark + 72, 8):
            copy = bytearray(data)
            copy[place : place + 8] = generator.choice(
                [bytes(8), b"\xff" * 8, struct.pack("<Q", 2**63), struct.pack("<Q", mark), generator.randbytes(8)]
            )
            path.write_bytes(copy)
            with bounded(), suppress(FormatError):
                load_model(path)


def test_truncated_everywhere(path):
    data = path.read_bytes()
    for part in range(32):
        path.write_bytes(data[: len(data) * part // 32])
        refuse(path)
    path.write_bytes(data + b"\0")
    refuse(path, CorruptError)
    path.write_bytes(bytes(512) + data)
    refuse(path)


def test_names_without_end(tmp_path):
    """A million names in one attribute, and 60,000 attributes that are asked for one by one."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs["layer_names"] = np.array([b"x"] * 1_000_000)
    refuse(path)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"x"] * 60_000)
    refuse(path, CorruptError)
    with h5py.File(path, "w") as file:
        for i in range(3000):
            file.attrs[f"layer_names{i}"] = np.array([f"n{i}".encode()])
    refuse(path, MismatchError)


def test_one_long_string_for_many_names(tmp_path):
    """4,000 names that all lie in the same megabyte of a heap would be 4 GB."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["x" * 2**20, *(["y"] * 3500)]
    data = bytearray(path.read_bytes())
    heap = data.rindex(b"GCOL", 0, data.index(b"x" * 100))
    first = data.index(struct.pack("<IQ", 2**20, heap))
    for i in range(1, 3501):
        data[first + 16 * i : first + 16 * i + 16] = data[first : first + 16]
    path.write_bytes(data)
    assert "overlap" in refuse(path, CorruptError)


# --- M02 to M15: what the config of an .h5 asks for -------------------------------------------------------------------


def code_of(folder):
    compiled = compile(f"open({str(folder / 'canary')!r}, 'w')", "x", "eval")
    return base64.b64encode(marshal.dumps(compiled)).decode()


def test_code_is_refused_wherever_it_stands(tmp_path):
    path, code = tmp_path / "m.h5", code_of(tmp_path)
    old = {"class_name": "Lambda", "config": {"name": "l", "function": [code, None, None], "function_type": "lambda"}}
    new = {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}
    function = {"class_name": "function", "config": new}
    wrapped = {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASV"}}
    for value in (old, new, function, wrapped):
        config = described()
        config["config"]["layers"].append(value)
        refuse_model(write_legacy(path, config), UnsafeError)
        for argument in ("activation", "kernel_initializer", "kernel_regularizer", "kernel_constraint"):
            config = described()
            config["config"]["layers"][0]["config"][argument] = value
            refuse_model(write_legacy(path, config), UnsafeError)
        for key in ("loss", "optimizer_config", "metrics"):
            refuse_model(write_legacy(path, None, {**HOW, key: [value] if key == "metrics" else value}), UnsafeError)


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("keras.utils", "get_file"), ("torch", "load"),
     ("keras.config", "enable_unsafe_deserialization"), ("fanin.registry", "serialize"), ("os", "Dense")],
)  # fmt: skip
def test_foreign_names_are_refused(tmp_path, module, name):
    path = tmp_path / "m.h5"
    spelled = [{"class_name": name}, {"class_name": f"{module}.{name}"}, {"module": module, "class_name": name},
               {"class_name": name, "registered_name": f"{module}>{name}", "module": None}]  # fmt: skip
    for words in spelled if name != "Dense" else spelled[1:3]:
        value = {**words, "config": {"name": "touch canary"}}
        for place in ("layer", "activation", "kernel_initializer", "optimizer_config", "loss"):
            config, how = described(), dict(HOW)
            if place == "layer":
                config["config"]["layers"].append(value)
            elif place in how:
                how[place] = value
            else:
                config["config"]["layers"][0]["config"][place] = value
            refuse_model(write_legacy(path, config, how))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"a": NaN}', '{"class_name": 1, "class_name": 2}',
                                  "", "{} {}", '{"a": ' + "9" * 5000 + "}", "[" + "[]," * 2_000_000 + "[]]"],
                         ids=lambda text: text[:12])  # fmt: skip
def test_json_that_is_not_strict(tmp_path, text):
    for config, training in ((text, None), (None, text)):
        refuse_model(write_legacy(tmp_path / "m.h5", config, training))


def ways(tree, way=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*way, key)
        yield from ways(item, (*way, key))


@pytest.mark.filterwarnings("ignore:The (state of the )?optimizer", "ignore:The activation 'hard_sigmoid'")
def test_wrong_types_on_every_field(tmp_path):
    """Every value of both configs replaced by values of other types: refused, or of no importance."""
    path, chosen = tmp_path / "m.h5", random.Random(0)
    wrong = [None, True, "", "x", [], {}, [[]], -1, 0, 2**31, 2**62, 2.5, -1e300, {"class_name": [], "config": {}}]
    for whole in (described(), HOW):
        for way in ways(whole):
            for value in chosen.sample(wrong, 3):
                tree = json.loads(json.dumps(whole))
                place = tree
                for key in way[:-1]:
                    place = place[key]
                place[way[-1]] = value
                write_legacy(path, *((None, tree) if whole is HOW else (tree, None)))
                try:
                    load_model(path)
                except FormatError as error:
                    assert "m.h5" in str(error)  # noqa: PT017 - either outcome is right


def test_graphs_without_end_or_sense(tmp_path):
    """M12: Keras 2's inbound_nodes in circles, to layers that are not there, and by the hundred thousand."""
    layer = described()["config"]["layers"][0]
    entry = {"class_name": "InputLayer", "name": "in", "inbound_nodes": [],
             "config": {"name": "in", "batch_input_shape": [None, 3]}}  # fmt: skip

    def graph(nodes, **ends):
        config = {"name": "g", "layers": [entry, {**layer, "name": "dense", "inbound_nodes": nodes}],
                  "input_layers": [["in", 0, 0]], "output_layers": [["dense", 0, 0]], **ends}  # fmt: skip
        return {"class_name": "Model", "config": config}

    path = tmp_path / "m.h5"
    tensor = [["gone", 0, 0, {}], ["dense", 0, 0, {}], ["in", 7, 0, {}], ["in", 0, 9, {}], ["in", -1, 0, {}],
              ["in", "0", 0, {}], [None, None, None, None], []]  # fmt: skip
    for nodes in (*([[one]] for one in tensor), [5], "in", {"a": 1}):
        refuse_model(write_legacy(path, graph(nodes)))
    for ends in ([], [[]], [["gone", 0, 0]], [["dense", 5, 0]], None, 3, [["dense", 0, 3]]):
        refuse_model(write_legacy(path, graph([[["in", 0, 0, {}]]], output_layers=ends)))
    many = graph([[["in", 0, 0, {}]]])
    many["config"]["layers"] *= 20_000
    refuse_model(write_legacy(path, many))


# --- M50 to M54: safetensors ------------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.zeros(2, 3))
        self.register_buffer("b", torch.zeros(4, dtype=torch.int64))


GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "I64", "shape": [4], "data_offsets": [24, 56]},
}


def tensors(path, header, data=bytes(56), length=None):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(encoded) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + encoded + data)
    return path


def with_entry(**changes):
    return {**GOOD, "a": {**GOOD["a"], **changes}}


def test_safetensors_that_are_good(tmp_path):
    load_weights(Two(), tensors(tmp_path / "m.safetensors", GOOD))
    load_weights(Two(), tensors(tmp_path / "m.safetensors", json.dumps(GOOD).encode() + b"   "))
    load_weights(Two(), tensors(tmp_path / "m.safetensors", {"__metadata__": {"a": "b"}, **GOOD}))


HEADERS = {
    "overlap": with_entry(data_offsets=[8, 32]),
    "hole": {**GOOD, "b": {**GOOD["b"], "data_offsets": [32, 64]}},
    "reversed": with_entry(data_offsets=[24, 0]),
    "negative": with_entry(data_offsets=[-24, 0]),
    "negative shape": with_entry(shape=[-2, -3]),
    "huge offsets": with_entry(data_offsets=[0, 2**62]),
    "beyond 64 bits": with_entry(data_offsets=[0, 2**65]),
    "product overflows": with_entry(shape=[2**62, 8]),
    "zero of huge": with_entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "short": with_entry(shape=[2, 2]),
    "rank 1000": with_entry(shape=[1] * 998 + [2, 3]),
    "floats": with_entry(shape=[2.0, 3.0]),
    "strings": with_entry(shape=["2", "3"]),
    "bool": with_entry(shape=[True, 6]),
    "no list": with_entry(shape=6),
    "one offset": with_entry(data_offsets=[24]),
    "unknown dtype": with_entry(dtype="F128"),
    "dtype number": with_entry(dtype=32),
    "unknown field": with_entry(more=1),
    "missing field": {**GOOD, "a": {"dtype": "F32", "shape": [2, 3]}},
    "no object": {**GOOD, "a": [1, 2]},
    "same bytes twice": {**GOOD, "c": GOOD["a"]},
    "metadata list": {"__metadata__": [], **GOOD},
    "metadata number": {"__metadata__": {"a": 1}, **GOOD},
    "names twice": json.dumps(GOOD).encode()[:-1] + b', "a": ' + json.dumps(GOOD["a"]).encode() + b"}",
    "metadata twice": b'{"__metadata__": {}, "__metadata__": {}, ' + json.dumps(GOOD).encode()[1:],
    "space first": b" " + json.dumps(GOOD).encode(),
    "list": b"[]",
    "deep": b'{"a":' * 100_000,
    "bad UTF-8": b'{"\xff": 1}',
    "not JSON": b"{x}",
    "NaN": b'{"a": NaN}',
    "empty": b"",
    "zip": b"PK\3\4" + bytes(100),
    "pickle": b"\x80\x04.",
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(tmp_path, name):
    refuse(tensors(tmp_path / "m.safetensors", HEADERS[name]), taker=Two())


def test_sizes_that_lie(tmp_path):
    path = tmp_path / "m.safetensors"
    for length in (0, 1, 5, 10**6, 99 * 10**6, 10**8 + 1, 2**63, 2**64 - 1):
        refuse(tensors(path, GOOD, length=length), taker=Two())
    for data in (bytes(55), bytes(57), b""):
        assert "truncated, or bytes behind" in refuse(tensors(path, GOOD, data), CorruptError, taker=Two())
    for content in (b"", b"x", bytes(8), b"\x80\x04.", bytes(7)):
        path.write_bytes(content)
        refuse(path, taker=Two())
    with open(path, "wb") as file:  # a header of 17 MB, stored
        file.write((17 * 2**20).to_bytes(8, "little") + b"{" + b" " * (17 * 2**20))
    refuse(path, TooLargeError, taker=Two())


def test_a_million_tiny_tensors(tmp_path):
    header = b"{" + b",".join(
        b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(300_000)
    )  # fmt: skip
    refuse(tensors(tmp_path / "m.safetensors", header + b"}", b""), TooLargeError, taker=Two())


@pytest.mark.parametrize("name", ["\0", "../x", "x" * 10**6, "__class__", "a.b", "\u202ea"])
def test_names_lead_nowhere(tmp_path, name):
    header = {**GOOD, name: {"dtype": "U8", "shape": [0], "data_offsets": [56, 56]}}
    refuse(tensors(tmp_path / "m.safetensors", header), MismatchError, taker=Two())


def test_other_names_in_the_metadata_lead_only_to_tensors(tmp_path):
    """What says that "b" is stored under another name may not lead to nothing, in a circle, or to another shape."""
    path = tmp_path / "m.safetensors"
    only = {"a": GOOD["a"]}
    for other in ("gone", "b", "a", "__metadata__"):
        refuse(tensors(path, {"__metadata__": {"b": other}, **only}, bytes(24)), MismatchError, taker=Two())


def test_damaged_safetensors_end_in_a_format_error_or_load(tmp_path):
    path = tensors(tmp_path / "m.safetensors", GOOD, random.Random(0).randbytes(56))
    for data in damaged_files(path.read_bytes(), 400, 4):
        path.write_bytes(data)
        taker = Two()
        try:
            with bounded():
                load_weights(taker, path)
        except FormatError as error:
            assert "m.safetensors" in str(error)  # noqa: PT017 - either outcome is right
            assert not taker.a.any()
            assert not taker.b.any()


def test_a_bool_is_0_or_1(tmp_path):
    module = nn.Module()
    module.register_buffer("x", torch.zeros(4, dtype=torch.bool))
    header = {"x": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}
    load_weights(module, tensors(tmp_path / "m.safetensors", header, bytes([0, 1, 2, 255])))
    assert module.x.view(torch.uint8).tolist() == [0, 1, 1, 1]
