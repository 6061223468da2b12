"""The low-rank scheme: what it computes, in which order, and what it never forms."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fanin import kernels
from fanin.kernels import Adapter, Full, LowRank, Transposed

EASY = settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])


class Tensors:
    """The slots of a scheme as plain attributes."""

    def __init__(self, scheme, input_dim, units, dtype=torch.float32, in_training=True):
        self.in_training = in_training
        for slot in scheme.slots(input_dim, units):
            setattr(self, slot.name, torch.randn(slot.shape, dtype=dtype).requires_grad_())


class Shapes(TorchDispatchMode):
    """Notes the shape of everything that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(each, torch.Tensor) and not func.is_view:
                self.seen.append((func.overloadpacket.__name__, tuple(each.shape), each.dtype))
        return result


def scheme_of(base, *adapters, active=None):
    return LowRank(base, tuple(adapters), active=active)


# --- the numbers of an adapter ---------------------------------------------------------------------------------------


def test_scales():
    assert Adapter("a", 8).scale == 1.0
    assert Adapter("a", 8).alpha == 8
    assert Adapter("a", 8, 16).scale == 2.0
    assert Adapter("a", 16, 4, rslora=True).scale == 1.0
    assert Adapter("a", 8, 16, factor=-0.5).scale == -1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.b", 2), "letters, digits and underscores, found 'a.b'"),
        (("", 2), "letters, digits and underscores"),
        ((3, 2), "letters, digits and underscores"),
        (("a", 0), "'a': rank must be a positive integer, found 0"),
        (("a", True), "rank must be a positive integer"),
        (("a", 2.0), "rank must be a positive integer"),
        (("a", 2, 0), r"alpha must be a number in \(0, inf\), found 0"),
        (("a", 2, math.nan), "alpha must be a number in"),
        (("a", 2, "x"), "alpha must be a number in"),
        (("a", 2, None, 1.0), r"dropout must be a number in \[0, 1\), found"),
        (("a", 2, None, -0.1), r"dropout must be a number in \[0, 1\), found"),
        (("a", 2, None, 0.0, False, math.inf), "factor must be a finite number"),
    ],
)
def test_numbers_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adapter(*arguments)


# --- slots ------------------------------------------------------------------------------------------------------------


def test_slots_are_the_bases_then_the_pairs():
    scheme = scheme_of(Full(), Adapter("lora", 2), Adapter("ann", 3))
    found = [(slot.name, slot.shape, slot.dtype, slot.late) for slot in scheme.slots(4, 5)]
    assert found == [
        ("kernel", (4, 5), None, False),
        ("lora_kernel_a", (4, 2), "float32", True),
        ("lora_kernel_b", (2, 5), "float32", True),
        ("ann_kernel_a", (4, 3), "float32", True),
        ("ann_kernel_b", (3, 5), "float32", True),
    ]
    assert scheme_of(Full("embeddings"), Adapter("lora", 2)).pair_names("lora")[0] == "lora_embeddings_a"
    assert scheme_of(Transposed(), Adapter("lora", 2)).pair_names("lora")[1] == "lora_weight_b"
    assert scheme.input_dim({"kernel": (4, 5)}) == 4
    assert Transposed().input_dim({"weight": (5, 4)}) == 4


def test_a_scheme_is_a_value():
    one, other = scheme_of(Full(), Adapter("a", 2), active="a"), scheme_of(Full(), Adapter("a", 2, 2), active="a")
    assert one == other
    assert hash(one) == hash(other)
    assert one != scheme_of(Full(), Adapter("a", 2))
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        tensors = Tensors(one, 3, 2)
        inputs = torch.randn(4, 3)
        assert again == one
        assert torch.equal(again.matmul(inputs, tensors, None), one.matmul(inputs, tensors, None))


def test_adapters_come_and_go():
    scheme = LowRank(Full()).plus(Adapter("a", 2)).plus(Adapter("b", 3))
    assert scheme.active is None
    assert scheme.adapter("b").rank == 3
    with pytest.raises(ValueError, match="an adapter 'a' already"):
        scheme.plus(Adapter("a", 2))
    with pytest.raises(ValueError, match="no adapter 'c' here, only 'a', 'b'"):
        scheme.minus("c")
    assert scheme.minus("a").adapters == (Adapter("b", 3),)
    assert scheme.minus("a").minus("b") == Full()
    assert scheme.with_changed(Adapter("a", 2, factor=3)).adapter("a").factor == 3


# --- what it computes -------------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
leading = st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple)


@EASY
@given(
    sizes=sizes, leading=leading, base=st.sampled_from([Full(), Transposed()]), bias=st.booleans(), grad=st.booleans()
)
def test_products_are_those_of_the_dense_formula(sizes, leading, base, bias, grad):
    input_dim, units, rank = sizes
    scheme = scheme_of(base, Adapter("a", rank, 3.0), Adapter("idle", 2), active="a")
    tensors = Tensors(scheme, input_dim, units, torch.float64)
    inputs = torch.randn(*leading, input_dim, dtype=torch.float64)
    offset = torch.randn(units, dtype=torch.float64) if bias else None
    a, b = (getattr(tensors, name) for name in scheme.pair_names("a"))
    kernel = base.dense(tensors) + 3.0 / rank * a @ b
    expected = inputs @ kernel + (offset if bias else 0.0)
    with torch.set_grad_enabled(grad):
        found = scheme.matmul(inputs, tensors, offset)
    assert found.shape == (*leading, units)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scheme.dense(tensors), kernel, rtol=1e-12, atol=1e-12)


@EASY
@given(sizes=sizes, count=st.integers(1, 9))
def test_gradients_are_those_of_the_dense_formula(sizes, count):
    input_dim, units, rank = sizes
    scheme = scheme_of(Full(), Adapter("a", rank, 2.0), active="a")
    tensors = Tensors(scheme, input_dim, units, torch.float64)
    inputs = torch.randn(count, input_dim, dtype=torch.float64, requires_grad=True)
    wanted = [inputs, tensors.a_kernel_a, tensors.a_kernel_b]
    loss = scheme.matmul(inputs, tensors, None).square().sum()
    dense = (inputs @ (tensors.kernel + 2.0 / rank * tensors.a_kernel_a @ tensors.a_kernel_b)).square().sum()
    for found, expected in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(dense, wanted), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@EASY
@given(sizes=sizes, leading=leading.map(lambda shape: tuple(max(size, 1) for size in shape)))
def test_lookups_are_rows_of_the_dense_formula(sizes, leading):
    input_dim, units, rank = sizes
    scheme = scheme_of(Full("embeddings"), Adapter("a", rank, 3.0), active="a")
    tensors = Tensors(scheme, input_dim, units, torch.float64)
    indices = torch.randint(input_dim, leading)
    table = tensors.embeddings + 3.0 / rank * tensors.a_embeddings_a @ tensors.a_embeddings_b
    found = scheme.lookup(indices, tensors)
    torch.testing.assert_close(found, table[indices], rtol=1e-12, atol=1e-12)
    wanted = [tensors.a_embeddings_a, tensors.a_embeddings_b]
    ours = torch.autograd.grad(found.square().sum(), wanted)
    theirs = torch.autograd.grad(table[indices].square().sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_none_active_is_the_base_itself():
    scheme = scheme_of(Full(), Adapter("a", 2))
    tensors = Tensors(scheme, 3, 4)
    inputs = torch.randn(5, 3)
    assert torch.equal(scheme.matmul(inputs, tensors, None), inputs @ tensors.kernel)
    assert scheme.dense(tensors) is tensors.kernel
    assert torch.equal(scheme.lookup(torch.tensor([1]), tensors), tensors.kernel[[1]])
    assert scheme.pack(tensors.kernel) == {"kernel": tensors.kernel}


def test_it_wraps_any_scheme():
    """One that stores the kernel halved: nothing but its own methods is asked."""

    class Halved(Full):
        def matmul(self, inputs, tensors, bias):
            return 2 * super().matmul(inputs, tensors, None) + (0.0 if bias is None else bias)

        def dense(self, tensors):
            return 2 * tensors.kernel

        def pack(self, kernel):
            return {"kernel": kernel / 2}

        is_matrix = False

    scheme = scheme_of(Halved(), Adapter("a", 2), active="a")
    tensors = Tensors(scheme, 3, 4, torch.float64)
    inputs = torch.randn(50, 3, dtype=torch.float64)
    expected = inputs @ (2 * tensors.kernel + tensors.a_kernel_a @ tensors.a_kernel_b) + 1
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(scheme.matmul(inputs, tensors, torch.ones(4, dtype=torch.float64)), expected)
    torch.testing.assert_close(scheme.lookup(torch.tensor([2]), tensors), (expected := scheme.dense(tensors))[[2]])
    assert torch.equal(scheme.pack(expected)["kernel"], expected / 2)


def test_dropout_falls_on_the_inputs_of_a_in_training_only():
    scheme = scheme_of(Full(), Adapter("a", 2, dropout=0.5), active="a")
    tensors = Tensors(scheme, 6, 4)
    inputs = torch.randn(8, 6)
    torch.manual_seed(3)
    found = scheme.matmul(inputs, tensors, None)
    torch.manual_seed(3)
    thinned = torch.nn.functional.dropout(inputs, 0.5)
    expected = inputs @ tensors.kernel + thinned @ tensors.a_kernel_a @ tensors.a_kernel_b
    torch.testing.assert_close(found, expected)
    tensors.in_training = False
    torch.testing.assert_close(scheme.matmul(inputs, tensors, None), inputs @ scheme.dense(tensors))
    rows = scheme.lookup(torch.tensor([1, 2]), tensors)
    torch.testing.assert_close(rows, scheme.dense(tensors)[[1, 2]])
    tensors.in_training = True
    assert any(not torch.equal(scheme.lookup(torch.tensor([1, 2]), tensors), rows) for _ in range(20))


# --- what it never forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Full(), Transposed()])
@pytest.mark.parametrize("leading", [(5,), (3, 5)])
def test_a_training_step_forms_nothing_of_the_kernels_size(base, leading):
    input_dim, units, rank = 31, 37, 2
    scheme = scheme_of(base, Adapter("a", rank, 4.0), active="a")
    tensors = Tensors(scheme, input_dim, units)
    getattr(tensors, base.part).requires_grad_(False)
    inputs = torch.randn(*leading, input_dim, requires_grad=True)
    with Shapes() as shapes:
        scheme.matmul(inputs, tensors, torch.zeros(units)).square().sum().backward()
    made = {shape for _, shape, _ in shapes.seen}
    assert made
    assert not made & {(input_dim, units), (units, input_dim)}
    assert (rank, units) in made  # the gradient of B: the mode sees what is made


def test_an_embeddings_step_forms_nothing_of_the_tables_size():
    scheme = scheme_of(Full("embeddings"), Adapter("a", 2), active="a")
    tensors = Tensors(scheme, 41, 37)
    tensors.embeddings.requires_grad_(False)
    with Shapes() as shapes:
        scheme.lookup(torch.tensor([1, 5, 5]), tensors).square().sum().backward()
    assert (41, 37) not in {shape for _, shape, _ in shapes.seen}
    assert tensors.a_embeddings_a.grad.count_nonzero(1).tolist() == [2 * (row in (1, 5)) for row in range(41)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inputs_of_16_bits_are_never_widened(dtype):
    scheme = scheme_of(Full(), Adapter("a", 2), active="a")
    tensors = Tensors(scheme, 31, 37)
    tensors.kernel = tensors.kernel.detach().to(dtype)
    inputs = torch.randn(5, 31, dtype=dtype)
    with Shapes() as shapes:
        found = scheme.matmul(inputs, tensors, None)
        found.float().sum().backward()
    assert found.dtype == dtype
    assert (5, 31) not in {shape for _, shape, kind in shapes.seen if kind == torch.float32}
    assert tensors.a_kernel_a.grad.dtype == torch.float32


def products(grad, rows, dtype=torch.float32):
    scheme = scheme_of(Full(), Adapter("a", 2), active="a")
    tensors = Tensors(scheme, 32, 32, dtype)
    with torch.set_grad_enabled(grad), Shapes() as shapes:
        scheme.matmul(torch.randn(rows, 32, dtype=dtype), tensors, None)
    return [shape for name, shape, _ in shapes.seen if name in ("mm", "addmm")]


def test_for_predictions_the_cheaper_order_is_taken():
    """R I U multiplications for the sum first, N R (I + U) for the pair: equal at N = 16."""
    assert products(False, 16) == [(16, 32), (16, 2), (16, 32)]
    assert products(False, 17) == [(32, 32), (17, 32)]
    assert products(True, 17) == [(17, 32), (17, 2), (17, 32)]
    assert (32, 32) not in products(False, 17, torch.bfloat16)


def test_the_names_are_public():
    assert {"Adapter", "LowRank", "Transposed"} <= set(kernels.__all__)
