"""A fanin layer is an ordinary torch.nn.Module: what PyTorch does to modules works on it, built or not."""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.utils import parametrizations, parametrize, prune

import fanin
from fanin.kernels import KernelScheme, Slot
from fanin.layers import Dense, Embedding, Layer


def built(*args: Any, input_dim: int = 4, **kwargs: Any) -> Dense:
    layer = Dense(*args, **kwargs)
    layer.build((None, input_dim))
    return layer


class Custom(Layer):
    """Makes its weights in `build`, without placeholders, and its sublayer builds inside its call."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.inner = Dense(3)

    def build(self, input_shape):
        self.scale = self.add_weight("scale", (input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return self.inner(inputs * self.scale)


# --- state_dict -------------------------------------------------------------------------------------------


def test_state_dict_keys_are_kernel_and_bias():
    assert list(built(3).state_dict()) == ["kernel", "bias"]
    assert list(built(3, use_bias=False).state_dict()) == ["kernel"]
    assert [name for name, _ in Dense(3).named_parameters()] == ["kernel", "bias"]
    assert list(Dense(3).state_dict()) == []


def test_parameters_are_contiguous():
    for layer in (built(3), Dense.from_linear(nn.Linear(4, 3))):
        assert all(p.is_contiguous() and p.is_leaf for p in layer.parameters())


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_load_state_dict_builds_an_unbuilt_layer(assign, use_bias):
    source, target = built(3, use_bias=use_bias), Dense(3, use_bias=use_bias)
    target.load_state_dict(source.state_dict(), assign=assign)
    assert target.built
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in target.parameters())
    x = torch.randn(2, 4)
    assert torch.equal(target(x), source(x))
    assert (target.kernel.data_ptr() == source.kernel.data_ptr()) is assign
    with pytest.raises(ValueError, match="axis -1"):
        target(torch.ones(2, 5))


def test_load_state_dict_builds_the_layers_of_a_model():
    source = nn.Sequential(built(3), nn.ReLU(), built(2, input_dim=3))
    target = nn.Sequential(Dense(3), nn.ReLU(), Dense(2))
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    buffer.seek(0)
    target.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(2, 4)
    assert torch.equal(target(x), source(x))


def test_load_state_dict_of_a_part_builds_what_it_can():
    """What torch says of the rest, it says here: a missing key is an error, or, if not strict, listed."""
    source, x = nn.Sequential(built(3), built(2, input_dim=3)), torch.randn(2, 4)
    part = {name: value for name, value in source.state_dict().items() if name.startswith("0.")}
    target = nn.Sequential(Dense(3), Dense(2))
    found = target.load_state_dict(part, strict=False)
    assert found.missing_keys == ["1.kernel", "1.bias"]
    assert (target[0].built, target[1].built) == (True, False)
    assert torch.equal(target[0](x), source[0](x))
    kernel_alone = Dense(3)
    assert kernel_alone.load_state_dict({"kernel": source[0].kernel}, strict=False).missing_keys == ["bias"]
    assert torch.equal(kernel_alone(x), x @ source[0].kernel)  # a bias begins at 0
    with pytest.raises(RuntimeError, match="Missing key"):
        nn.Sequential(Dense(3), Dense(2)).load_state_dict(part)


@pytest.mark.parametrize("strict", [False, True])
def test_load_state_dict_that_does_not_say_the_shape(strict):
    layer = Dense(3, name="head")
    with pytest.raises(RuntimeError, match="Layer 'head' is not built, and 'bias' in the state_dict does not say its"):
        layer.load_state_dict({"bias": torch.ones(3)}, strict=strict)
    assert not layer.built
    layer.load_state_dict({}, strict=False)
    layer.build((None, 4))
    layer.load_state_dict({"bias": torch.ones(3)}, strict=False)
    assert layer.bias.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("plain", "adapted"), [(Dense(3), Dense(3, lora_rank=2)), (Embedding(9, 3), Embedding(9, 3, lora_rank=2))]
)
def test_weights_without_adapters_build_a_layer_with_lora(plain, adapted):
    x = torch.arange(8).reshape(2, 4)
    expected = plain(x)
    with pytest.raises(RuntimeError, match="Missing key"):
        type(adapted).from_config(adapted.get_config()).load_state_dict(plain.state_dict())
    found = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert [name.rsplit("_", 1)[-1] for name in found.missing_keys] == ["a", "b"]
    assert torch.equal(adapted(x), expected)  # B begins at 0
    assert all("lora" in name for name, p in adapted.named_parameters() if p.requires_grad and "bias" not in name)


def test_an_optimizer_made_before_the_load_trains_what_was_loaded():
    target = Dense(3)
    optimizer = torch.optim.SGD(target.parameters(), lr=0.1)
    target.load_state_dict(built(3).state_dict())
    before = target.kernel.detach().clone()
    target(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, target.kernel)


@pytest.mark.parametrize("assign", [False, True])
def test_wrong_units_are_refused_and_nothing_is_changed(assign):
    state = built(3).state_dict()
    unbuilt, known = Dense(2), built(2)
    before = known.kernel.detach().clone()
    with pytest.raises(RuntimeError, match=r"units=2, found 'kernel' of shape \(4, 3\)"):
        unbuilt.load_state_dict(state, assign=assign)
    assert not unbuilt.built
    with pytest.raises(RuntimeError, match="size mismatch for kernel"):
        known.load_state_dict(state, assign=assign)
    assert torch.equal(known.kernel, before)
    wrong_bias = {"kernel": torch.ones(4, 2), "bias": torch.ones(3)}
    with pytest.raises(RuntimeError, match="'bias'"):
        unbuilt.load_state_dict(wrong_bias)
    assert not unbuilt.built
    assert unbuilt(torch.ones(1, 7)).shape == (1, 2)


def test_strict_loading():
    for layer in (Dense(3), built(3)):
        with pytest.raises(RuntimeError, match=r'Missing key.*"bias"'):
            layer.load_state_dict({"kernel": torch.ones(4, 3)})
        with pytest.raises(RuntimeError, match=r'Unexpected key.*"extra"'):
            layer.load_state_dict({**built(3).state_dict(), "extra": torch.ones(1)})
        result = layer.load_state_dict({"kernel": torch.ones(4, 3)}, strict=False)
        assert result.missing_keys == ["bias"]


# --- containers, hooks, devices, dtypes -------------------------------------------------------------------


def test_torch_sequential():
    model = nn.Sequential(Dense(8, "relu"), nn.LayerNorm(8), Dense(2))
    assert model(torch.randn(3, 4)).shape == (3, 2)
    assert list(model.state_dict()) == ["0.kernel", "0.bias", "1.weight", "1.bias", "2.kernel", "2.bias"]
    model.eval()
    assert not model[0].training


def test_forward_hooks():
    layer, seen = Dense(3), []
    layer.register_forward_pre_hook(lambda module, args: seen.append("before"))
    layer.register_forward_hook(lambda module, args, output: output * 0 + 5)
    layer.register_full_backward_hook(lambda *args: seen.append("backward"))
    x = torch.ones(2, 4, requires_grad=True)
    y = layer(x)
    assert (y == 5).all()
    y.sum().backward()
    assert seen == ["before", "backward"]


def test_moving_to_another_dtype_takes_the_policy_along():
    for layer in (Dense(3), built(3)):
        layer.double()
        assert layer(torch.ones(2, 4)).dtype == torch.float64
        assert layer.dtype == layer.compute_dtype == "float64"
        layer.to(torch.bfloat16)
        assert layer(torch.ones(2, 4)).dtype == layer.kernel.dtype == torch.bfloat16
    for move in ("half", "bfloat16", "float", "double"):
        layer = getattr(Dense(3), move)()
        dtype = layer(torch.ones(2, 4)).dtype
        assert layer.kernel.dtype == dtype == getattr(torch, layer.dtype)
    mixed = built(3, dtype="mixed_bfloat16")
    mixed.float()
    assert mixed.dtype_policy.name == "mixed_bfloat16"


def test_the_meta_device():
    with torch.device("meta"):
        inside = Dense(3)
        custom = Custom()
    for layer in (inside, Dense(3).to("meta"), built(3).to("meta"), custom):
        x = torch.ones(2, 4, device="meta")
        assert layer(x).device.type == "meta"
        assert all(p.device.type == "meta" and isinstance(p, nn.Parameter) for p in layer.parameters())
    inside.to_empty(device="cpu")
    inside.load_state_dict(built(3).state_dict())
    assert inside(torch.ones(2, 4)).shape == (2, 3)
    target = Dense(3).to("meta")
    target.load_state_dict(built(3).state_dict(), assign=True)
    assert target(torch.ones(2, 4)).device.type == "cpu"


def test_an_unbuilt_layer_comes_back_from_the_meta_device():
    layer = Dense(3).to("meta").to_empty(device="cpu")
    assert layer(torch.ones(2, 4)).device.type == "cpu"


def test_requires_grad_and_zero_grad_before_the_first_call():
    model = nn.Sequential(Dense(3), nn.ReLU())
    model.requires_grad_(False)
    model.zero_grad()
    model(torch.ones(2, 4))
    assert not model[0].kernel.requires_grad
    assert model[0].trainable is False


def test_using_a_placeholder_says_what_to_do():
    with pytest.raises(ValueError, match="First call the layer once"):
        _ = Dense(3).kernel + 1


def test_pickle_and_deepcopy_of_torch_models():
    model = nn.Sequential(Dense(3), Dense(2))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin(torch.ones(2, 4)).shape == (2, 2)
    assert not model[0].built
    half = pickle.loads(pickle.dumps(Dense(3, dtype="float16")))
    assert next(half.parameters()).data.dtype == torch.float16


def test_autocast():
    for layer in (Dense(3), built(3), nn.Sequential(Dense(3), Dense(3))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(torch.randn(2, 4))
            assert y.dtype == torch.bfloat16
            assert layer(y.repeat(1, 2)[:, :4]).dtype == torch.bfloat16
        y.sum().backward()
        assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_weights_made_in_inference_mode_train_later(mode):
    for layer in (Dense(3), Custom(), fanin.Sequential([Dense(3)])):
        with mode():
            layer(torch.ones(2, 4))
        layer(torch.randn(2, 4)).sum().backward()
        assert all(p.grad is not None and not p.is_inference() for p in layer.parameters())


def test_layers_made_inside_a_mode_train_later():
    made = []

    def inside(row):
        made.append(Dense(3))
        return made[-1](row).sum()

    grad(inside)(torch.ones(4))
    vmap(inside)(torch.ones(2, 4))
    with torch.inference_mode():
        inside(torch.ones(2, 4))
    for layer in made:
        layer(torch.randn(2, 4)).sum().backward()
        assert all(p.grad is not None for p in layer.parameters())


# --- optimizers -------------------------------------------------------------------------------------------

OPTIMIZERS = [
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "Muon", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD", "SparseAdam",
]  # fmt: skip


NEED_SHAPES = ["Adagrad", "Muon"]  # they look at the weights when they are made; SparseAdam takes sparse gradients only


def test_the_list_of_optimizers_is_complete():
    found = {
        name
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    assert found == set(OPTIMIZERS)


def test_optimizers_that_need_shapes_say_to_call_the_layer_first():
    with pytest.raises(ValueError, match="First call the layer once"):
        torch.optim.Adagrad(Dense(3).parameters())
    with pytest.raises(ValueError, match="2D parameters"):
        torch.optim.Muon(Dense(3, use_bias=False).parameters())


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (name, first)
        for name in OPTIMIZERS
        for first in ("layer", "optimizer")
        if name != "SparseAdam" and (first == "layer" or name not in NEED_SHAPES)
    ],
)
def test_every_torch_optimizer_trains_it(name, first):
    x = torch.randn(64, 4)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    layer = Dense(1, use_bias=False)
    if first == "layer":
        layer(x)
    lr = {"Adadelta": 10.0, "LBFGS": 0.5, "Adagrad": 0.5, "ASGD": 0.05, "SGD": 0.05}.get(name, 0.1)
    optimizer = getattr(torch.optim, name)(layer.parameters(), lr=lr)

    def closure():
        optimizer.zero_grad()
        loss = (layer(x) - y).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
@pytest.mark.parametrize("how", ["fused", "foreach"])
def test_fused_optimizers_made_before_the_first_call(kind, how):
    layer = Dense(3)
    optimizer = getattr(torch.optim, kind)(layer.parameters(), lr=0.1, **{how: True})
    x = torch.randn(8, 4)
    layer(x)
    held = optimizer.param_groups[0]["params"]
    assert held[0] is layer.kernel
    assert held[1] is layer.bias
    before = [p.detach().clone() for p in held]
    (layer(x) - 1).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_a_step_before_the_first_call_changes_nothing():
    layer = Dense(3)
    optimizer = torch.optim.Adam(layer.parameters())
    optimizer.step()
    optimizer.zero_grad()
    assert layer(torch.ones(2, 4)).shape == (2, 3)


# --- compile and export -----------------------------------------------------------------------------------

MODELS = {
    "dense": lambda: Dense(3, "relu"),
    "custom": Custom,
    "nested": lambda: nn.Sequential(Dense(5, "gelu"), fanin.Sequential([Dense(4), nn.Tanh(), Custom()])),
    "penalties": lambda: Dense(3, activity_regularizer="l2", kernel_regularizer="l1"),
}


@pytest.fixture
def _fresh_dynamo():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("first", ["built", "unbuilt"])
@pytest.mark.parametrize("model", MODELS)
def test_compile_fullgraph(model, first):
    module = MODELS[model]()
    x = torch.randn(6, 4)
    if first == "built":
        module(x)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), module(x), atol=1e-6)
    compiled(x).sum().backward()
    assert all(type(p) is nn.Parameter and p.grad is not None for p in module.parameters())
    assert torch.allclose(compiled(x[:1]), module(x[:1]), atol=1e-6)


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("first", ["built", "unbuilt"])
def test_compile_with_dynamic_shapes(first):
    module = fanin.Sequential([Dense(5, "relu"), Dense(3)])
    if first == "built":
        module(torch.randn(2, 7, 4))
    count = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=count)
    for rows in (6, 9, 17):
        x = torch.randn(rows, 7, 4)
        assert torch.allclose(compiled(x), module(x), atol=1e-6)
    assert count.frame_count <= 2  # the first call may find the layers unbuilt
    assert all(type(size) in (int, type(None)) for layer in module.layers for size in layer._build_shape)
    twin = pickle.loads(pickle.dumps(module))
    assert twin.get_config() == module.get_config()


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compile_aot_eager_gives_the_same_gradients():
    module = nn.Sequential(Dense(5, "tanh"), Dense(3))
    x = torch.randn(6, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    compiled(x).square().sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(x).square().sum().backward()
    for a, b in zip(found, module.parameters(), strict=True):
        assert torch.allclose(a, b.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_losses_after_a_compiled_call():
    layer = built(3, activity_regularizer="l2")
    x = torch.randn(6, 4)
    layer(x)
    expected = [loss.item() for loss in layer.losses]
    layer(0 * x)
    torch.compile(layer, fullgraph=True, backend="eager")(x)
    assert [loss.item() for loss in layer.losses] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", ["dense", "custom", "nested"])
def test_export_of_a_built_module(model):
    module = MODELS[model]().eval()
    x = torch.randn(6, 4)
    module(x)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("rows", min=2)},))
    assert set(program.state_dict) == set(module.state_dict())
    for rows in (6, 11):
        y = torch.randn(rows, 4)
        assert torch.allclose(program.module()(y), module(y), atol=1e-6)


@pytest.mark.parametrize("module", [lambda: Dense(3), lambda: Custom(), lambda: nn.Sequential(Dense(3))])
def test_export_of_an_unbuilt_module_is_refused(module):
    unbuilt = module()
    with pytest.raises((RuntimeError, ValueError), match=r"not built.*torch\.export"):
        torch.export.export(unbuilt, (torch.ones(2, 4),))
    assert unbuilt(torch.ones(2, 5)).shape == (2, 3)


# --- functional -------------------------------------------------------------------------------------------


def test_functional_call():
    layer = built(3)
    x = torch.randn(2, 4)
    other = {"kernel": torch.randn(4, 3, requires_grad=True), "bias": torch.randn(3)}
    y = functional_call(layer, other, (x,))
    assert torch.allclose(y, x @ other["kernel"] + other["bias"], atol=1e-6)
    y.sum().backward()
    assert other["kernel"].grad is not None
    assert layer.kernel.grad is None


def test_functional_call_of_an_unbuilt_layer_is_refused_and_leaves_the_tensors():
    layer = Dense(3)
    mine = {"kernel": torch.ones(4, 3), "bias": torch.ones(3)}
    with pytest.raises(RuntimeError, match="functional_call cannot replace its 'kernel'"):
        functional_call(layer, mine, (torch.ones(2, 4),))
    assert mine["kernel"].tolist() == [[1.0] * 3] * 4
    assert layer(torch.ones(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("first", ["built", "unbuilt"])
@pytest.mark.parametrize("maker", [lambda: Dense(3, "tanh"), Custom, lambda: fanin.Sequential([Dense(3), nn.Tanh()])])
def test_vmap_and_jacrev_over_single_rows(maker, first):
    x = torch.randn(5, 4)
    for transform in ("vmap", "jacrev"):
        layer = maker()
        if first == "built":
            layer(x)
        y = vmap(layer)(x) if transform == "vmap" else vmap(jacrev(layer))(x)
        assert all(type(p) is nn.Parameter and p.requires_grad for p in layer.parameters())
        if transform == "vmap":
            assert torch.allclose(y, layer(x), atol=1e-6)
        else:
            expected = torch.autograd.functional.jacobian(lambda row, layer=layer: layer(row[None])[0], x[0])
            assert torch.allclose(y[0], expected, atol=1e-6)
        layer(x).sum().backward()
        assert all(p.grad is not None for p in layer.parameters())


def test_per_sample_gradients():
    layer = built(3, "tanh", activity_regularizer="l2")
    x, target = torch.randn(5, 4), torch.randn(5, 3)
    weights = dict(layer.named_parameters())

    def loss(weights, row, wanted):
        return (functional_call(layer, weights, (row,)) - wanted).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, target)
    for i in range(5):
        layer.zero_grad()
        (layer(x[i : i + 1]) - target[i : i + 1]).square().sum().backward()
        assert torch.allclose(found["kernel"][i], layer.kernel.grad, atol=1e-5)
        assert torch.allclose(found["bias"][i], layer.bias.grad, atol=1e-5)


def test_a_transform_leaves_no_dead_losses():
    layer = built(3, activity_regularizer="l2")
    vmap(layer)(torch.randn(5, 4))
    assert layer.losses == []
    copy.deepcopy(layer)


# --- parametrize and prune --------------------------------------------------------------------------------


class Symmetric(nn.Module):
    def forward(self, kernel):
        return kernel.triu() + kernel.triu(1).t()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_parametrize(policy):
    layer = built(4, dtype=policy)
    parametrize.register_parametrization(layer, "kernel", Symmetric())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.kernel.detach().clone()
    layer(torch.randn(8, 4)).float().square().sum().backward()
    optimizer.step()
    assert not torch.equal(layer.kernel, before)
    assert torch.equal(layer.kernel, layer.kernel.t())
    assert layer.count_params() == 20
    twin = copy.deepcopy(layer)
    assert torch.equal(twin.kernel, layer.kernel)
    parametrize.remove_parametrizations(layer, "kernel")
    assert type(layer) is Dense
    assert isinstance(layer.kernel, nn.Parameter)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_norms_of_torch(norm):
    layer = norm(built(3, kernel_regularizer="l2"), "kernel")
    layer(torch.randn(8, 4)).sum().backward()
    (penalty,) = layer.losses
    assert penalty.item() == pytest.approx(0.01 * layer.kernel.square().sum().item(), rel=1e-5)
    assert all(p.grad is not None for p in layer.parameters())


def test_prune():
    layer = built(3)
    prune.l1_unstructured(layer, "kernel", amount=6)
    assert (layer.kernel == 0).sum() == 6
    x = torch.randn(2, 4)
    assert torch.allclose(layer(x), x @ layer.kernel + layer.bias, atol=1e-6)
    prune.remove(layer, "kernel")
    assert (layer.kernel == 0).sum() == 6
    assert set(layer.state_dict()) == {"kernel", "bias"}


# --- threads and processes --------------------------------------------------------------------------------


def test_first_calls_from_8_threads():
    x = torch.randn(2, 4)
    faults: list[BaseException] = []
    for round_ in range(100):
        layer = Dense(3) if round_ % 2 else fanin.Sequential([Dense(3), Dense(3)])
        barrier = threading.Barrier(8)
        outputs: list[torch.Tensor] = []

        def work(layer=layer, barrier=barrier, outputs=outputs):
            try:
                barrier.wait()
                outputs.append(layer(x).detach())
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        assert len(outputs) == 8
        assert all(torch.equal(y, outputs[0]) for y in outputs)


def _train(rank: int, folder: str) -> list[Any]:
    """One of two processes that train a layer together; its source is all that the other runs."""
    import torch

    from fanin.layers import Dense

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.manual_seed(rank)
        layer = Dense(3)
        layer.build((None, 4))
        model = torch.nn.parallel.DistributedDataParallel(layer)
        x = torch.full((2, 4), float(rank))
        model(x).sum().backward()
        return [layer.kernel.tolist(), layer.kernel.grad.tolist()]
    finally:
        torch.distributed.destroy_process_group()


def test_distributed_data_parallel_on_two_processes(tmp_path):
    source = f"import json\nfrom typing import Any\n{inspect.getsource(_train)}"
    code = f"{source}\nprint(json.dumps(_train(1, {str(tmp_path)!r})))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        try:
            one = _train(0, str(tmp_path))
            two = json.loads(other.communicate()[0])
        finally:
            other.kill()
    assert one == two  # weights come from rank 0, gradients are the mean over ranks
    assert one[1] == [[1.0] * 3] * 4


# --- another scheme ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Factors(KernelScheme):
    """A kernel stored as two factors (I, R) and (R, U)."""

    rank: int

    def slots(self, input_dim: int | None, units: int) -> tuple[Slot, ...]:
        return (
            Slot("left", (input_dim, self.rank)),
            Slot("right", (self.rank, units), initializer="ones", carries_rules=False),
        )

    def matmul(self, inputs: torch.Tensor, tensors: Any, bias: torch.Tensor | None) -> torch.Tensor:
        outputs = inputs @ tensors.left @ tensors.right
        return outputs if bias is None else outputs + bias

    def dense(self, tensors: Any) -> torch.Tensor:
        return tensors.left @ tensors.right

    def pack(self, kernel: torch.Tensor) -> dict[str, torch.Tensor]:
        u, s, v = torch.linalg.svd(kernel, full_matrices=False)
        return {"left": u[:, : self.rank] * s[: self.rank], "right": v[: self.rank]}

    def input_dim(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        return shapes["left"][0]


@dataclass(frozen=True)
class Transposed(KernelScheme):
    """A kernel stored as (U, I), as torch.nn.Linear does, with a frozen scale beside it."""

    def slots(self, input_dim: int | None, units: int) -> tuple[Slot, ...]:
        return (
            Slot("kernel", (units, input_dim)),
            Slot("scale", (units,), trainable=False, dtype="float32", initializer="ones", carries_rules=False),
        )

    def matmul(self, inputs: torch.Tensor, tensors: Any, bias: torch.Tensor | None) -> torch.Tensor:
        return nn.functional.linear(inputs, tensors.kernel * tensors.scale[:, None], bias)

    def dense(self, tensors: Any) -> torch.Tensor:
        return (tensors.kernel * tensors.scale[:, None]).t()

    def pack(self, kernel: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"kernel": kernel.t().contiguous(), "scale": torch.ones(kernel.shape[1])}

    def input_dim(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        return shapes["kernel"][1]


SCHEMES = [(Factors(3), ["left", "right", "bias"]), (Transposed(), ["kernel", "bias", "scale"])]


@pytest.mark.parametrize(("scheme", "keys"), SCHEMES, ids=["factors", "transposed"])
def test_a_scheme_of_your_own(scheme, keys):
    layer = Dense(3, scheme=scheme, kernel_regularizer="l2", activation="tanh")
    held = torch.optim.Adam(layer.parameters(), lr=0.05, fused=True)
    x = torch.randn(32, 4)
    layer(x)
    assert list(layer.state_dict()) == keys
    assert tuple(layer.effective_kernel.shape) == (4, 3)
    assert torch.allclose(layer(x), torch.tanh(x @ layer.effective_kernel + layer.bias), atol=1e-5)
    assert len(layer.losses) == 1
    target = torch.tanh(x @ torch.randn(4, 3))
    losses = []
    for _ in range(60):
        held.zero_grad()
        loss = (layer(x) - target).square().mean() + sum(layer.losses)
        loss.backward()
        held.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

    twin = Dense(3, scheme=scheme, activation="tanh")
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x), layer(x))
    wrong = Dense(5, scheme=scheme)
    with pytest.raises(RuntimeError, match="units=5"):
        wrong.load_state_dict(layer.state_dict())
    assert copy.deepcopy(layer)(x).equal(layer(x))
    assert layer(x[:, None]).shape == (32, 1, 3)
    assert torch.allclose(vmap(layer)(x), layer(x), atol=1e-5)
    assert Dense(3, scheme=scheme, dtype="mixed_bfloat16")(x).dtype == torch.bfloat16
    linear = nn.Linear(4, 3)
    if isinstance(scheme, Transposed):
        assert torch.allclose(Dense.from_linear(linear, scheme=scheme)(x), linear(x), atol=1e-6)
    else:
        full = Factors(3)
        assert torch.allclose(Dense.from_linear(linear, scheme=full).effective_kernel, linear.weight.t(), atol=1e-5)
    assert layer.get_config()["units"] == 3
    layer.reset_parameters()
    assert layer.weights[0].numel() == 12
    assert not torch.equal(layer(x), twin(x))
