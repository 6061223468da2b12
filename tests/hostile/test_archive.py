"""Archives made to do harm: each must end in a FormatError, soon, without memory, other files or code.

The recipe numbers (M02, ...) name kinds of attack on model files; all files are made here.
"""

import base64
import io
import json
import marshal
import os
import random
import struct
import sys
import time
import zipfile
import zlib
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import torch
from bounds import bounded

import fanin
from fanin.errors import CorruptError, FormatError, MismatchError, TooLargeError, UnsafeError, VersionError
from fanin.formats import limits
from fanin.layers import Dense
from fanin.saving import load_model

MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
SECRET = bytes(range(48, 112))


@pytest.fixture
def base(tmp_path):
    """The members of a valid file of two layers, trained once."""
    model = fanin.Sequential([fanin.Input((3,)), Dense(4, "relu"), Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3), "f4"), np.ones((4, 2), "f4"), verbose=0)
    model.save(tmp_path / "base.keras")
    with zipfile.ZipFile(tmp_path / "base.keras") as file:
        return {name: file.read(name) for name in MEMBERS}


def packed(path, members, method=zipfile.ZIP_STORED):
    """A zip of (name or ZipInfo, bytes) pairs or of a dict."""
    pairs = members.items() if isinstance(members, dict) else members
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in pairs:
            file.writestr(name, content)
    return path


watched = []
sys.addaudithook(lambda event, args: watched.append((event, args)) if recording else None)
recording = False
FORBIDDEN = ("exec", "compile", "marshal.loads", "pickle.find_class", "subprocess.Popen", "os.system", "socket.connect",
             "ctypes.dlopen")  # fmt: skip


@contextmanager
def refused(path, kind=FormatError):
    """The block must raise `kind`, naming the file, within 2 s and 64 MB, opening no other file and running no code."""
    global recording
    watched.clear()
    recording = True
    try:
        with bounded(seconds=2.0, size=64 * 2**20), pytest.raises(FormatError) as caught:
            yield caught
    finally:
        recording = False
    assert isinstance(caught.value, kind), repr(caught.value)
    assert os.path.basename(path) in str(caught.value)
    # Importing a module of the installed packages execs its code; files outside them must not be touched.
    opened = [str(args[0]) for event, args in watched if event == "open"]
    assert not [name for name in opened if "secret" in name or "canary" in name]
    assert not [event for event, _ in watched if event in FORBIDDEN and event not in ("exec", "compile")]
    assert not os.path.exists(os.path.join(os.path.dirname(path), "canary"))


@pytest.fixture(autouse=True)
def warm(tmp_path_factory):
    """Load one good file first: what h5py and zip import is not the hostile file's doing."""
    path = tmp_path_factory.mktemp("warm") / "m.keras"
    fanin.Sequential([fanin.Input((3,)), Dense(1)]).save(path)
    load_model(path)


def refuse(path, kind=FormatError):
    with refused(path, kind) as caught:
        load_model(path)
    assert not [name for name in os.listdir(os.path.dirname(path)) if name.endswith(".tmp")]
    return str(caught.value)


def loaded_or_refused(path):
    """The model, or None where a FormatError names the file; nothing else may happen."""
    try:
        return load_model(path)
    except FormatError as error:
        assert os.path.basename(path) in str(error)  # noqa: PT017 - either outcome is right
        return None


def with_config(path, base, change):
    tree = json.loads(base["config.json"])
    changed = change(tree)
    return packed(path, {**base, "config.json": json.dumps(tree if changed is None else changed)})


def layer(tree, index=1):
    return tree["config"]["layers"][index]


# --- M02 to M10: code and foreign names -------------------------------------------------------------------------------


def lambda_config(folder):
    code = compile(f"open({str(folder / 'canary')!r}, 'w')", "x", "eval")
    return {
        "class_name": "__lambda__",
        "config": {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None},
    }


FOREIGN = [
    ("os", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("importlib", "import_module"),
    ("runpy", "run_path"),
    ("keras.utils", "get_file"),
    ("keras.src.utils.file_utils", "get_file"),
    ("keras._tf_keras.keras.utils", "get_file"),
    ("torch", "load"),
    ("fanin.registry", "serialize"),
    ("keras.config", "enable_unsafe_deserialization"),
    ("keras.saving", "load_model"),
    ("keras.src.backend.common.global_state", "set_global_attribute"),
    ("os", "Dense"),
]


def hostile_objects(folder):
    code = lambda_config(folder)
    lambda_layer = {"module": "keras.layers", "class_name": "Lambda", "registered_name": None,
                    "config": {"name": "l", "function": code}}  # fmt: skip
    yield "M02 layer", UnsafeError, lambda t: t["config"]["layers"].append(lambda_layer)
    for argument in ("activation", "kernel_initializer", "kernel_regularizer", "kernel_constraint"):
        yield f"M02 {argument}", UnsafeError, lambda t, a=argument: layer(t)["config"].update({a: code})
    for argument in ("loss", "optimizer"):
        yield f"M02 {argument}", UnsafeError, lambda t, a=argument: t["compile_config"].update({a: code})
    yield "M02 metric", UnsafeError, lambda t: t["compile_config"].update(metrics=[code])
    function = {"module": "builtins", "class_name": "function", "config": code, "registered_name": "function"}
    yield "M02 function", UnsafeError, lambda t: layer(t)["config"].update(activation=function)
    pickled = {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASV"}}
    yield "M07", UnsafeError, lambda t: t["config"]["layers"].append(pickled)
    for module, name in FOREIGN:
        for described in (
            {"module": module, "class_name": name, "config": {"name": "touch canary"}, "registered_name": None},
            {"module": module, "class_name": "function", "config": name, "registered_name": name},
        ):
            if described["class_name"] == "function" and name == "Dense":
                continue
            object_ = {**described, "inbound_nodes": [{"args": ["touch canary"], "kwargs": {}}]}
            yield f"M03-M05 {module}.{name}", MismatchError, lambda t, o=object_: t["config"]["layers"].append(o)
            yield f"M03-M05 {module}.{name}", FormatError, lambda t, o=object_: layer(t)["config"].update(activation=o)
    yield "M10 shadow", MismatchError, lambda t: layer(t).update(registered_name="a>b")
    yield "M10 module", MismatchError, lambda t: layer(t).update(module="os")
    yield "M10 wrong kind", MismatchError, lambda t: layer(t).update(module="keras.optimizers", class_name="Adam")
    yield "not a model", MismatchError, lambda t: layer(t)
    dtype = {"class_name": "__numpy__", "config": {"value": [1], "dtype": "(30000,30000)f8"}}
    yield "array dtype", UnsafeError, lambda t: layer(t)["config"].update(bias_initializer=dtype)


def test_code_and_foreign_names_are_refused(tmp_path, base):
    path = tmp_path / "hostile.keras"
    for _, kind, change in hostile_objects(tmp_path):
        refuse(with_config(path, base, change), kind)


def test_all_unknown_classes_are_listed_at_once(tmp_path, base):
    def change(tree):
        for name in ("First", "Second"):
            tree["config"]["layers"].append({"module": "mine", "class_name": name, "config": {}})
        tree["compile_config"]["optimizer"]["class_name"] = "Third"

    message = refuse(with_config(tmp_path / "m.keras", base, change), MismatchError)
    assert all(name in message for name in ("'First'", "'Second'", "'Third'", "config.json", "custom_objects"))


def test_newer_major_version(tmp_path, base):
    refuse(packed(tmp_path / "m.keras", {**base, "metadata.json": '{"keras_version": "4.0.0"}'}), VersionError)
    for bad in ("{}", "[]", "null", '{"keras_version": 3}', '{"keras_version": "x"}'):
        refuse(packed(tmp_path / "m.keras", {**base, "metadata.json": bad}))


# --- M11, M12, M14, M15: names, shapes and types of the config --------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "/abs", "a/b", "", "\0", "a\nb", "\u202eabc", 7, ["a"], {}])
def test_names_that_could_be_paths(tmp_path, base, name):
    refuse(with_config(tmp_path / "m.keras", base, lambda t: layer(t)["config"].update(name=name)))


def test_names_twice(tmp_path, base):
    name = json.loads(base["config.json"])["config"]["layers"][1]["config"]["name"]
    refuse(with_config(tmp_path / "m.keras", base, lambda t: layer(t, 2)["config"].update(name=name)), MismatchError)


def nested(depth):
    text = (
        '{"module": "keras", "class_name": "Sequential", "registered_name": null, "config": {"name": "m", "layers": ['
    )
    return text * depth + "]}}" * depth


def test_nesting_and_numbers_of_layers(tmp_path, base):
    path = tmp_path / "m.keras"
    refuse(packed(path, {**base, "config.json": nested(100_000)}), TooLargeError)
    empty = json.loads(nested(1))
    refuse(with_config(path, base, lambda t: t["config"]["layers"].extend([empty] * 100_000)))
    described = {
        "module": "keras",
        "class_name": "Functional",
        "config": {"layers": [{"inbound_nodes": [[["a", 0, 0]]]}]},
    }
    refuse(
        with_config(
            path, base, lambda t: {**t, **described, "config": {"layers": described["config"]["layers"] * 10**5}}
        )
    )


BAD_JSON = {
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "long int": b'{"a": ' + b"9" * 5_000 + b"}",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "1e999": b'{"a": 1e999}',
    "benign key first": b'{"class_name": "Sequential", "config": {}, "class_name": "Lambda"}',
    "hostile key first": b'{"class_name": "Lambda", "config": {}, "class_name": "Sequential"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "bad UTF-8": b'{"a": "\xff"}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "trailing": b"{} {}",
    "a list": b"[]",
    "a string": b'"Sequential"',
    "null": b"null",
    "empty": b"",
    "whitespace": b" " * (50 * 2**20),
    "unterminated": b'{"' + b'\\"' * 2**22,
    "many strings": b"[" + b'"",' * 4_000_000 + b'""]',
    "many lists": b"[" + b"[]," * 4_000_000 + b"[]]",
    "no close": b'{"a": [}',
}


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
def test_json_that_is_not_strict(tmp_path, base, member):
    for name, text in BAD_JSON.items():
        message = refuse(packed(tmp_path / "m.keras", {**base, member: text}))
        assert member in message, name


def test_many_values_take_no_time(tmp_path, base):
    numbers = b'{"class_name": "Sequential", "config": [' + b"1," * 4_000_000 + b"1]}"
    refuse(packed(tmp_path / "m.keras", {**base, "config.json": numbers}))


def paths(tree, way=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*way, key)
        yield from paths(item, (*way, key))


@pytest.mark.filterwarnings("ignore:The state of the optimizer")  # where `trainable` changed
def test_wrong_types_on_every_field(tmp_path, base):
    """Every value of the config replaced by values of other types: refused, or of no importance."""
    path = tmp_path / "m.keras"
    ways = list(paths(json.loads(base["config.json"])))
    wrong = [None, True, "", "x", [], {}, -1, 0, 2**31, 2**62, 2.0, 2.5, -1e300]
    chosen = random.Random(0)
    for way in ways:
        for value in chosen.sample(wrong, 4):
            tree = json.loads(base["config.json"])
            place = tree
            for key in way[:-1]:
                place = place[key]
            place[way[-1]] = value
            packed(path, {**base, "config.json": json.dumps(tree)})
            model = loaded_or_refused(path)
            assert model is None or model.predict(np.ones((2, 3), "f4"), verbose=0).shape[0] == 2


@pytest.mark.parametrize("units", [None, True, "4", [4], {}, -1, 0, 2**31, 2**62, 2.0, 2.5, 5])
def test_wrong_units(tmp_path, base, units):
    refuse(with_config(tmp_path / "m.keras", base, lambda t: layer(t)["config"].update(units=units)))


@pytest.mark.parametrize("units", [10**9, 250_000_000, 10**12, 2**62])
@pytest.mark.parametrize("compiled", [True, False])
def test_giant_units_take_no_memory(tmp_path, base, units, compiled):
    """M40: a config alone asks for gigabytes."""
    path = with_config(tmp_path / "m.keras", base, lambda t: layer(t)["config"].update(units=units))
    start = time.process_time()
    with refused(path, TooLargeError):
        load_model(path, compile=compiled)
    assert time.process_time() - start < 0.5  # 5 ms


def test_giant_inputs_and_many_layers_take_no_memory(tmp_path, base):
    path = tmp_path / "m.keras"

    def wide(tree):
        tree["config"]["build_input_shape"] = layer(tree, 0)["config"]["batch_shape"] = [None, 10**12]
        layer(tree)["build_config"] = None

    refuse(with_config(path, base, wide), TooLargeError)

    def many(tree):
        layer(tree)["config"]["units"] = 40
        del tree["config"]["layers"][2]
        tree["config"]["layers"] += [
            {**layer(tree), "build_config": None, "config": {**layer(tree)["config"], "name": f"d{i}"}}
            for i in range(1000)
        ]

    refuse(with_config(path, base, many), TooLargeError)


def test_giant_metric_takes_no_memory(tmp_path, base):
    area = {
        "module": "keras.metrics",
        "class_name": "AUC",
        "config": {"num_thresholds": 10**9},
        "registered_name": None,
    }
    path = with_config(tmp_path / "m.keras", base, lambda t: t["compile_config"].update(metrics=[area]))
    refuse(path, TooLargeError)


# --- M20 to M26: the zip ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../x", "/x", "C:\\x", "a/../../x", "config.json/", "a\\b", "assets/../x", "./config.json", "x.py"]
)
@pytest.mark.parametrize("folder", [None, "/"])
def test_member_names_that_reach_elsewhere(tmp_path, base, name, folder, monkeypatch):
    monkeypatch.chdir(folder or tmp_path)
    refuse(packed(tmp_path / "m.keras", {**base, name: b"x"}))
    assert sorted(os.listdir(tmp_path)) == ["base.keras", "m.keras"]


def test_links(tmp_path, base):
    (tmp_path / "secret").write_bytes(SECRET)
    for name in ("assets/link", *MEMBERS):
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        members = [(k, v) for k, v in base.items() if k != name]
        refuse(packed(tmp_path / "m.keras", [*members, (info, str(tmp_path / "secret"))]), UnsafeError)


def test_missing_members(tmp_path, base):
    for name in MEMBERS:
        message = refuse(packed(tmp_path / "m.keras", {k: v for k, v in base.items() if k != name}))
        assert name in message


def bomb(path, base, name, size):
    """A member that claims, and has, `size` zero bytes, deflated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block, crc = bytes(2**24), 0
    body = bytearray()
    for _ in range(size // len(block)):
        body += packer.compress(block)
    body += packer.flush()
    packed(path, [(k, v) for k, v in base.items() if k != name])
    with zipfile.ZipFile(path, "a") as file:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_STORED
        file.writestr(info, bytes(body))
        start = info.header_offset
        directory_start = file.start_dir
        file.filelist[-1].compress_type = zipfile.ZIP_DEFLATED
        file.filelist[-1].file_size, file.filelist[-1].CRC = size, crc
    data = bytearray(path.read_bytes())
    assert directory_start < len(data)
    struct.pack_into("<H", data, start + 8, 8)
    struct.pack_into("<LLL", data, start + 14, crc, len(body), size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", MEMBERS)
def test_deflated_bombs(tmp_path, base, name):
    refuse(bomb(tmp_path / "m.keras", base, name, 2**30), TooLargeError)


def test_many_members_of_249_megabytes(tmp_path, base):
    """Each is under a limit of 256 MB: names that nobody asked for are not read at all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(packer.compress(bytes(2**20)) for _ in range(8)) + packer.flush()
    members = {**base, **{f"part{i}": body for i in range(41)}}
    refuse(packed(tmp_path / "m.keras", members), MismatchError)


def test_duplicate_members(tmp_path, base):
    for name in MEMBERS:
        pairs = [*base.items(), (name, base[name])]
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed(tmp_path / "m.keras", pairs)
        refuse(tmp_path / "m.keras", CorruptError)


def header_places(data):
    """Where the local and the central header of config.json begin."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        local = file.getinfo("config.json").header_offset
    central = data.index(b"config.json", data.rindex(b"PK\1\2", 0, data.rindex(b"config.json"))) - 46
    return local, central


def altered(data, *edits):
    copy = bytearray(data)
    for place, kind, value in edits:
        struct.pack_into(kind, copy, place, value)
    return bytes(copy)


def test_headers_that_lie(tmp_path, base):
    path = packed(tmp_path / "m.keras", base)
    data = path.read_bytes()
    local, central = header_places(data)
    second_local = data.index(b"PK\3\4", 1)
    lies = {
        "encrypted, both": [(local + 6, "<H", 1), (central + 8, "<H", 1)],
        "encrypted, local": [(local + 6, "<H", 1)],
        "encrypted, central": [(central + 8, "<H", 1)],
        "patched": [(central + 8, "<H", 0x20)],
        "strongly encrypted": [(local + 6, "<H", 0x40), (central + 8, "<H", 0x40)],
        "method 99": [(local + 8, "<H", 99), (central + 10, "<H", 99)],
        "method, local": [(local + 8, "<H", 8)],
        "method, central": [(central + 10, "<H", 8)],
        "name, local": [(local + 30, "<B", ord("x"))],
        "name, central": [(central + 46, "<B", ord("x"))],
        "size, local": [(local + 22, "<L", 7)],
        "size, central": [(central + 24, "<L", 7)],
        "packed size, central": [(central + 20, "<L", 2**31 - 5)],
        "both sizes": [(local + 18, "<L", 7), (local + 22, "<L", 7), (central + 20, "<L", 7), (central + 24, "<L", 7)],
        "checksum, both": [(local + 14, "<L", 7), (central + 16, "<L", 7)],
        "checksum, local": [(local + 14, "<L", 7)],
        "zip64 without extra": [(central + 20, "<L", 0xFFFFFFFF), (central + 24, "<L", 0xFFFFFFFF)],
        "overlap": [(central + 42, "<L", 0)],
        "offset": [(central + 42, "<L", 2**31)],
        "a gap": [(central + 42, "<L", local + 1)],
        "disk": [(central + 34, "<H", 3)],
        "no signature": [(second_local, "<L", 0)],
        "count": [(len(data) - 12, "<H", 2)],
        "count, large": [(len(data) - 12, "<H", 0xFFFF)],
        "directory size": [(len(data) - 10, "<L", 7)],
        "directory offset": [(len(data) - 6, "<L", 7)],
        "comment": [(len(data) - 2, "<H", 7)],
    }
    accepted = []
    for name, edits in lies.items():
        path.write_bytes(altered(data, *edits))
        try:
            refuse(path)
        except pytest.fail.Exception:
            accepted.append(name)
    assert accepted == ["disk"]  # of no meaning in a file of one part


def test_archives_around_archives(tmp_path, base):
    path = packed(tmp_path / "m.keras", base)
    data = path.read_bytes()
    for hostile in (b"\x80\x04K\x01." + data, b"\x89PNG\r\n\x1a\n" + data, data + b"\0", data + data, data * 2 + b"PK"):
        path.write_bytes(hostile)
        refuse(path, CorruptError)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in base.items():
            file.writestr(name, content)
        file.comment = data[:60_000]
    refuse(path, CorruptError)
    refuse(packed(path, {**base, "model.weights.h5": data}), CorruptError)


def test_too_many_members(tmp_path, base):
    refuse(packed(tmp_path / "m.keras", {**base, **{f"assets/{i}": b"" for i in range(65_536)}}), TooLargeError)


def test_truncated_everywhere(tmp_path, base):
    path = packed(tmp_path / "m.keras", base)
    data = path.read_bytes()
    for part in range(64):
        path.write_bytes(data[: len(data) * part // 64])
        refuse(path, CorruptError)


def test_other_formats(tmp_path, base):
    path = tmp_path / "m.keras"
    for content in (b"", b"x", b"PK", b"PK\5\6" + bytes(18), base["model.weights.h5"], b"\x80\x04]."):
        path.write_bytes(content)
        refuse(path)
    array = io.BytesIO()
    np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + b"\n"
    for member in (array.getvalue(), b"\x93NUMPY\x01\x00\x76\x00" + header):
        refuse(packed(path, {**base, "model.weights.npz": member}), MismatchError)
        refuse(packed(path, {**base, "model.weights.h5": member}), CorruptError)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "m.keras")
    refuse(tmp_path / "m.keras", CorruptError)


def test_archives_packed_by_other_tools_load(tmp_path, base):
    """Deflated, with data descriptors, or with assets: valid all the same."""
    path = packed(tmp_path / "m.keras", base, zipfile.ZIP_DEFLATED)
    load_model(path)

    class Unseekable(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, content):
            self.data += bytes(content)
            return len(content)

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = Unseekable()
        packed(stream, base, method)
        path.write_bytes(stream.data)
        load_model(path)
    load_model(packed(path, {"assets/": b"", "assets/words.txt": b"x", **base}))


def test_zip64_archives_load(tmp_path, base):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in base.items():
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(content)
    load_model(path)
    data = path.read_bytes()
    end = len(data) - 22
    count, size, offset = struct.unpack("<HLL", data[end + 10 : end + 20])
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    tail = struct.pack("<4sHHHHLLH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:end] + record + locator + tail)
    load_model(path)
    for place in (end + 24, end + 32, end + 40, end + 48, end + 56 + 8):
        path.write_bytes(altered(path.read_bytes()[:end] + record + locator + tail, (place, "<Q", 2**40)))
        if place != end + 24:  # the number of members on this disk
            refuse(path)


# --- M30 to M39: HDF5 -------------------------------------------------------------------------------------------------


def with_weights(path, base, change):
    buffer = io.BytesIO(base["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return packed(path, {**base, "model.weights.h5": buffer.getvalue()})


def replaced(name, **kwargs):
    def change(file):
        del file[name]
        file.create_dataset(name, **kwargs)

    return change


KERNEL, BIAS = "layers/dense/vars/0", "layers/dense/vars/1"


def stored_elsewhere(folder):
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    with h5py.File(folder / "secret.h5", "w") as file:
        file["x"] = np.zeros((3, 4), "f4")

    def external(file):
        del file[BIAS]
        file.create_dataset(BIAS, shape=(4,), dtype="f4", external=[(str(secret), 0, 16)])

    def virtual(source):
        def change(file):
            layout = h5py.VirtualLayout((3, 4), "f4")
            layout[:] = h5py.VirtualSource(source, "x", (3, 4))
            del file[KERNEL]
            file.create_virtual_dataset(KERNEL, layout)

        return change

    def linked(place, link):
        def change(file):
            del file[place]
            file[place] = link

        return change

    yield "M33", external
    yield "M35 other", virtual(str(folder / "secret.h5"))
    yield "M35 own", virtual(".")
    for place in ("layers", "layers/dense", "layers/dense/vars", KERNEL, "optimizer", "optimizer/vars/0"):
        yield f"M34 external {place}", linked(place, h5py.ExternalLink(str(folder / "secret.h5"), "x"))
        yield f"M34 soft {place}", linked(place, h5py.SoftLink("/layers/dense_1/vars/0"))
        yield f"M34 loop {place}", linked(place, h5py.SoftLink(f"/{place}"))


def test_weights_in_other_files(tmp_path, base):
    for _, change in stored_elsewhere(tmp_path):
        refuse(with_weights(tmp_path / "m.keras", base, change), UnsafeError)


def misfits():
    yield "M30", replaced(KERNEL, shape=(2**25, 2**25), dtype="f4", chunks=(1024, 1024), compression="gzip")
    yield "M31", replaced(KERNEL, shape=(30_000, 30_000), dtype="f4", chunks=True, compression="gzip")
    yield "never stored", lambda f: unstored(f)
    yield "compressed", replaced(KERNEL, data=np.ones((3, 4), "f4"), chunks=(3, 4), compression="gzip")
    yield "cycle", lambda f: cycle(f)
    for name, dtype in {
        "vlen": h5py.vlen_dtype("f4"),
        "string": h5py.string_dtype(),
        "fixed string": "S4",
        "reference": h5py.ref_dtype,
        "region": h5py.regionref_dtype,
        "compound": np.dtype([("a", "f4")]),
        "opaque": "V4",
        "two opaque bytes": "V2",
        "enum": h5py.enum_dtype({"a": 1}, "i4"),
        "bool": "?",
        "complex": "c8",
        "int": "i4",
        "double": "f8",
        "half": "f2",
    }.items():
        yield f"M36 {name}", replaced(KERNEL, shape=(3, 4), dtype=dtype)
    yield "M36 committed", lambda f: committed(f)
    yield "M36 a type", lambda f: a_type(f)
    yield "M39 missing", lambda f: f.__delitem__(BIAS)
    yield "M39 no vars", lambda f: f.__delitem__("layers/dense/vars")
    yield "M39 no layers", lambda f: f.__delitem__("layers")
    yield "M39 extra", lambda f: f.create_dataset("layers/dense/vars/2", data=np.ones(4, "f4"))
    yield "M39 extra layer", lambda f: f.create_dataset("layers/dense_2/vars/0", data=np.ones(4, "f4"))
    yield "M39 transposed", replaced(KERNEL, data=np.ones((4, 3), "f4"))
    yield "M39 scalar", replaced(KERNEL, data=np.float32(1))
    yield "M39 empty", replaced(KERNEL, data=np.ones((0, 4), "f4"))
    yield "M39 null", replaced(KERNEL, data=h5py.Empty("f4"))
    yield "M39 swapped", lambda f: (f.move("layers/dense", "x"), f.move("layers/dense_1", "layers/dense"),
                                    f.move("x", "layers/dense_1"))  # fmt: skip
    yield "M39 group as dataset", lambda f: (f.__delitem__(BIAS), f.create_group(BIAS))
    yield "M39 dataset as group", lambda f: (f.__delitem__("layers/dense"), f.create_dataset("layers/dense", data=1))
    yield "slot shape", replaced("optimizer/vars/2", data=np.ones((4, 3), "f4"))
    yield "slot dtype", replaced("optimizer/vars/2", data=np.ones((3, 4), "f8"))
    yield "iteration negative", replaced("optimizer/vars/0", data=np.int32(-1))
    yield "iteration float", replaced("optimizer/vars/0", data=np.float32(1))
    yield "iteration vector", replaced("optimizer/vars/0", data=np.ones(3, "i4"))
    yield "learning rate nan", replaced("optimizer/vars/1", data=np.float32("nan"))
    yield "learning rate negative", replaced("optimizer/vars/1", data=np.float32(-1))


def unstored(file):
    del file[KERNEL]
    space = h5py.h5s.create_simple((3, 4))
    h5py.h5d.create(file["layers/dense/vars"].id, b"0", h5py.h5t.IEEE_F32LE, space)


def cycle(file):
    del file["layers/dense/vars"]
    file["layers/dense/vars"] = file["layers/dense"]


def committed(file):
    file["kind"] = np.dtype("f4")
    del file[KERNEL]
    space = h5py.h5s.create_simple((3, 4))
    h5py.h5d.create(file["layers/dense/vars"].id, b"0", file["kind"].id, space)
    file[KERNEL][:] = 1


def a_type(file):
    del file[KERNEL]
    file[KERNEL] = np.dtype("f4")


@pytest.mark.parametrize(("name", "change"), list(misfits()))
def test_weights_that_do_not_fit(tmp_path, base, name, change):
    message = refuse(with_weights(tmp_path / "m.keras", base, change))
    assert "model.weights.h5" in message


def test_one_dataset_for_many_layers_is_not_multiplied(tmp_path):
    """Hard links let one stored megabyte stand for many layers: together they may not exceed the file."""
    model = fanin.Sequential([fanin.Input((512,)), *(Dense(512, use_bias=False) for _ in range(8))])
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as file:
        base = {name: file.read(name) for name in MEMBERS}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.ones((512, 512), "f4")
        for i in range(1, 8):
            file[f"layers/dense_{i}/vars/0"] = file["layers/dense/vars/0"]
        file.create_group("vars")
    refuse(packed(tmp_path / "m.keras", {**base, "model.weights.h5": buffer.getvalue()}), TooLargeError)


def test_big_endian_weights_load(tmp_path, base):
    values = np.arange(12, dtype=">f4").reshape(3, 4)
    model = load_model(with_weights(tmp_path / "m.keras", base, replaced(KERNEL, data=values)))
    np.testing.assert_array_equal(model.get_weights()[0], values)


def test_attributes_are_never_read(tmp_path, base):
    def change(file):
        file["layers/dense/vars"].attrs["name"] = "../" * 1_000
        file[KERNEL].attrs["dtype"] = "bfloat16"
        file.attrs["x"] = h5py.Empty("f4")

    load_model(with_weights(tmp_path / "m.keras", base, change))


def test_hdf5_that_is_damaged_ends_in_a_format_error_or_loads(tmp_path, base):
    """The zip's checksum is made to fit, so that the damage reaches HDF5."""
    path, generator = tmp_path / "m.keras", random.Random(0)
    weights = base["model.weights.h5"]
    for part in range(16):
        refuse(packed(path, {**base, "model.weights.h5": weights[: len(weights) * part // 16]}), CorruptError)
    for _ in range(150):
        damaged = bytearray(weights)
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        packed(path, {**base, "model.weights.h5": bytes(damaged)})
        loaded_or_refused(path)


# --- corruption -------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_the_payload_is_found(tmp_path, base):
    path, generator = packed(tmp_path / "m.keras", base), random.Random(0)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        spans = [(i.header_offset + 30 + len(i.filename), i.file_size) for i in file.infolist()]
    for _ in range(300):
        start, size = generator.choice(spans)
        copy = bytearray(data)
        copy[start + generator.randrange(size)] ^= 1 << generator.randrange(8)
        path.write_bytes(copy)
        with pytest.raises(CorruptError, match="checksum"):
            load_model(path)


def test_flipped_bits_anywhere_never_change_weights(tmp_path, base):
    path, generator = packed(tmp_path / "m.keras", base), random.Random(1)
    data = path.read_bytes()
    wanted = load_model(path).get_weights()
    for _ in range(300):
        copy = bytearray(data)
        copy[generator.randrange(len(copy))] ^= 1 << generator.randrange(8)
        path.write_bytes(copy)
        model = loaded_or_refused(path)
        assert model is None or all(np.array_equal(a, b) for a, b in zip(model.get_weights(), wanted, strict=True))


def test_a_refused_file_changes_nothing(tmp_path, base):
    state, handles = torch.get_rng_state(), len(os.listdir("/proc/self/fd"))
    path = with_weights(tmp_path / "m.keras", base, replaced(KERNEL, data=np.ones((4, 3), "f4")))
    for _ in range(3):
        refuse(path)
    assert torch.equal(state, torch.get_rng_state())
    assert len(os.listdir("/proc/self/fd")) == handles


def test_limits_hold_for_saving_too(tmp_path, monkeypatch):
    """A model whose config could not be read back is not saved."""
    monkeypatch.setattr(limits, "JSON_BYTES", 100)
    with pytest.raises(ValueError, match="cannot be saved"):
        fanin.Sequential([fanin.Input((3,)), Dense(1)]).save(tmp_path / "m.keras")
    assert os.listdir(tmp_path) == []
