"""An adapter by itself in PEFT's folder: both ways with real PEFT, and what is refused before anything changes."""

import copy
import json
import math
import os

import pytest
import safetensors.torch
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import fanin
from fanin import adapters
from fanin.errors import MismatchError
from fanin.formats.adapter_config import Config
from fanin.layers import Dense, Embedding

TENSORS = "adapter_model.safetensors"
X = torch.linspace(-1, 1, 20).reshape(5, 4)
INDICES = torch.tensor([[1, 2, 0], [6, 5, 5]])


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft", reason="PEFT is not installed (pip install 'fanin[peft]')")


def plain():
    """A model of torch.nn alone."""
    torch.manual_seed(3)
    up, down = nn.Linear(4, 8), nn.Linear(8, 4, bias=False)
    return nn.ModuleDict({"encoder": nn.Sequential(up, nn.ReLU(), down), "head": nn.Linear(4, 3)})


class Whole(nn.Module):
    """The same as one module that can be called, with a vector for each index before it."""

    def __init__(self, table=None):
        super().__init__()
        torch.manual_seed(5)
        self.table = nn.Embedding(7, 4) if table is None else table
        self.encoder, self.head = plain().values()

    def forward(self, x):
        x = self.table(x) if not x.is_floating_point() else x
        return self.head(x + self.encoder(x))


def ours():
    """As `Whole`, with fanin's Embedding and Dense in place of the embedding and the head."""
    model = Whole(Embedding(7, 4))
    head = Dense(3)
    model(INDICES)
    head.build((None, 4))
    with torch.no_grad():
        head.kernel.copy_(model.head.weight.t())
        head.bias.copy_(model.head.bias)
    model.head = head
    return model


def twins():
    """A model of torch.nn for PEFT, and one with fanin's layers that computes the same."""
    model, other = Whole(), ours()
    with torch.no_grad():
        other.table.embeddings.copy_(model.table.weight)
    torch.testing.assert_close(model(INDICES), other(INDICES))
    return model, other


def filled(module, part="lora_B"):
    """Random values for the matrices that begin as zeros."""
    torch.manual_seed(11)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if part in name or name.endswith(("_kernel_b", "_weight_b", "_embeddings_b", "lora_embedding_A.default")):
                weight.normal_(0, 0.3)


def near(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def trained(module):
    return [name for name, weight in module.named_parameters() if weight.requires_grad]


# --- with real PEFT ---------------------------------------------------------------------------------------------------

TARGETS = ["table", "encoder.0", "encoder.2", "head"]
OPTIONS = [
    {"r": 2, "target_modules": ["head"]},
    {"r": 3, "lora_alpha": 12, "target_modules": TARGETS},
    {"r": 4, "lora_alpha": 6, "use_rslora": True, "lora_dropout": 0.25, "target_modules": TARGETS},
    {"r": 2, "target_modules": TARGETS, "rank_pattern": {"0": 5, "^head": 1},
     "alpha_pattern": {r"encoder\.2": 7, "t.+": 3}},
    {"r": 2, "target_modules": "(encoder.[02]|he+ad)"},
    {"r": 2, "lora_alpha": -3, "target_modules": ["head", "0"], "alpha_pattern": {"head": 0}},
    {"r": 2, "target_modules": ["0", "2"], "init_lora_weights": "gaussian"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_what_peft_saves_acts_here(peft, tmp_path, options):
    base, model = twins()
    theirs = peft.get_peft_model(base, peft.LoraConfig(**options)).eval()
    filled(theirs)
    theirs.save_pretrained(tmp_path / "ann")
    loaded = adapters.load(model, tmp_path / "ann")
    assert {layer.path for layer in loaded.layers} == {
        name.removeprefix("base_model.model.") for name, part in theirs.named_modules() if hasattr(part, "lora_A")
    }
    model.eval()
    for inputs in (INDICES, X):
        near(model(inputs), theirs(inputs))
    assert not torch.allclose(model(INDICES), twins()[1](INDICES), atol=1e-2)
    for layer in loaded.layers:
        part = theirs.base_model.model.get_submodule(layer.path)
        assert layer.adapters[0].scale == pytest.approx(part.scaling["default"], rel=1e-12)
        assert layer.adapters[0].rank == part.r["default"]
        assert layer.adapters[0].dropout == options.get("lora_dropout", 0.0)


def ranks_and_alphas(model):
    adapters.add(model, "ann", {"*.0": 3, "head": 3, "encoder.2": 1, "table": 2}, alpha=5.5)
    adapters.scale(model, "ann", -0.5)


def many(model):
    adapters.add(model, "bob", 1)
    adapters.add(model, "ann", 2, alpha=3, rslora=True, dropout=0.5, target=["table", "encoder.*"])
    adapters.set_active(model, "bob")


def one(model):
    adapters.add(model, "ann", 4, target="0")


def silenced_and_merged(model):
    adapters.add(model, "ann", 4)
    adapters.scale(model, "ann", 0.25)
    adapters.merge(model, "ann")


@pytest.mark.parametrize("add", [ranks_and_alphas, many, one, silenced_and_merged])
def test_what_is_saved_here_acts_in_peft(peft, tmp_path, add):
    base, model = twins()
    add(model)
    if add is silenced_and_merged:
        adapters.unmerge(model)
    filled(model)
    if add is silenced_and_merged:
        adapters.merge(model, "ann")
    adapters.save(model, "ann", tmp_path / "any")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "any", adapter_name="ann").eval()
    if add is not silenced_and_merged:
        adapters.set_active(model, "ann")
    model.eval()
    for inputs in (INDICES, X):
        near(model(inputs), theirs(inputs))
    back = twins()[1]
    report = adapters.load(back, tmp_path / "any", "ann")
    for layer in report.layers:
        number, was = layer.adapters[0], model.get_submodule(layer.path).adapters["ann"]
        part = theirs.base_model.model.get_submodule(layer.path)
        assert number.scale == pytest.approx(was.scale, rel=1e-12) == part.scaling["ann"]
        assert (number.rank, number.dropout, number.rslora) == (was.rank, was.dropout, was.rslora)
    back.eval()
    near(back(INDICES), theirs(INDICES))


def test_training_goes_on_as_in_peft(peft, tmp_path):
    """Three steps of SGD there and here end in the same weights; the base stays as it was."""
    base, model = twins()
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=4, target_modules=TARGETS))
    filled(theirs)
    theirs.save_pretrained(tmp_path / "ann")
    adapters.load(model, tmp_path / "ann")
    before = {name: value.clone() for name, value in model.state_dict().items() if "ann" not in name}
    assert all("ann_" in name for name in trained(model))
    for module in (theirs, model):
        module.train()
        optimizer = torch.optim.SGD([w for w in module.parameters() if w.requires_grad], 1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            (module(INDICES) ** 2).mean().backward()
            optimizer.step()
    near(model(INDICES), theirs(INDICES))
    adapters.save(model, "ann", tmp_path / "again")
    theirs.save_pretrained(tmp_path / "theirs")
    here, there = (safetensors.torch.load_file(tmp_path / name / TENSORS) for name in ("again", "theirs"))
    assert here.keys() == there.keys()
    for name, value in here.items():
        near(value, there[name])
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_path_that_ends_another_means_itself_only_in_peft(peft, tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)))  # "0" and "1.0"
    base = copy.deepcopy(model)
    adapters.add(model, "ann", 2, target=lambda path, _: path == "0")
    filled(model)
    adapters.save(model, "ann", tmp_path)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path)
    assert [name for name, part in theirs.named_modules() if hasattr(part, "lora_A")] == ["base_model.model.0"]
    near(theirs(torch.ones(2, 3)), model(torch.ones(2, 3)))


def test_16_bits_are_read(peft, tmp_path):
    base, model = twins()
    config = peft.LoraConfig(r=2, target_modules=["head"])
    theirs = peft.get_peft_model(base.to(torch.bfloat16), config, autocast_adapter_dtype=False)
    filled(theirs)
    theirs.save_pretrained(tmp_path / "ann")
    adapters.load(model, tmp_path / "ann")
    assert model.head.ann_kernel_a.dtype == torch.float32
    part = theirs.base_model.model.head.lora_B["default"].weight
    assert part.dtype == torch.bfloat16
    assert torch.equal(model.head.ann_kernel_b.t(), part.float())


# --- alone ------------------------------------------------------------------------------------------------------------


def test_the_files_are_those_of_peft(tmp_path):
    model = ours()
    adapters.add(model, "ann", {"*": 2, "head": 5}, alpha=8, dropout=0.1)
    adapters.save(model, "ann", tmp_path / "new" / "ann")
    assert sorted(os.listdir(tmp_path / "new" / "ann")) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((tmp_path / "new" / "ann" / "adapter_config.json").read_text())
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "rank_pattern": {"^head": 5}, "alpha_pattern": {},
            "lora_dropout": 0.1, "use_rslora": False, "bias": "none", "fan_in_fan_out": False, "task_type": None,
            "base_model_name_or_path": None, "inference_mode": True, "target_modules": TARGETS}  # fmt: skip
    assert told.items() <= config.items()
    stored = safetensors.torch.load_file(tmp_path / "new" / "ann" / TENSORS)
    assert {name: tuple(value.shape) for name, value in stored.items()} == {
        "base_model.model.table.lora_embedding_A": (2, 7),
        "base_model.model.table.lora_embedding_B": (4, 2),
        "base_model.model.encoder.0.lora_A.weight": (2, 4),
        "base_model.model.encoder.0.lora_B.weight": (8, 2),
        "base_model.model.encoder.2.lora_A.weight": (2, 8),
        "base_model.model.encoder.2.lora_B.weight": (4, 2),
        "base_model.model.head.lora_A.weight": (5, 4),
        "base_model.model.head.lora_B.weight": (3, 5),
    }
    assert torch.equal(stored["base_model.model.head.lora_A.weight"], model.head.ann_kernel_a.t())


def test_a_layer_by_itself(tmp_path):
    layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    adapters.add(layer, "ann", 2)
    filled(layer)
    adapters.save(layer, "ann", tmp_path / "ann")
    adapters.load(other, tmp_path / "ann")
    assert torch.equal(other.ann_weight_a, layer.ann_weight_a)
    assert torch.equal(other.ann_weight_b, layer.ann_weight_b)


letters = st.characters(exclude_characters=".", exclude_categories=["Cs", "Cc"])
part_names = st.text(letters, min_size=1, max_size=5).filter(lambda name: not hasattr(nn.Module(), name))


@settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])
@given(st.data())
def test_random_models_and_back(tmp_path_factory, data):
    """Any names, sizes, ranks and alphas: what is loaded is bit for bit what was saved."""
    names = data.draw(st.lists(part_names, min_size=1, max_size=4, unique=True))
    sizes = st.integers(1, 5)
    model = nn.Module()
    for name in names:
        inner = nn.Module()
        for part in data.draw(st.lists(st.sampled_from(["a", "a-b", "0"]), min_size=1, max_size=2, unique=True)):
            made = data.draw(st.sampled_from([nn.Linear, Embedding]))(data.draw(sizes), data.draw(sizes))
            if isinstance(made, Embedding):
                made.build()
            inner.add_module(part, made)
        model.add_module(name, inner)
    other = copy.deepcopy(model)
    paths = list(adapters.targets.adaptable(model))
    rslora, dropout = data.draw(st.booleans()), data.draw(st.sampled_from([0.0, 0.3]))
    for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, unique=True)):
        alpha = data.draw(st.floats(0.1, 100))
        rank = data.draw(sizes)
        adapters.add(model.get_submodule(path), "ann", rank, alpha, dropout, lambda *_: True, rslora)
        adapters.scale(model.get_submodule(path), "ann", data.draw(st.sampled_from([1.0, -2.0, 0.0])))
    folder = tmp_path_factory.mktemp("f")
    adapters.save(model, "ann", folder)
    state = torch.random.get_rng_state()
    found = adapters.load(other, folder, "x")
    assert torch.equal(state, torch.random.get_rng_state())
    assert [layer.path for layer in found.layers] == [layer.path for layer in adapters.report(model).layers]
    for layer in found.layers:
        mine, theirs = model.get_submodule(layer.path), other.get_submodule(layer.path)
        was, now = mine.adapters["ann"], theirs.adapters["x"]
        assert (now.rank, now.dropout, now.rslora) == (was.rank, was.dropout, was.rslora)
        assert math.isclose(now.scale, was.scale, rel_tol=1e-12)
        pairs = zip(mine._pair_names(), theirs._pair_names(), strict=True)
        assert all(torch.equal(getattr(mine, a), getattr(theirs, b)) for a, b in pairs)


@pytest.mark.parametrize("trainable", [True, False])
def test_what_trains_afterwards(tmp_path, trainable):
    model, other = ours(), ours()
    adapters.add(model, "ann", 2)
    adapters.save(model, "ann", tmp_path / "ann")
    before = trained(other)
    report = adapters.load(other, tmp_path / "ann", trainable=trainable)
    layers = ("encoder.0.ann_weight", "encoder.2.ann_weight", "head.ann_kernel")
    expected = [f"{layer}_{side}" for layer in layers for side in "ab"]
    assert trained(other) == (expected if trainable else [])
    assert report.trained == (sum(w.numel() for w in other.parameters() if w.requires_grad))
    adapters.set_active(other, None)
    adapters.set_active(other, "ann")
    assert trained(other) == (expected if trainable else [])
    adapters.remove(other, "ann")
    assert trained(other) == before
    assert type(other.encoder[0]) is nn.Linear


def test_a_folder_whose_name_no_adapter_can_have(tmp_path):
    model, other = ours(), ours()
    adapters.add(model, "ann", 2)
    adapters.save(model, "ann", tmp_path / "ann-v2")
    with pytest.raises(ValueError, match=r"found 'ann-v2'\. It is the folder's: give another as name="):
        adapters.load(other, tmp_path / "ann-v2")
    adapters.load(other, tmp_path / "ann-v2", name="ann")
    assert other.head.active_adapter == "ann"


def test_a_second_adapter_leaves_the_first_idle(tmp_path):
    model = ours()
    adapters.add(model, "ann", 2)
    filled(model)
    adapters.save(model, "ann", tmp_path / "ann")
    adapters.load(model, tmp_path / "ann", "bob")
    assert model.head.active_adapter == "bob"
    expected = model(INDICES)
    adapters.set_active(model, "ann")
    assert torch.equal(model(INDICES), expected)
    with pytest.raises(ValueError, match="adapter 'bob' already"):
        adapters.load(model, tmp_path / "ann", "bob")
    with pytest.raises(ValueError, match="letters, digits and underscores, found 'b-b'"):
        adapters.load(model, tmp_path / "ann", "b-b")
    assert model.head.active_adapter == "ann"


def test_a_fanin_model_trains_on(tmp_path):
    def make():
        return fanin.Sequential([fanin.Input((4,)), Dense(6, "tanh"), Dense(1)])

    fanin.utils.set_random_seed(0)
    x, y = torch.randn(64, 4), torch.randn(64, 1)
    base = make()
    model = make()
    model.set_weights(base.get_weights())
    adapters.add(model, "ann", 2)
    model.compile("adam", "mse")
    model.fit(x, y, epochs=2, verbose=0)
    adapters.save(model, "ann", tmp_path / "ann")
    adapters.load(base, tmp_path / "ann")
    near(base(x), model(x))
    base.compile("adam", "mse")
    first, last = (base.fit(x, y, epochs=5, verbose=0).history["loss"][n] for n in (0, -1))
    assert last < first
    assert torch.equal(base.layers[0].kernel, model.layers[0].kernel)


# --- saving fails -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_saved(tmp_path):
    model = ours()
    with pytest.raises(ValueError, match="no adapter 'ann'"):
        adapters.save(model, "ann", tmp_path / "ann")
    adapters.add(model.encoder, "ann", 2)
    adapters.add(model.head, "ann", 2, dropout=0.5)
    with pytest.raises(ValueError, match="'ann' differ in dropout or rslora"):
        adapters.save(model, "ann", tmp_path / "ann")
    with pytest.raises(ValueError, match="has no weights yet"):
        adapters.save(fanin.Sequential([Dense(2, lora_rank=1)]), "lora", tmp_path / "ann")
    assert not (tmp_path / "ann").exists()


def test_overwrite(tmp_path):
    model = ours()
    adapters.add(model, "ann", 2)
    adapters.save(model, "ann", tmp_path / "ann")
    before = (tmp_path / "ann" / TENSORS).read_bytes()
    filled(model)
    with pytest.raises(ValueError, match="exists already"):
        adapters.save(model, "ann", tmp_path / "ann", overwrite=False)
    assert (tmp_path / "ann" / TENSORS).read_bytes() == before
    adapters.save(model, "ann", tmp_path / "ann")
    assert (tmp_path / "ann" / TENSORS).read_bytes() != before


def test_a_full_disk_leaves_the_old_adapter(tmp_path, monkeypatch):
    model, taker = ours(), ours()
    adapters.add(model, "ann", 2)
    adapters.save(model, "ann", tmp_path / "ann")
    files = {path.name: path.read_bytes() for path in (tmp_path / "ann").iterdir()}
    adapters.remove(model, "ann")
    adapters.add(model, "ann", 3)
    real = os.fsync
    for failing in (1, 2):
        calls = iter(range(1, 99))

        def full(handle, failing=failing, calls=calls):
            if next(calls) == failing:
                raise OSError(28, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            adapters.save(model, "ann", tmp_path / "ann")
        assert {path.name: path.read_bytes() for path in (tmp_path / "ann").iterdir()} == files
    monkeypatch.undo()
    adapters.load(taker, tmp_path / "ann")


# --- the config -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("up", ["up", "a.up", "b.a.up"]),
        ("^up", ["up"]),
        ("a.up", ["a.up", "axup", "b.a.up"]),
        (r"a\.up", ["a.up", "b.a.up"]),
        (".*p", ["up", "a.up", "axup", "b.a.up"]),
        (r"l\d+", ["l12"]),
        ("up$", ["up", "a.up", "b.a.up"]),
    ],
)
def test_patterns_mean_what_they_mean_in_peft(pattern, fitting):
    paths = ["up", "a.up", "axup", "b.a.up", "down", "l12"]
    config = Config(1, 1.0, {pattern: 2, ".*": 3}, {}, ())
    assert [path for path, (rank, _) in config.numbers(paths).items() if rank == 2] == fitting
    other = pytest.importorskip("peft.utils.other", reason="PEFT is not installed (pip install 'fanin[peft]')")
    assert [path for path in paths if other.get_pattern_key([pattern, ".*"], path) == pattern] == fitting


def test_keys_left_out_are_pefts_defaults():
    config = Config.from_json(b'{"peft_type": "LORA", "new_option": null, "another": false}')
    assert (config.rank, config.alpha, config.dropout, config.rslora) == (8, 8, 0, False)
    with pytest.raises(MismatchError, match="new_option is 4, which fanin does not compute"):
        Config.from_json(b'{"peft_type": "LORA", "new_option": 4}')
