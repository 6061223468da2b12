"""The way in which each operation writes into memory that is there: the same values as the plain operation."""

import pytest
import torch

from fanin.program.out_variants import _SHORT, out_call
from fanin.program.trace import trace

aten = torch.ops.aten
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def positive(dtype):
    return (torch.arange(1, 13).reshape(3, 4) / 7).to(dtype)


def mixed(dtype):
    return (torch.arange(-6, 6).reshape(3, 4) / 5).to(dtype)


UNARY = [
    "exp",
    "log",
    "log1p",
    "expm1",
    "sqrt",
    "rsqrt",
    "tanh",
    "sigmoid",
    "neg",
    "abs",
    "sign",
    "reciprocal",
    "floor",
    "ceil",
    "erf",
    "sin",
    "cos",
    "logical_not",
    "square",
]
PAIRS = [
    "logical_and",
    "logical_or",
    "maximum",
    "minimum",
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "eq",
    "ne",
    "gt",
    "lt",
    "ge",
    "le",
]
NUMBERS = ["add", "sub", "mul", "div", "pow", "eq", "ne", "gt", "lt", "ge", "le", "clamp_min", "clamp_max"]


def called(name, use):
    """A function of the two matrices that uses one of torch's by name."""
    function = getattr(torch, name)
    return lambda p, m: use(function, p, m)


# name -> functions of (positive, mixed) matrices of one dtype; each is one or more calls of that operation
FORMS = {
    **{name: [called(name, lambda f, p, m: f(p if f in POSITIVE else m))] for name in UNARY},
    "mm": [lambda p, m: torch.mm(p, m.t())],
    "addmm": [
        lambda p, m: torch.addmm(m[0, :3], p, m.t()),
        lambda p, m: torch.addmm(m[:, :3], p, m.t(), beta=0.5, alpha=2),
    ],
    "bmm": [lambda p, m: torch.bmm(p[None], m.t()[None])],
    "baddbmm": [lambda p, m: torch.baddbmm(p[None, :, :3], p[None], m.t()[None], alpha=2)],
    "mv": [lambda p, m: torch.mv(p, m[0])],
    "addmv": [lambda p, m: torch.addmv(m[:, 0], p, m[0], beta=2)],
    "_addmm_activation": [
        lambda p, m: torch._addmm_activation(m[0, :3], p, m.t()),
        lambda p, m: torch._addmm_activation(m[0, :3], p, m.t(), use_gelu=True),
    ],
    "_softmax": [lambda p, m: torch._softmax(m, -1, False), lambda p, m: torch._softmax(m, 0, False)],
    "_log_softmax": [lambda p, m: torch._log_softmax(m, 1, False)],
    "_log_softmax_backward_data": [lambda p, m: torch._log_softmax_backward_data(m, -p, 1, p.dtype)],
    "where": [lambda p, m: torch.where(m > 0, p, m)],
    "clamp": [
        lambda p, m: m.clamp(-0.5, 0.5),
        lambda p, m: m.clamp(min=0),
        lambda p, m: m.clamp(max=0.1),
        lambda p, m: torch.clamp(m, -p, p),
        lambda p, m: torch.clamp(m, max=p),
    ],
    "gather": [lambda p, m: m.gather(1, PLACES)],
    "index_select": [lambda p, m: m.index_select(1, PLACES[0])],
    "sum": [
        lambda p, m: m.sum(),
        lambda p, m: m.sum(0),
        lambda p, m: m.sum((0, 1)),
        lambda p, m: m.sum(-1, keepdim=True),
        lambda p, m: m.sum(0, dtype=torch.float64),
        lambda p, m: m.sum(dtype=torch.float64),
    ],
    "mean": [
        lambda p, m: m.mean(),
        lambda p, m: m.mean(0),
        lambda p, m: m.mean((0, 1), keepdim=True),
        lambda p, m: m.mean(1, dtype=torch.float64),
        lambda p, m: m.mean(dtype=torch.float64),
    ],
    "amax": [lambda p, m: m.amax(), lambda p, m: m.amax(0), lambda p, m: m.amax((0, 1), keepdim=True)],
    "amin": [lambda p, m: m.amin(), lambda p, m: m.amin(-1, keepdim=True)],
    "argmax": [lambda p, m: m.argmax(), lambda p, m: m.argmax(-1), lambda p, m: m.argmax(0, keepdim=True)],
    "argmin": [lambda p, m: m.argmin(), lambda p, m: m.argmin(1)],
    "cat": [
        lambda p, m: torch.cat([p, m]),
        lambda p, m: torch.cat([p, m, p], -1),
        lambda p, m: torch.cat([p, p.double()]),
    ],
    "addcmul": [lambda p, m: torch.addcmul(p, m, m), lambda p, m: torch.addcmul(p, m, m, value=-0.5)],
    "addcdiv": [lambda p, m: torch.addcdiv(m, m, p), lambda p, m: torch.addcdiv(m, m, p, value=2)],
    "lerp": [lambda p, m: torch.lerp(p, m, 0.3), lambda p, m: torch.lerp(p, m, p)],
    "logsumexp": [lambda p, m: m.logsumexp(0), lambda p, m: m.logsumexp((0, 1), keepdim=True)],
}
POSITIVE = {torch.log, torch.log1p, torch.sqrt, torch.rsqrt, torch.reciprocal}
PLACES = torch.tensor([[0, 2], [1, 1], [3, 0]])
for _name in PAIRS:
    FORMS.setdefault(_name, []).append(called(_name, lambda f, p, m: f(p, m)))
    FORMS[_name].append(called(_name, lambda f, p, m: f(p, m[0])))
    FORMS[_name].append(called(_name, lambda f, p, m: f(p, m.double())))
for _name in NUMBERS:
    FORMS.setdefault(_name, []).append(called(_name, lambda f, p, m: f(p, 2)))
    FORMS[_name].append(called(_name, lambda f, p, m: f(p, 0.3)))
FORMS["add"] += [lambda p, m: torch.add(p, m, alpha=3), lambda p, m: torch.add(p, 2, alpha=0.5)]
FORMS["sub"] += [lambda p, m: torch.sub(p, m, alpha=3), lambda p, m: torch.sub(p, 2, alpha=0.5)]
FORMS["div"] += [
    lambda p, m: torch.div(m, p, rounding_mode="floor"),
    lambda p, m: torch.div(m, 0.3, rounding_mode="trunc"),
]
FORMS["pow"] += [lambda p, m: 2**p, lambda p, m: p**0.5]
FORMS["clamp_min"] += [lambda p, m: m.clamp_min(p)]
FORMS["clamp_max"] += [lambda p, m: m.clamp_max(p)]
FORMS["maximum"] += [lambda p, m: torch.maximum(p.long(), m.long())]
CASES = [(name, place, dtype) for name in sorted(FORMS) for place in range(len(FORMS[name])) for dtype in DTYPES]


def test_every_short_operation_has_a_case():
    assert set(FORMS) == _SHORT


def known(node, values):
    return torch.fx.map_arg(node.args, values.get), torch.fx.map_arg(node.kwargs, values.get)


def play(function, *inputs):
    """The operations of a function, one by one: each the plain way, and by its writing call into memory full of 77."""
    traced = trace(lambda *given: [function(*given)], [], inputs)
    values = dict(zip(traced.inputs, inputs, strict=True)) | traced.static
    called = []
    for node in traced.graph.nodes:
        if node.op != "call_function":
            continue
        args, kwargs = (
            torch.fx.map_arg(node.args, lambda n: values[n]),
            torch.fx.map_arg(node.kwargs, lambda n: values[n]),
        )
        values[node] = node.target(*args, **kwargs)
        call = out_call(node)
        called.append((node, call))
        if call is None or call.names == [""]:
            continue
        plain = values[node] if isinstance(values[node], (tuple, list)) else [values[node]]
        declared = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else [node.meta["val"]]
        memory = [torch.empty_strided(d.shape, d.stride(), dtype=d.dtype).fill_(77) for d in declared]
        where = [one.data_ptr() for one in memory]
        if call.reduces_all:
            args = (args[0], list(range(args[0].dim())))
        with torch.inference_mode():
            call.function(*args, **kwargs, **dict(zip(call.names, memory, strict=True)))
        yield node, call, plain, memory
        assert [one.data_ptr() for one in memory] == where, f"{node.target} has not used the memory it was given"
    for node, call in called:
        yield node, call, [], []


@pytest.mark.parametrize(("name", "place", "dtype"), CASES, ids=lambda one: str(one).removeprefix("torch."))
def test_short_operations_write_the_same_values(name, place, dtype, is_same):
    function = FORMS[name][place]
    try:
        function(positive(dtype), mixed(dtype))
    except (RuntimeError, NotImplementedError):
        pytest.skip(f"torch has no {name} like this for {dtype}")
    seen = False
    for node, _, plain, memory in play(function, positive(dtype), mixed(dtype)):
        seen = seen or str(node.target).startswith(f"aten.{name}.")
        for one, two in zip(memory, plain, strict=True):
            assert is_same(one, two), (str(node.target), one, two)
    decomposed = {"square": "aten.pow"}  # traced as other operations
    assert seen or name in decomposed, f"no aten.{name} in the graph"


def calls(function, *inputs):
    return {str(node.target): call for node, call, _, memory in play(function, *inputs)}


def test_short_operations_go_by_the_short_function():
    found = calls(lambda x: torch.relu(x @ x) + torch.exp(x), torch.ones(2, 2))
    assert found["aten.mm.default"].function is torch.mm
    assert found["aten.exp.default"].function is torch.exp
    assert found["aten.add.Tensor"].function is torch.add


def test_operations_outside_the_table_go_by_their_overload():
    x = torch.randn(3, 4)
    functions = (
        lambda x: torch.relu(x),
        lambda x: x.cumsum(0),
        lambda x: torch.nn.functional.gelu(x),
        lambda x: x.tril(),
        lambda x: x.sort(-1)[0],
        lambda x: x.max(0)[0],
        lambda x: torch.nn.functional.softplus(x),
        lambda x: x.norm(dim=0),
        lambda x: torch.nn.functional.layer_norm(x, (4,)),
        lambda x: x.topk(2)[0],
        lambda x: x.prod(0),
        lambda x: torch.atan2(x, x),
        lambda x: x.var(0),
        lambda x: x.any(0),
        lambda x: x.masked_fill(x > 0, 1),
        lambda x: torch.nn.functional.one_hot((x > 0).long(), 2),
    )
    for function in functions:
        for node, call, plain, memory in play(function, x):
            if call is not None and memory:
                assert len(call.names) == len(plain), node
                for one, two in zip(memory, plain, strict=True):
                    torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_operations_without_a_form_that_writes_make_their_own_memory():
    found = calls(lambda x: torch.ops.aten.native_dropout(x, 0.5, True)[0], torch.ones(3))
    call = found["aten.native_dropout.default"]
    assert call is None or len(call.names) == 2
    traced = trace(lambda x: [x.add_(1), x.t()], [], [torch.ones(2, 2)])
    assert [out_call(node) for node in traced.graph.nodes if node.op == "call_function"] == [None, None]


def test_copies_and_casts_overwrite():
    found = calls(lambda x: x.clone().double(), torch.ones(3))
    assert found["aten.clone.default"].names == [""]
    assert found["aten._to_copy.default"].names == [""]
