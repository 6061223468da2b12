"""Large products by oneDNN: the same numbers within float32's theory, where the operation exists, and only there."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fanin.program import Program
from fanin.program.passes import onednn_products
from fanin.program.trace import trace

pytestmark = pytest.mark.usefixtures("by_torch_alone")

aten = torch.ops.aten
LINEAR = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
needs_onednn = pytest.mark.skipif(LINEAR is None, reason="this torch has no oneDNN")
RANDOM = settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
W = torch.linspace(-1, 1, 12).reshape(4, 3)
B = torch.tensor([0.5, -2.0, 1.0])
X = torch.arange(20.0).reshape(5, 4) / 7 - 1


@pytest.fixture
def always(monkeypatch):
    """On every processor, and for products of any size."""
    monkeypatch.setattr(onednn_products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(onednn_products, "_LEAST_FLOPS", 0)


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Says whose processor this is; what was found out about it before is forgotten, before the test and after it."""

    def become(name):
        path = tmp_path / "cpuinfo"
        if name is not None:
            path.write_text(f"processor\t: 0\nvendor_id\t: {name}\n")
        monkeypatch.setattr(onednn_products, "Path", lambda given: path)
        onednn_products.prefers_onednn.cache_clear()

    yield become
    onednn_products.prefers_onednn.cache_clear()


def taken(program):
    """How many products a program leaves to oneDNN."""
    return [node.target for node in program.traced.graph.nodes].count(LINEAR)


def dense(w, b, x):
    return [torch.relu(torch.addmm(b, x, w))]


LAYOUTS = {  # (I, U) -> a kernel of this shape in some order
    "plain": lambda rows, columns: torch.randn(rows, columns),
    "turned": lambda rows, columns: torch.randn(columns, rows).t(),
    "part": lambda rows, columns: torch.randn(rows + 2, columns + 3)[1:-1, 2:-1],
    "every other": lambda rows, columns: torch.randn(rows, 2 * columns)[:, ::2],
    "one column again and again": lambda rows, columns: torch.randn(rows, 1).expand(rows, columns),
}


@needs_onednn
@RANDOM
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 20)),
    layout=st.sampled_from(list(LAYOUTS)),
    has_bias=st.booleans(),
    has_relu=st.booleans(),
)
def test_products_are_within_the_rounding_of_a_sum(sizes, layout, has_bias, has_relu, always):
    """|found - exact| <= g (|x| |W| + |b|), g = n u / (1 - n u): n roundings of u = 2**-24, in whatever order."""
    count, rows, columns = sizes
    x, w, b = torch.randn(count, rows), LAYOUTS[layout](rows, columns), torch.randn(columns)

    def function(w, b, x):
        y = torch.addmm(b, x, w) if has_bias else x @ w
        return [torch.relu(y) if has_relu else y]

    program = Program(function, [w, b], [x])
    assert taken(program) == 1
    n, unit = rows + 1, 2.0**-24
    bound = n * unit / (1 - n * unit) * (x.double().abs() @ w.double().abs() + (b.double().abs() if has_bias else 0))
    (exact,) = function(w.double(), b.double(), x.double())
    (found,), (plain,) = program(x), function(w, b, x)
    assert ((found - exact).abs() <= bound).all()
    assert ((plain - exact).abs() <= bound).all()
    assert (found.shape, found.dtype) == (plain.shape, plain.dtype)


@needs_onednn
def test_only_large_products(processor):
    processor("AuthenticAMD")
    for count, expected in ((1024, 1), (400, 0)):  # 67 and 26 million FLOPs
        x, w = torch.randn(count, 256), torch.randn(256, 128)
        assert taken(Program(lambda w, x: [x @ w], [w], [x])) == expected


@needs_onednn
@pytest.mark.parametrize(("least", "expected"), [(120, 1), (121, 0)])
def test_the_limit_is_in_flops(least, expected, always, monkeypatch):
    monkeypatch.setattr(onednn_products, "_LEAST_FLOPS", least)  # 2 x 5 x 4 x 3 = 120
    program = Program(dense, [W, B], [X])
    assert taken(program) == expected
    assert {cost.flops for _, cost in program.stats()} == {120}


LEFT = {  # name -> function and its tensors: products that stay with torch
    "float64": (dense, W.double(), B.double(), X.double()),
    "bfloat16": (dense, W.bfloat16(), B.bfloat16(), X.bfloat16()),
    "turned first factor": (dense, torch.ones(5, 3), B, X.t()),
    "first factor that is a part": (lambda w, b, x: [x[:, 1:] @ w[1:]], W, B, X),
    "bias for each row": (dense, W, torch.arange(5.0)[:, None], X),
    "bias for each number": (dense, W, torch.ones(5, 3), X),
    "bias as one number": (dense, W, torch.tensor(2.0), X),
    "bias of one number": (dense, W, torch.tensor([2.0]), X),
    "bias with gaps": (dense, W, torch.arange(6.0)[::2], X),
    "bias that is expanded": (lambda w, b, x: [torch.addmm(b[:1].expand(3), x, w)], W, B, X),
    "scaled bias": (lambda w, b, x: [torch.addmm(b, x, w, beta=0.5)], W, B, X),
    "scaled product": (lambda w, b, x: [torch.addmm(b, x, w, alpha=0.5)], W, B, X),
    "gelu": (lambda w, b, x: [torch._addmm_activation(b, x, w, use_gelu=True)], W, B, X),
    "vector": (lambda w, b, x: [torch.mv(x, w[:, 0])], W, B, X),
    "batch of products": (lambda w, b, x: [torch.bmm(x[None], w[None])], W, B, X),
}


@needs_onednn
def test_a_product_that_changes_afterwards(always):
    program = Program(lambda w, b, x: [torch.addmm(b, x, w).add_(1).relu_()], [W, B], [X])
    assert taken(program) == 1
    for _ in range(2):
        torch.testing.assert_close(program(X)[0], torch.relu(torch.addmm(B, X, W) + 1))


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_torch(name, always, is_same):
    function, *static, x = LEFT[name]
    program = Program(function, static, [x])
    assert taken(program) == 0
    assert is_same(program(x)[0], function(*static, x)[0])


def test_other_devices_are_left_to_torch(always):
    static, x = [W.to("meta"), B.to("meta")], X.to("meta")
    traced = trace(dense, static, [x])
    before = str(traced.graph)
    onednn_products.use_onednn(traced.graph)
    assert str(traced.graph) == before


@needs_onednn
@pytest.mark.parametrize("use", [torch.relu, torch.tanh, lambda y: y], ids=["relu", "tanh", "alone"])
def test_nan_and_infinity_stay(use, always):
    x = X.clone()
    x[0, 1], x[1, 2], x[2, 3] = float("nan"), float("inf"), float("-inf")

    def function(w, b, x):
        return [use(torch.addmm(b, x, w))]

    program = Program(function, [W, B], [x])
    assert taken(program) == 1
    torch.testing.assert_close(program(x), function(W, B, x), equal_nan=True)
    assert program(x)[0][0].isnan().all()


@needs_onednn
def test_kernels_that_change_are_seen(always):
    w, b = W.clone(), B.clone()
    program = Program(dense, [w, b], [X])
    w.mul_(-2)
    b.fill_(3)
    torch.testing.assert_close(program(X), dense(w, b, X))


@needs_onednn
def test_a_chain_of_products_in_planned_memory(always):
    generator = torch.Generator().manual_seed(1)
    static = [torch.randn(4, 4, generator=generator) for _ in range(4)]

    def function(*given):
        *kernels, x = given
        for w in kernels:
            x = x + torch.relu(torch.addmm(w[0], x, w))
        return [x, F.softmax(x @ kernels[0].t(), -1)]

    program = Program(function, static, [X])
    assert taken(program) == 5
    for x in (X, X + 1):
        torch.testing.assert_close(program(x), function(*static, x), rtol=1e-5, atol=1e-5)


# --- where it is taken at all -----------------------------------------------------------------------------------------


@needs_onednn
@pytest.mark.parametrize(("name", "expected"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, False)])
def test_only_on_processors_that_are_faster_with_it(name, expected, processor, monkeypatch):
    processor(name)
    monkeypatch.setattr(onednn_products, "_LEAST_FLOPS", 0)
    assert onednn_products.prefers_onednn() is expected
    assert taken(Program(dense, [W, B], [X])) == expected


def test_without_the_operation_programs_are_torchs_own(processor, monkeypatch, is_same):
    processor("AuthenticAMD")
    monkeypatch.setattr(onednn_products, "_LEAST_FLOPS", 0)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not onednn_products.prefers_onednn()
    program = Program(dense, [W, B], [X])
    assert aten._addmm_activation.default in [node.target for node in program.traced.graph.nodes]
    assert is_same(program(X)[0], dense(W, B, X)[0])
