"""Adapter folders made to do harm: each ends in a FormatError, soon and without memory, or is harmless. The model that
was to take the adapter stays as it was.

The recipe numbers (M50, ...) are those of test_archive.py.
"""

import json
import os
import pickle
import random
import struct
import sys

import pytest
import safetensors.torch
import torch
from bounds import bounded
from torch import nn

from fanin import adapters
from fanin.errors import CorruptError, FormatError, MismatchError, TooLargeError, UnsafeError
from fanin.formats.adapter_config import Config
from fanin.layers import Dense, Embedding

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
HEAD = "base_model.model.head.lora_{}.weight"


def model():
    torch.manual_seed(0)
    made = nn.ModuleDict({"table": Embedding(7, 4), "up": nn.Linear(4, 8), "head": Dense(3), "norm": nn.LayerNorm(4)})
    made["table"].build()
    made["head"].build((None, 8))
    return made


@pytest.fixture
def folder(tmp_path):
    """A good one."""
    path, giver = tmp_path / "ann", model()
    adapters.add(giver, "ann", {"*": 2, "head": 3}, alpha=4)
    adapters.save(giver, "ann", path)
    adapters.load(model(), path)
    return path


def state(module):
    """All that a load could change."""
    values = {name: value.clone() for name, value in module.state_dict().items()}
    return values, [p.requires_grad for p in module.parameters()], [type(part) for part in module.modules()]


def unchanged(before, module):
    values, *rest = state(module)
    assert list(values) == list(before[0])
    assert all(torch.equal(values[name], value) for name, value in before[0].items())
    assert rest == list(before[1:])


def refuse(folder, kind=FormatError, taker=None):
    """Loading must raise `kind`, naming a file of the folder, and leave the taker as it was; returns the message."""
    taker = model() if taker is None else taker
    before = state(taker)
    with bounded(), pytest.raises(kind) as caught:
        adapters.load(taker, folder, "x")
    assert str(folder) in str(caught.value)
    unchanged(before, taker)
    return str(caught.value)


def change(folder, **values):
    """Change the config; ... takes a key away."""
    config = json.loads((folder / CONFIG).read_text())
    config |= values
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def restore(folder, values, metadata=None):
    """Write tensors, without a checksum."""
    safetensors.torch.save_file(values, folder / TENSORS, metadata)


def tensors(folder):
    return safetensors.torch.load_file(folder / TENSORS)


def rewrite_header(folder, change):
    data = (folder / TENSORS).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    found = json.loads(data[8 : 8 + length])
    change(found)
    encoded = json.dumps(found).encode()
    (folder / TENSORS).write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])


# --- files ------------------------------------------------------------------------------------------------------------


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_is_never_opened(folder, tmp_path):  # M54
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Canary(str(tmp_path / "canary"))))
    adapters.load(model(), folder, "beside")
    (folder / TENSORS).unlink()
    message = refuse(folder, UnsafeError)
    assert "adapter_model.bin: a pickle is not read" in message
    (folder / TENSORS).write_bytes((folder / "adapter_model.bin").read_bytes())
    refuse(folder, CorruptError)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_files_that_are_not_there_or_no_files(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        adapters.load(model(), folder)
    os.mkfifo(folder / name)
    refuse(folder, CorruptError)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(IsADirectoryError, match=name):
        adapters.load(model(), folder)


def test_paths_in_the_config_are_not_followed(folder, tmp_path):  # M55
    secret, pipe = tmp_path / "secret", tmp_path / "pipe"
    secret.write_text("x")
    os.mkfifo(pipe)
    seen = []
    watching = True
    sys.addaudithook(
        lambda event, args: seen.append(str(args[0])) if watching and event in ("open", "import") else None
    )
    for place in (str(secret), str(pipe), "http://127.0.0.1:9/x", "../secret"):
        change(
            folder,
            base_model_name_or_path=place,
            revision=place,
            auto_mapping={"base_model_class": "system", "parent_library": "antigravity"},
            megatron_core="antigravity",
        )
        with bounded():
            adapters.load(model(), folder)
    watching = False
    assert {name for name in seen if "secret" in name or "pipe" in name or "antigravity" in name} == set()
    assert {os.path.basename(name) for name in seen if str(tmp_path) in name} == {CONFIG, TENSORS}


# --- the config -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe{\0}\0", b'\xef\xbb\xbf{"peft_type": "LORA"}', b'{"r": NaN}',
        b'{"r": 1e999}',         b'{"peft_type": "LORA"} x',
        b'{"peft_type": "IA3", "peft_type": "LORA"}', b'{"r": "\\ud800"}', b'"LORA"',
        b"[" * 200_000, b'{"r": ' + b"9" * 5_000 + b"}", b" " * 17 * 2**20, b"!!python/object/apply:os.system [x]",
    ],
)  # fmt: skip
def test_bad_json(folder, text):  # M14
    (folder / CONFIG).write_bytes(text)
    assert CONFIG in refuse(folder)


@pytest.mark.parametrize("kind", ["IA3", "lora", "PROMPT_TUNING", "XLORA", None, 7, ["LORA"], {"LORA": 1}, ...])
def test_other_kinds(folder, kind):
    change(folder, peft_type=kind)
    assert "only 'LORA' is read" in refuse(folder, MismatchError)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["norm"]},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["head.kernel"]},
        {"layer_replication": [[0, 1]]},
        {"megatron_config": {"x": 1}},
        {"alora_invocation_tokens": [1]},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"arrow_config": {"top_k": 1}},
        {"kasa_config": {"beta": 1}},
        {"monteclora_config": {"n": 1}},
        {"velora_config": {"n": 1}},
        {"loftq_config": {"loftq_bits": 4}},
        {"ensure_weight_tying": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "pissa_niter_4"},
        {"something_of_next_year": 3},
        {"x" * 100_000: "y" * 100_000},
    ],
    ids=lambda options: next(iter(options))[:30],
)
def test_options_that_change_what_it_computes(folder, options):
    change(folder, **options)
    message = refuse(folder, MismatchError)
    assert next(iter(options))[:60] in message
    assert len(message) < 1_000


BAD = [None, True, "2", [], {}, -1, 0, 2.5, 2**31, 2**63 - 1]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("r", BAD),
        ("lora_alpha", [None, True, "2", [], {}]),
        ("lora_dropout", [None, True, "0", [], -0.1, 1, 1.5, 2**62]),
        ("use_rslora", [None, 0, 1, "true", []]),
        ("rank_pattern", [1, "a", [], [1], {"^head": "3"}, {"^head": 0}, {"^head": -3}, {"^head": 2**40},
                          {"head": True}]),
        ("alpha_pattern", [1, "a", [1], {"^head": "3"}, {"^head": None}, {"^head": [1]}]),
        ("target_modules", [1, {}, [1], [["head"]], [None]]),
        ("init_lora_weights", [None, [], {}, 2]),
        ("bias", [None, False, []]),
    ],
)  # fmt: skip
def test_wrong_values(folder, key, values):  # M15, M55: r = 2^31 takes no memory, as the tensors are compared first
    good = (folder / CONFIG).read_text()
    for value in values:
        change(folder, **{key: value})
        refuse(folder, MismatchError)
        (folder / CONFIG).write_text(good)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(.*.*.*.*)*x", "a|b", "[a-z]+", "x{1,9}", "(?i)head", "(?=x)", "a**", "a*", "\\", "(", "\\w+", "^^x"],
)
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_patterns_that_are_not_evaluated(folder, key, pattern):  # M55
    change(folder, **{key: {pattern: 2, "^head": 3}})
    assert "is not evaluated" in refuse(folder, MismatchError)


@pytest.mark.parametrize(
    "patterns",
    [
        {".*" * 20 + "x": 3},
        {".*.*.*.*x": 3},
        {f"{number}.*.+x": 3 for number in range(5_000)},
        {f"{number}": 3 for number in range(100_000)},
        {"x" * 2_000_000: 3},
        {"." * 1_000_000 + "x": 3},
    ],
    ids=["20 stars", "4 stars", "5,000 with stars", "100,000 names", "a long name", "dots"],
)
def test_too_many_steps_of_matching(folder, patterns):
    giver = nn.Sequential(*(nn.Linear(1, 1) for _ in range(30)))
    taker = nn.ModuleDict({"long_name_" * 5: giver})
    adapters.add(taker, "ann", 1)
    adapters.save(taker, "ann", folder)
    adapters.remove(taker, "ann")
    change(folder, alpha_pattern=patterns)
    assert "steps to match" in refuse(folder, TooLargeError, taker)


@pytest.mark.parametrize(
    "patterns",
    [
        {"x" * 90_000: 3},
        {"." * 90_000: 3},
        {f"{number}": 3 for number in range(6_000)},
        {f"{number}.*.*x": 3 for number in range(9)},
        {".*.*x": 3, ".*.+.": 4},
    ],
    ids=["a long name", "dots", "6,000 names", "18 stars", "one that fits"],
)
def test_steps_within_the_bound_are_soon_done(folder, patterns):
    path = ".".join("long_name_" * 5)
    numbers = Config(1, 1.0, {}, patterns, ()).numbers
    with bounded(size=512 * 2**20):
        assert numbers([path] * 10)[path][1] == (4 if ".*.+." in patterns else 1)


def test_a_regular_expression_of_targets_is_not_evaluated(folder):
    for target in ("(a+)+$", "(", "(.*.*.*.*)*x" * 1_000):
        change(folder, target_modules=target)
        with bounded():
            adapters.load(model(), folder)


def test_a_hundred_thousand_targets(folder):
    change(folder, target_modules=[f"layer_{number}" for number in range(100_000)])
    with bounded():
        adapters.load(model(), folder)


# --- the tensors ------------------------------------------------------------------------------------------------------


def without(name):
    return lambda values: values.pop(name)


def shaped(name, *shape):
    return lambda values: values.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (without(HEAD.format("A")), "'base_model.model.head.lora_A.weight' is missing"),
        (without(HEAD.format("B")), "'base_model.model.head.lora_B.weight' is missing"),
        (without("base_model.model.table.lora_embedding_B"), "lora_embedding_B' is missing"),
        (lambda values: [values.pop(HEAD.format(side)) for side in "AB"], "'head' is missing, though target_modules"),
        (dict.clear, "there are none"),
        (shaped(HEAD.format("A"), 2, 8), r"'head' has (2, 8) and (3, 3), expected (3, I) and (U, 3)"),
        (shaped(HEAD.format("A"), 3, 9), "'head' is 9 -> 3 in the file, 8 -> 3 in the model"),
        (shaped(HEAD.format("B"), 4, 3), "'head' is 8 -> 4 in the file, 8 -> 3 in the model"),
        (shaped(HEAD.format("A"), 8, 3), "expected (3, I)"),
        (shaped(HEAD.format("A"), 24), "expected (3, I)"),
        (shaped(HEAD.format("A")), "expected (3, I)"),
        (shaped(HEAD.format("A"), 3, 8, 1), "expected (3, I)"),
        (shaped(HEAD.format("A"), 0, 8), "expected (3, I)"),
        (shaped("base_model.model.head.kernel", 3), "'base_model.model.head.kernel' is no A or B of LoRA"),
        (shaped("base_model.model.head.lora_magnitude_vector.weight", 3), "is no A or B of LoRA"),
        (shaped("base_model.model.head.lora_A.default.weight", 3, 8), "is no A or B of LoRA"),
        (shaped("base_model.model..lora_A.weight", 3, 8), "is no A or B of LoRA"),
        (shaped("head.lora_A.weight", 3, 8), "is no A or B of LoRA"),
        (shaped("base_model.modelhead.lora_A.weight", 3, 8), "is no A or B of LoRA"),
        (shaped("", 3, 8), "'' is no A or B of LoRA"),
        (shaped("../x\0", 3, 8), "is no A or B of LoRA"),
        (shaped("base_model.model." + "x" * 10_000 + ".lora_A.weight", 3, 8), "is missing"),
        (shaped("base_model.model.head.lora_embedding_A", 3, 8), "'head' is an embedding and is none"),
        (lambda values: values.update({HEAD.format("A"): torch.zeros(3, 8, dtype=torch.int32)}), "expected floats"),
        (lambda values: values.update({HEAD.format("A"): torch.zeros(3, 8, dtype=torch.complex64)}), "expected floats"),
    ],
)  # fmt: skip
def test_missing_and_extra_and_misshapen_tensors(folder, how, message):
    values = tensors(folder)
    how(values)
    restore(folder, values)
    found = refuse(folder, MismatchError)
    assert message in found
    assert len(found) < 3_000


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "the model has no layer at 'nowhere'"),
        ("norm", "the model has a LayerNorm, which takes no adapter, at 'norm'"),
        ("", "the model has a ModuleDict, which takes no adapter, at ''"),
        ("forward", "the model has no layer at 'forward'"),
        ("__class__", "the model has no layer at '__class__'"),
        ("table", "'table' is no embedding in the file only"),
    ],
)
def test_layers_that_the_model_has_not(folder, path, message):
    start = f"base_model.model.{path}" if path else "base_model.model"
    values = tensors(folder)
    values = {name: value for name, value in values.items() if "table" not in name}
    values |= {f"{start}.lora_A.weight": torch.zeros(2, 7), f"{start}.lora_B.weight": torch.zeros(4, 2)}
    restore(folder, values)
    change(folder, target_modules=None)
    assert message in refuse(folder, MismatchError)


def test_all_mismatches_in_one_error(folder):
    values = tensors(folder)
    for name in list(values):
        if name.endswith("lora_B.weight"):
            values[name] = torch.zeros(99, values[name].shape[1])
    restore(folder, values)
    message = refuse(folder, MismatchError)
    assert "'up' is 4 -> 99" in message
    assert "'head' is 8 -> 99" in message


def test_a_rank_that_the_file_does_not_hold(folder):  # M40
    def grow(found):
        found[HEAD.format("A")]["shape"] = [2**40, 8]

    rewrite_header(folder, grow)
    change(folder, rank_pattern={"^head": 2**40})
    assert "does not take the bytes" in refuse(folder, CorruptError)


@pytest.mark.parametrize(
    "length", [0, 1, 2**63, 99 * 2**20, 2**64 - 1], ids=["0", "1", "2^63", "99 MB", "2^64 - 1"]
)  # fmt: skip
def test_lengths_of_the_header(folder, length):  # M50
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(struct.pack("<Q", length) + data[8:])
    refuse(folder)


def test_bytes_that_changed(folder):
    good = (folder / TENSORS).read_bytes()
    for place in range(len(good) - 40, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 1
        (folder / TENSORS).write_bytes(bad)
        assert "the checksum is wrong" in refuse(folder, CorruptError)
    for bad in (good[:-1], good + b"\0", good[:20], b""):
        (folder / TENSORS).write_bytes(bad)
        refuse(folder, CorruptError)


def test_a_sparse_file_takes_no_memory(folder):
    with open(folder / TENSORS, "r+b") as file:
        file.truncate(2**40)
    refuse(folder, CorruptError)


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["taken", "merged", "constraint"])
def test_a_model_that_takes_none_stays_as_it_was(folder, what):
    taker = model()
    if what == "constraint":
        taker["head"].kernel_constraint = "non_neg"
    else:
        adapters.add(taker, "x" if what == "taken" else "other", 2, target="head")
        if what == "merged":
            adapters.merge(taker, "other")
    before = state(taker)
    with pytest.raises(ValueError, match="takes no adapter 'x'"):
        adapters.load(taker, folder, "x")
    unchanged(before, taker)


def test_memory_that_ends_halfway(folder, monkeypatch):
    taker, real, calls = model(), torch.Tensor.copy_, []
    before = state(taker)

    def copy(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 3:
            raise MemoryError("no more")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    with pytest.raises(MemoryError, match="no more"):
        adapters.load(taker, folder, "x")
    monkeypatch.undo()
    unchanged(before, taker)


# --- at random --------------------------------------------------------------------------------------------------------

PARTS = [None, True, 0, -1, 2.5, 2**31, 2**63 - 1, "", "head", "../x", "(a+)+$", [], {}, ["head"], {"^head": 3}, "LORA"]


def mutated_config(source, good):
    config = json.loads(good)
    for _ in range(source.randint(1, 3)):
        key = source.choice([*config, "use_dora", "new"])
        holder = config
        if isinstance(config.get(key), dict) and config[key] and source.random() < 0.5:
            holder, key = config[key], source.choice(list(config[key]))
        if source.random() < 0.3:
            holder.pop(key, None)
        else:
            holder[key] = source.choice(PARTS)
    return json.dumps(config).encode()


def mutated_bytes(source, good):
    data = bytearray(good)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(data))
        how = source.randrange(4)
        if how == 0:
            data[place] ^= 1 << source.randrange(8)
        elif how == 1:
            data[place : place + 8] = source.choice([b"\0" * 8, b"\xff" * 8, struct.pack("<Q", 2**62)])
        elif how == 2:
            del data[place : place + source.randint(1, 40)]
        else:
            start = source.randrange(len(data))
            data[place:place] = data[start : start + source.randint(1, 40)]
        if not data:
            return b""
    return bytes(data)


def campaign(folder, count):
    """Each mutated folder loads, or is refused by a FormatError, with nothing changed."""
    source = random.Random(5)
    good = {name: (folder / name).read_bytes() for name in (CONFIG, TENSORS)}
    taker, refused = model(), 0
    before = state(taker)
    for number in range(count):
        name = source.choice([CONFIG, TENSORS])
        as_json = name == CONFIG and source.random() < 0.5
        bad = (mutated_config if as_json else mutated_bytes)(source, good[name])
        (folder / name).write_bytes(bad)
        try:
            with bounded():
                adapters.load(taker, folder, "x")
        except FormatError as error:
            refused += 1
            assert str(folder) in str(error), number  # noqa: PT017 - either outcome is right
        else:
            taker["head"](taker["up"](taker["table"](torch.tensor([1, 2]))))
            adapters.remove(taker, "x")
        if number % 50 == 0:
            unchanged(before, taker)
        (folder / name).write_bytes(good[name])
    unchanged(before, taker)
    assert 0 < refused < count


def test_random_folders(folder):
    campaign(folder, 400)


@pytest.mark.slow
def test_many_random_folders(folder):
    campaign(folder, 20_000)
