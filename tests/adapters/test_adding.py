"""Adapters on any model: which layers get them, what trains, which one acts, and that nothing is left behind."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import fanin
from fanin import adapters
from fanin.adapters.linear import AdaptedLinear
from fanin.layers import Dense, Embedding


class Tower(nn.Module):
    """A plain module with layers of both kinds."""

    def __init__(self):
        super().__init__()
        self.table = Embedding(7, 4)
        self.encoder = nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4, bias=False)})
        self.norm = nn.LayerNorm(4)
        self.head = Dense(3, name="head_of_all")
        self(torch.zeros(1, 2, dtype=torch.long))

    def forward(self, indices):
        x = self.table(indices)
        x = x + self.encoder["down"](torch.relu(self.encoder["up"](x)))
        return self.head(self.norm(x))


@pytest.fixture
def tower():
    return Tower()


INDICES = torch.tensor([[1, 2, 0], [6, 5, 5]])


def trained(module):
    return [name for name, weight in module.named_parameters() if weight.requires_grad]


# --- which layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, ["encoder.up", "encoder.down", "head"]),
        ("up", ["encoder.up"]),
        ("encoder.up", ["encoder.up"]),
        ("encoder.*", ["encoder.up", "encoder.down"]),
        ("head_of_all", ["head"]),
        (["table", "*down"], ["table", "encoder.down"]),
        (lambda path, layer: isinstance(layer, nn.Linear), ["encoder.up", "encoder.down"]),
    ],
)
def test_targets(tower, target, expected):
    report = adapters.add(tower, "ann", 2, target=target)
    assert [layer.path for layer in report.layers] == expected
    rest = [path for path in ("table", "encoder.up", "encoder.down", "head") if path not in expected]
    assert list(report.without) == rest


def test_ranks_by_pattern(tower):
    adapters.add(tower, "ann", {"encoder.*": 3, "up": 1}, alpha=6, rslora=True)
    assert {path: part.adapters["ann"].rank for path, part in tower.encoder.items()} == {"up": 1, "down": 3}
    assert not tower.head.adapters
    assert tower.encoder["down"].adapters["ann"].scale == 6 / 3**0.5
    with pytest.raises(ValueError, match="No pattern of rank gives one to 'head'"):
        adapters.add(tower, "bob", {"up": 2}, target=["up", "head"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "encoder.upp"}, "No layer of Tower fits 'encoder.upp'.*encoder.up"),
        ({"target": "norm"}, "'norm' is a LayerNorm, which takes no adapter"),
        ({"target": ["up", "nothing"]}, "No layer of Tower fits 'nothing'. Known names: 'embedding"),
        ({"target": lambda path, layer: False}, "No layer of Tower is to get an adapter: it has 'table', 'encoder.up'"),
        ({"target": []}, "No layer of Tower is to get an adapter"),
        ({"rank": 0}, "rank must be a positive integer, found 0"),
        ({"rank": {"nothing": 2}}, "No layer of Tower fits 'nothing'"),
        ({"name": "a.b"}, "letters, digits and underscores"),
        ({"dropout": 1}, "dropout must be"),
        ({"b_initializer": lambda shape, dtype: torch.zeros(9)}, "shape"),
    ],
)
def test_refusals_leave_the_model_as_it_was(tower, arguments, message):
    before = {name: weight.requires_grad for name, weight in tower.named_parameters()}
    with pytest.raises(ValueError, match=message):
        adapters.add(tower, **{"name": "ann", "rank": 2, **arguments})
    assert {name: weight.requires_grad for name, weight in tower.named_parameters()} == before
    assert type(tower.encoder["up"]) is nn.Linear
    assert type(tower.encoder["down"]) is nn.Linear


def test_all_layers_that_cannot_are_named():
    model = nn.Sequential(nn.Linear(2, 3), Dense(3), Dense(4, kernel_constraint="non_neg"))
    model[2].build((None, 3))
    with pytest.raises(
        ValueError, match=r"Sequential takes no adapter 'ann': 1: the layer is not built.*; 2: .*constr"
    ):
        adapters.add(model, "ann", 2)
    fanin.constrain(model, {"0.weight": "non_neg"})
    with pytest.raises(ValueError, match="0: there is a constraint on the weight"):
        adapters.add(model, "ann", 2, target="0")
    assert type(model[0]) is nn.Linear
    with pytest.raises(ValueError, match="Sequential has no adapter 'ann'; it has none"):
        adapters.set_active(model, "ann")
    with pytest.raises(TypeError, match="names and patterns, found 3"):
        adapters.add(model, "ann", 2, target=[3])


def test_subclasses_of_linear_are_left_alone():
    attention = nn.MultiheadAttention(4, 2)
    with pytest.raises(ValueError, match="out_proj' is a NonDynamicallyQuantizableLinear, which takes no adapter"):
        adapters.add(attention, "ann", 2, target="out_proj")


# --- what trains ------------------------------------------------------------------------------------------------------


def test_only_the_new_adapter_trains_and_removing_it_restores(tower):
    tower.norm.bias.requires_grad_(False)
    tower.head.trainable = False
    before = trained(tower)
    keys = list(tower.state_dict())
    outputs = tower(INDICES)
    adapters.add(tower, "ann", 2, target=["up", "head", "table"])
    assert torch.equal(tower(INDICES), outputs)
    assert sorted(trained(tower)) == [
        "encoder.up.ann_weight_a", "encoder.up.ann_weight_b", "head.ann_kernel_a", "head.ann_kernel_b",
        "table.ann_embeddings_a", "table.ann_embeddings_b",
    ]  # fmt: skip
    adapters.add(tower, "bob", 1, target="down")
    assert trained(tower) == ["encoder.down.bob_weight_a", "encoder.down.bob_weight_b"]
    adapters.remove(tower, "ann")
    assert trained(tower) == ["encoder.down.bob_weight_a", "encoder.down.bob_weight_b"]
    adapters.remove(tower, "bob")
    assert trained(tower) == before
    assert list(tower.state_dict()) == keys
    assert type(tower.encoder["up"]) is type(tower.encoder["down"]) is nn.Linear
    assert not any("_fanin_held" in part.__dict__ for part in tower.modules())
    assert torch.equal(tower(INDICES), outputs)


def test_adapters_of_a_part_and_of_the_whole(tower):
    before = trained(tower)
    adapters.add(tower.encoder, "ann", 2)
    adapters.add(tower, "bob", 2, target="head")
    adapters.remove(tower, "bob")
    assert set(before) - set(trained(tower)) == {"encoder.up.weight", "encoder.up.bias", "encoder.down.weight"}
    adapters.set_active(tower, "ann")
    adapters.remove(tower.encoder, "ann")
    assert trained(tower) == before


def test_a_model_that_was_frozen_before_trains_its_adapter(tower):
    tower.requires_grad_(False)
    adapters.add(tower, "ann", 2, target="up")
    assert trained(tower) == ["encoder.up.ann_weight_a", "encoder.up.ann_weight_b"]
    adapters.remove(tower, "ann")
    assert trained(tower) == []


def test_what_is_thawed_after_it_trains_along():
    model = fanin.Sequential([fanin.Input((4,)), Dense(8), Dense(2, name="last")])
    adapters.add(model, "ann", 2, target="dense")
    model.layers[-1].trainable = True
    assert trained(model) == ["0.ann_kernel_a", "0.ann_kernel_b", "1.kernel", "1.bias"]
    model.trainable = False
    assert trained(model) == []
    model.trainable = True
    assert "0.kernel" not in trained(model)


def test_a_step_changes_the_adapter_alone(tower):
    adapters.add(tower, "ann", 2, target=["up", "down", "head", "table"], b_initializer="ones")
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in tower.parameters() if p.requires_grad], 0.1)
    loss = tower(INDICES).square().mean()
    loss.backward()
    optimizer.step()
    changed = {name for name, value in tower.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "ann" in name}
    assert tower(INDICES).square().mean() < loss


def test_fit_trains_the_adapter_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)).astype("float32"), rng.normal(size=(64, 2)).astype("float32")
    model = fanin.Sequential([fanin.Input((6,)), Dense(16, "relu"), nn.Linear(16, 2)])
    adapters.add(model, "ann", 4, target=lambda path, layer: True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.compile("adam", "mse")
    losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "ann" in name}


@pytest.mark.filterwarnings("ignore:.*no weights that train")  # once "bob", which acts, is removed
def test_fit_follows_every_change():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6)).astype("float32"), rng.normal(size=(32, 2)).astype("float32")
    model = fanin.Sequential([fanin.Input((6,)), Dense(16, "relu"), nn.Linear(16, 2)])
    twin = copy.deepcopy(model)
    model.compile("sgd", "mse")
    twin.compile("sgd", "mse", run_eagerly=True)
    draw = fanin.initializers.RandomNormal(stddev=0.3, seed=1)
    changes = [
        lambda m: adapters.add(m, "ann", 4, alpha=8, a_initializer=draw),
        lambda m: adapters.scale(m, "ann", 0.5),
        lambda m: adapters.add(m, "bob", 2, target="1*", a_initializer=draw),
        lambda m: adapters.set_active(m, "ann"),
        lambda m: adapters.merge(m, "bob") or adapters.unmerge(m),
        lambda m: adapters.remove(m, "bob"),
        lambda m: adapters.remove(m, "ann"),
    ]
    for change in changes:
        change(model)
        change(twin)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for each in (model, twin):
            each.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        after = model.state_dict()
        for name, value in twin.state_dict().items():
            torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-6)
        assert {name for name in before if not torch.equal(after[name], before[name])} == set(trained(model))


# --- which one acts ---------------------------------------------------------------------------------------------------


def test_one_acts_at_a_time(tower):
    base = tower(INDICES)
    adapters.add(tower, "ann", 2, target=["up", "head"], b_initializer="ones")
    ann = tower(INDICES)
    adapters.add(tower, "bob", 3, target="down", b_initializer="ones")
    bob = tower(INDICES)
    assert not torch.equal(ann, base)
    assert not torch.equal(bob, ann)
    for name, expected in {"ann": ann, "bob": bob, None: base}.items():
        adapters.set_active(tower, name)
        assert torch.equal(tower(INDICES), expected)
        assert all(f"{name}_" in each for each in trained(tower))
    with pytest.raises(ValueError, match="Tower has no adapter 'eve'; it has 'ann', 'bob'"):
        adapters.set_active(tower, "eve")
    with pytest.raises(ValueError, match="Tower has no adapter 'eve'"):
        adapters.remove(tower, "eve")
    for each in (adapters.set_active, adapters.merge):
        with pytest.raises(TypeError, match=r"needed, found \['ann', 'bob'\]\. `fanin.adapters.combine`"):
            each(tower, ["ann", "bob"])


def test_names_that_are_taken(tower):
    adapters.add(tower, "ann", 2, target="up")
    with pytest.raises(ValueError, match=r"encoder\.up: there is an adapter 'ann' already"):
        adapters.add(tower, "ann", 2)
    assert type(tower.encoder["down"]) is nn.Linear
    adapters.add(tower, "ann", 2, target="down")  # elsewhere is well
    assert {path for path, part in tower.encoder.items() if part.active_adapter == "ann"} == {"up", "down"}


def test_keras_lora_is_an_adapter_as_any_other():
    layer = Dense(3, lora_rank=2)
    layer(torch.ones(1, 4))
    adapters.add(layer, "ann", 2)
    assert trained(layer) == ["ann_kernel_a", "ann_kernel_b"]
    adapters.set_active(layer, "lora")
    adapters.remove(layer, "ann")
    assert trained(layer) == ["bias", "lora_kernel_a", "lora_kernel_b"]
    adapters.remove(layer, "lora")
    assert trained(layer) == ["kernel", "bias"]
    assert layer.lora_rank is None
    assert "lora_rank" not in layer.get_config()


# --- Linear remains a Linear ------------------------------------------------------------------------------------------


def test_a_linear_with_adapters():
    linear = nn.Linear(4, 3)
    inputs = torch.randn(5, 4)
    weight = linear.weight
    adapters.add(linear, "ann", 2, b_initializer="ones")
    assert type(linear) is AdaptedLinear
    assert isinstance(linear, nn.Linear)
    assert linear.weight is weight
    expected = inputs @ (weight.T + linear.ann_weight_a @ linear.ann_weight_b) + linear.bias
    torch.testing.assert_close(linear(inputs), expected)
    torch.testing.assert_close(linear(inputs.expand(2, 5, 4)), expected.expand(2, 5, 3))
    assert repr(linear) == "AdaptedLinear(in_features=4, out_features=3, bias=True, adapters=['ann'])"
    for again in (copy.deepcopy(linear), pickle.loads(pickle.dumps(linear)), saved_and_loaded(linear)):
        assert torch.equal(again(inputs), linear(inputs))
        assert again.weight is not linear.weight
        adapters.remove(again, "ann")
        assert type(again) is nn.Linear
        assert all(p.requires_grad for p in again.parameters())
    other = nn.Linear(4, 3)
    adapters.add(other, "ann", 2)
    other.load_state_dict(linear.state_dict())
    assert torch.equal(other(inputs), linear(inputs))
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    assert torch.equal(compiled(inputs), linear(inputs))


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_pairs_beside_other_dtypes(dtype):
    linear = nn.Linear(4, 3, dtype=dtype)
    adapters.add(linear, "ann", 2)
    assert linear.ann_weight_a.dtype == torch.promote_types(dtype, torch.float32)
    assert linear(torch.ones(2, 4, dtype=dtype)).dtype == dtype


def test_autocast():
    linear = nn.Linear(64, 48)
    adapters.add(linear, "ann", 2, b_initializer="ones")
    inputs = torch.randn(300, 64)
    exact = linear(inputs)
    for grad in (True, False):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
            outputs = linear(inputs)
        assert outputs.dtype == torch.bfloat16
        assert (outputs.float() - exact).abs().max() < 2**-6 * exact.abs().max()


def test_pairs_are_where_the_weight_is():
    layer = Dense(3)
    layer(torch.ones(1, 4))
    for module in (layer.to("meta"), nn.Linear(4, 3, device="meta")):
        adapters.add(module, "ann", 2)
        assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


def test_adding_inside_other_modes():
    linear = nn.Linear(4, 3)
    with torch.inference_mode():
        adapters.add(linear, "ann", 2)
    linear(torch.ones(2, 4)).sum().backward()
    assert linear.ann_weight_b.grad is not None


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("masked", [False, True])
def test_torchs_fast_way_through_a_transformer_sees_the_adapter(masked):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
    x = torch.randn(3, 5, 8)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 3:] = masked
    with torch.no_grad():
        base = model(x, src_key_padding_mask=mask)
        adapters.add(model, "ann", 2, b_initializer="ones")
        fast = model(x, src_key_padding_mask=mask)
    model.use_nested_tensor = False
    slow = model(x, src_key_padding_mask=mask)
    assert (fast - slow)[~mask].abs().max() < 1e-5
    assert (fast - base)[~mask].abs().max() > 1e-3
    adapters.remove(model, "ann")
    assert not any(part._forward_pre_hooks for part in model.modules())


# --- tracing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(5,), (2, 3)])
def test_a_step_traces_with_fake_tensors(leading):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Dense(3))
    inputs = torch.randn(*leading, 6)
    model(inputs)
    adapters.add(model, "ann", 2, alpha=4, b_initializer="ones")
    parameters = dict(model.named_parameters())
    names = trained(model)

    def step(values, inputs):
        loss = torch.func.functional_call(model, values, (inputs,)).square().mean()
        return torch.autograd.grad(loss, [values[name] for name in names])

    traced = make_fx(step, tracing_mode="fake")(parameters, inputs)
    for found, expected in zip(traced(parameters, inputs), step(parameters, inputs), strict=True):
        assert torch.equal(found, expected)
    with FakeTensorMode() as mode:
        fake = model_on(mode, model)
        assert torch.func.functional_call(model, fake, (mode.from_tensor(inputs),)).shape == (*leading, 3)


def model_on(mode, model):
    return {name: mode.from_tensor(weight) for name, weight in model.named_parameters()}


def test_export_with_any_number_of_rows():
    model = nn.Sequential(nn.Linear(6, 8))
    adapters.add(model, "ann", 2, b_initializer="ones")
    with torch.no_grad():
        shapes = ({0: torch.export.Dim("rows")},)
        exported = torch.export.export(model, (torch.randn(4, 6),), dynamic_shapes=shapes).module()
    inputs = torch.randn(200, 6)
    torch.testing.assert_close(exported(inputs), model(inputs))
