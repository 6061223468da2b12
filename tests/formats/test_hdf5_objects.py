"""The reader of HDF5 structures against h5py, on random files in h5py's forms, old and new."""

import io
import struct
import time
from contextlib import suppress

import h5py
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fanin.errors import CorruptError, FormatError, MismatchError
from fanin.formats.hdf5_objects import Objects
from fanin.formats.hdf5_parts import Cursor, Window

NUMBERS = ["i1", "u1", "<i2", ">i2", "<u4", ">i4", "<i8", ">u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "?", "<c8",
           ">c16", "V2"]  # fmt: skip
OTHERS = ["S4", h5py.string_dtype(), h5py.vlen_dtype("f4"), np.dtype([("a", "f4")]), "V4", h5py.ref_dtype,
          h5py.enum_dtype({"a": 1}, "i4"), np.dtype("f4", metadata={"x": 1})]  # fmt: skip


def made(fill, **options):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def address(file, path):
    return h5py.h5o.get_info(file[path].id).addr


def found(objects, path):
    place = objects.root
    for name in filter(None, path.split("/")):
        place = objects.group(place)[name]
    return place


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0.", exclude_categories=["Cs"]), min_size=1, max_size=9
)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
texts = st.one_of(st.text("abü ", max_size=12), st.lists(st.text("xyé", max_size=6), max_size=4))
trees = st.recursive(
    st.tuples(shapes, st.sampled_from(NUMBERS)),
    lambda inner: st.tuples(st.dictionaries(names, inner, max_size=12), st.dictionaries(names, texts, max_size=3)),
    max_leaves=30,
)


def build(group, tree, generator):
    if isinstance(tree[0], dict):
        for name, value in tree[1].items():
            group.attrs[name] = np.array(value, dtype=object) if isinstance(value, list) and value else value
        for name, inner in tree[0].items():
            if isinstance(inner[0], dict):
                build(group.create_group(name), inner, generator)
            else:
                shape, kind = inner
                values = generator.integers(0, 2 if kind == "?" else 100, shape)
                group.create_dataset(name, data=np.asarray(values).astype(kind))


def compare(objects, place, group, newer):
    """`newer`: HDF5's newer form describes bool and complex numbers in other words, which Keras never writes."""
    links = objects.group(place)
    assert sorted(links) == sorted(group)
    for key, value in group.attrs.items():
        wanted = [value] if isinstance(value, str) else [str(v) for v in value]
        assert objects.text(place, key) == wanted
    assert objects.text(place, "no such attribute") is None
    for name, target in links.items():
        if isinstance(group[name], h5py.Group):
            assert objects.array(target) is None
            compare(objects, target, group[name], newer)
            continue
        assert objects.group(target) is None
        array, dataset = objects.array(target), group[name]
        assert (array.shape, array.storage) == (dataset.shape, "plain")
        if array.dtype is None:
            assert newer
            assert dataset.dtype.kind in "bc"
            continue
        assert array.dtype == dataset.dtype
        count = int(np.prod(array.shape))
        assert array.size >= count * array.dtype.itemsize
        values = np.frombuffer(objects.data, array.dtype, count, array.start).reshape(array.shape)
        np.testing.assert_array_equal(values, dataset[()])


@settings(derandomize=True, deadline=None, max_examples=120, phases=[Phase.generate])
@given(trees, st.sampled_from([None, "latest", ("earliest", "v108"), "v110"]), st.integers(0, 9))
def test_random_files_read_as_h5py_reads_them(tree, libver, seed):
    if not isinstance(tree[0], dict):
        tree = ({"x": tree}, {})
    data = made(lambda file: build(file, tree, np.random.default_rng(seed)), libver=libver)
    objects = Objects(data)
    with h5py.File(io.BytesIO(data)) as file:
        compare(objects, objects.root, file, newer=libver is not None)


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("count", [1, 8, 9, 45, 46, 300, 1300])
@pytest.mark.parametrize("letter", ["a", "ü"])
def test_groups_of_all_sizes(count, letter, libver):
    expected = {f"{letter}{i}" + "x" * (i % 20) for i in range(count)}

    def fill(file):
        for name in expected:
            file[name] = np.int8(1)
        file["soft"] = h5py.SoftLink("/x")
        file["ext"] = h5py.ExternalLink("y", "/x")

    data = made(fill, libver=libver)
    links = Objects(data).group(Objects(data).root)
    with h5py.File(io.BytesIO(data)) as file:
        wanted = {name: address(file, name) for name in list(expected)[:50]}
    assert set(links) == {*expected, "soft", "ext"}
    assert links["soft"] is links["ext"] is None
    assert {name: links[name] for name in wanted} == wanted


def test_strings_of_all_kinds():
    long = "é" * 70_000

    def fill(file):
        file.attrs["long"] = long
        file.attrs["fixed"] = np.bytes_("ab")
        file.attrs["list"] = np.array([b"ab", b"cde"])
        file.attrs["spaces"] = np.array([b"ab "])
        file.attrs["empty"] = ""
        file.attrs["none"] = h5py.Empty("S3")
        file.attrs["no names"] = np.zeros(0)
        file.attrs["number"] = 3
        file.attrs["table"] = np.array([[b"a"]])
        for i in range(3):
            file.attrs[f"spread{i}"] = [f"part{i}"]

    objects = Objects(made(fill))
    root = objects.root
    assert objects.text(root, "long") == [long]
    assert objects.text(root, "fixed") == ["ab"]
    assert objects.text(root, "list") == ["ab", "cde"]
    assert objects.text(root, "spaces") == ["ab "]
    assert objects.text(root, "empty") == [""]
    assert objects.text(root, "none") == objects.text(root, "no names") == []
    for name in ("number", "table"):
        with pytest.raises(MismatchError, match=name):
            objects.text(root, name)


def test_strings_padded_by_other_writers():
    def fill(file):
        for padding in (h5py.h5t.STR_NULLTERM, h5py.h5t.STR_NULLPAD, h5py.h5t.STR_SPACEPAD):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(6)
            kind.set_strpad(padding)
            space = h5py.h5s.create(h5py.h5s.SCALAR)
            attribute = h5py.h5a.create(file.id, f"a{padding}".encode(), kind, space)
            attribute.write(np.array({2: b"ab    "}.get(padding, b"ab\0\0\0\0"), "S6"), mtype=kind)

    objects = Objects(made(fill))
    assert [objects.text(objects.root, f"a{i}") for i in range(3)] == [["ab"]] * 3


@pytest.mark.parametrize("kind", OTHERS[:7], ids=str)
def test_what_is_no_plain_number_has_no_dtype(kind):
    objects = Objects(made(lambda file: file.create_dataset("x", shape=(2,), dtype=kind)))
    assert objects.array(found(objects, "x")).dtype is None


def test_storage_that_is_not_plain(tmp_path):
    def fill(file):
        file.create_dataset("chunks", data=np.ones(9, "f4"), chunks=(3,))
        file.create_dataset("zipped", data=np.ones(9, "f4"), compression="gzip")
        file.create_dataset("external", shape=(4,), dtype="f4", external=[(str(tmp_path / "x"), 0, 16)])
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(".", "chunks", (3,))
        file.create_virtual_dataset("virtual", layout)
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), compact)
        file.create_dataset("never", shape=(3,), dtype="f4")

    objects = Objects(made(fill))
    kinds = {name: objects.array(found(objects, name)).storage for name in ("chunks", "zipped", "external", "virtual")}
    assert kinds == {"chunks": "chunked", "zipped": "chunked", "external": "elsewhere", "virtual": "elsewhere"}
    with pytest.raises(MismatchError, match="compact"):
        objects.array(found(objects, "compact"))
    assert objects.array(found(objects, "never")).size == 0


# --- damage -----------------------------------------------------------------------------------------------------------


def test_truncation_and_surroundings():
    data = made(lambda file: file.create_dataset("x", data=np.ones(9)))
    Objects(data)
    for hostile in (b"", data[:8], data[:100], data[:-1], data + b"\0", bytes(512) + data, b"\x89HDF" + data[4:][::-1]):
        with pytest.raises(CorruptError):
            Objects(hostile)


def walk(objects, place=None, depth=0):
    """Look at everything, as far as errors let."""
    links = objects.group(objects.root if place is None else place) or {}
    for name in ("a", "names", "names0"):
        objects.text(objects.root if place is None else place, name)
    for target in links.values():
        if target is None:
            continue
        try:
            if objects.group(target) is None:
                objects.array(target)
            elif depth < 6:
                walk(objects, target, depth + 1)
        except FormatError:
            pass


def sample(libver):
    def fill(file):
        file.attrs["a"] = "text" * 50
        file.attrs["names"] = [f"name{i}" for i in range(20)]
        for i in range(12):
            group = file.create_group(f"group{i}/ü{i % 3}" if i % 2 else f"grüp{i}")
            group.attrs["names"] = np.array([b"x", b"yz"])
            group["x"] = np.arange(i, dtype="f4")

    return made(fill, libver=libver)


@pytest.mark.parametrize("libver", [None, "latest"])
def test_damage_ends_in_a_format_error_or_nothing(libver):
    """Bytes changed: special numbers in places where addresses and lengths are."""
    data = sample(libver)
    generator = np.random.default_rng(0)
    special = [0, 1, 2, 7, 8, 0x7F, 0xFF, 0xFFFF, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data), len(data) - 1]
    start, outcomes = time.process_time(), {"refused": 0, "read": 0}
    for number in range(1000):
        damaged = bytearray(data)
        for _ in range(1 + number % 3):
            place = int(generator.integers(0, len(data) - 8))
            if number % 2:
                value, size = special[generator.integers(len(special))], int(generator.choice([1, 2, 4, 8]))
                damaged[place : place + size] = (value % 256**size).to_bytes(size, "little")
            else:
                damaged[place] ^= 1 << int(generator.integers(8))
        try:
            walk(Objects(bytes(damaged)))
            outcomes["read"] += 1
        except FormatError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
    assert time.process_time() - start < 60


def test_every_pointer_to_itself_or_its_like():
    """All 8 bytes that could be an address in turn point at each structure: circles and overlaps come to an end."""
    data = sample(None)
    marks = (b"TREE", b"HEAP", b"SNOD", b"GCOL", b"FRHP", b"BTHD", b"FHDB")
    targets = [96, *(data.index(mark) for mark in marks if mark in data)]
    pointers = [p for p in range(0, len(data) - 8, 4) if 90 < struct.unpack_from("<Q", data, p)[0] < len(data)]
    assert len(pointers) > 80
    for place in pointers:
        for target in targets:
            damaged = bytearray(data)
            struct.pack_into("<Q", damaged, place, target)
            with suppress(FormatError):
                walk(Objects(bytes(damaged)))


def test_work_is_bounded_by_the_size_of_the_file():
    """Parts that overlap, so that a small file looks large, cost no more than its bytes."""
    window = Window(bytes(1000))
    reads = (window.at(0, 1000) for _ in range(100))
    with pytest.raises(CorruptError, match="overlap"):
        list(reads)
    head = bytearray(made(lambda file: [file.create_group(f"g{i}") for i in range(8)]))
    node = head.index(b"SNOD")
    struct.pack_into("<H", head, node + 6, 0xFFFF)
    start = time.process_time()
    objects = Objects(bytes(head))
    with pytest.raises(CorruptError):
        objects.group(objects.root)
    assert time.process_time() - start < 1


def test_many_long_names_that_share_their_bytes():
    count, length = 4000, 100_000
    data = bytearray(made(lambda file: [file.create_group(f"g{i}") for i in range(8)]))
    tree, heap = data.index(b"TREE"), data.index(b"HEAP")
    data += bytes(-len(data) % 8)
    node, names = len(data), len(data) + 8 + 40 * count
    entries = b"".join(struct.pack("<QQ24x", i, 96) for i in range(count))
    data += b"SNOD\1\0" + struct.pack("<H", count) + entries + b"x" * length + b"\0"
    struct.pack_into("<BBH16xQQ", data, tree + 4, 0, 0, 1, 0, node)
    struct.pack_into("<QQQ", data, heap + 8, length + 1, 2**64 - 1, names)
    struct.pack_into("<Q", data, 40, len(data))
    start = time.process_time()
    objects = Objects(bytes(data))
    with pytest.raises(CorruptError, match="overlap"):
        objects.group(objects.root)
    assert time.process_time() - start < 1


def test_a_cursor_ends():
    part = Cursor(b"abcd")
    assert (part.uint(2), part.left, part.rest()) == (0x6261, 2, b"cd")
    with pytest.raises(CorruptError):
        part.skip(1)
