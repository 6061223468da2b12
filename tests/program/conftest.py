"""Random straight-line functions of tensors, the same for the same seed, and a comparison to the last bit."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

import fanin.program.run
from fanin.program.passes import PASSES
from fanin.program.passes.small_products import mark_small_products
from fanin.program.passes.widened_products import widen_small_products

FLOATS = (torch.float32, torch.float64, torch.bfloat16)

UNARY = (
    torch.relu,
    torch.tanh,
    torch.sigmoid,
    torch.exp,
    torch.neg,
    torch.abs,
    torch.sqrt,
    torch.floor,
    torch.sin,
    torch.log1p,
    torch.square,
    torch.sign,
    torch.reciprocal,
    F.gelu,
    F.silu,
    F.softplus,
    F.elu,
    F.leaky_relu,
    F.hardtanh,
    torch.isnan,
    torch.clone,
    torch.detach,
    torch.ones_like,
    torch.zeros_like,
    lambda x: x + 1,
    lambda x: 2 - x,
    lambda x: x * 0.5,
    lambda x: x / 3,
    lambda x: x**2,
    lambda x: 1 / x,
    lambda x: x > 0,
    lambda x: x == x,
    lambda x: x.clamp(-1, 1),
    lambda x: x.clamp(min=0),
    lambda x: torch.full_like(x, 3),
    lambda x: x.contiguous(),
    lambda x: x.masked_fill(x > 0, -1),
    lambda x: torch.nan_to_num(x, 0.0, 1.0, -1.0),
    lambda x: torch.where(x > 0, x, 0.0),
    lambda x: x * float("inf"),
    lambda x: x.new_ones(2),
    lambda x: -x + x,
)
BINARY = (
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    torch.maximum,
    torch.minimum,
    torch.eq,
    torch.ge,
    torch.lt,
    torch.ne,
    lambda x, y: torch.add(x, y, alpha=2),
    lambda x, y: torch.sub(x, y, alpha=3),
    lambda x, y: torch.where(x > y, x, y),
    lambda x, y: torch.lerp(x, y, 0.25),
    lambda x, y: torch.addcmul(x, x, y, value=0.5),
    lambda x, y: x * y + x,
    lambda x, y: torch.addcdiv(x, y, y, value=2.0),
    lambda x, y: torch.logical_and(x > 0, y > 0),
    lambda x, y: torch.cat([x, y]),
    lambda x, y: torch.stack([x, y], -1),
    lambda x, y: torch.cat([x, y, x], -1),
)
MATRIX = (
    torch.mm,
    lambda x, y: x @ y,
    lambda x, y: x @ y.t(),
    lambda x, y: x.t() @ y,
    F.linear,
    lambda x, y: torch.addmm(y[0], x, y),
    lambda x, y: torch.relu(torch.addmm(y[0], x, y)),
    lambda x, y: torch.mv(x, y[:, 0]),
    lambda x, y: torch.bmm(x[None], y[None]),
)
VIEWS = (
    lambda x: x.t(),
    lambda x: x.t().t(),
    lambda x: x.transpose(0, -1),
    lambda x: x.reshape(-1),
    lambda x: x.flatten(),
    lambda x: x[0],
    lambda x: x[..., 1:],
    lambda x: x[..., ::2],
    lambda x: x[None],
    lambda x: x.unsqueeze(-1),
    lambda x: x.squeeze(),
    lambda x: x.expand(2, *x.shape),
    lambda x: x.diagonal(),
    lambda x: x.view(x.shape),
    lambda x: x.expand(x.shape),
    lambda x: x.narrow(0, 1, 1),
    lambda x: x.detach(),
    lambda x: x.view_as(x),
)
SEVERAL = (
    lambda x: x.split(1),
    lambda x: x.split([1, x.shape[0] - 1]),
    lambda x: x.unbind(),
    lambda x: x.unbind(-1),
    lambda x: x.chunk(2, -1),
    lambda x: x.sort(-1),
    lambda x: x.max(-1),
    lambda x: x.min(0),
    lambda x: x.topk(2, -1),
    lambda x: torch.var_mean(x, correction=0),
    lambda x: torch.std_mean(x, -1, correction=0),
    lambda x: torch.aminmax(x),
)
REDUCTIONS = (
    torch.sum,
    torch.mean,
    torch.amax,
    torch.argmax,
    torch.norm,
    torch.prod,
    torch.any,
    lambda x: torch.var(x, correction=0),
    lambda x: x.sum(0),
    lambda x: x.sum(0, keepdim=True),
    lambda x: x.sum(-1),
    lambda x: x.mean(0),
    lambda x: x.amin(-1),
    lambda x: x.mean(-1, keepdim=True),
    lambda x: x.argmin(0),
    lambda x: x.cumsum(-1),
    lambda x: x.logsumexp(-1),
    lambda x: F.softmax(x, -1),
    lambda x: F.log_softmax(x, -1),
    lambda x: F.softmax(x, 0),
    lambda x: x.sum((0, 1)),
    lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda x: F.normalize(x),
    lambda x: x.float().sum(0, dtype=torch.float64),
)
CHANGES = (
    lambda x: x.add_(1),
    lambda x: x.mul_(2),
    lambda x: x.zero_(),
    lambda x: x.fill_(2),
    lambda x: x.relu_(),
    lambda x: x.clamp_(-1, 1),
    lambda x: x.neg_(),
    lambda x: x[0].add_(1),
    lambda x: x[..., 1:].mul_(0.5),
    lambda x: x.t().add_(2),
    lambda x: x.tanh_(),
    lambda x: x.sub_(x.mean()),
)
CHANGES_BY = (
    lambda x, y: x.add_(y),
    lambda x, y: x.mul_(y),
    lambda x, y: x.copy_(y),
    lambda x, y: x.sub_(y, alpha=2),
    lambda x, y: x[0].copy_(y[0]),
    lambda x, y: x.lerp_(y, 0.5),
    lambda x, y: x.addcmul_(y, y),
    lambda x, y: x.index_copy_(0, torch.tensor([0]), y[:1]),
    lambda x, y: torch._foreach_add_([x], [y]),
    lambda x, y: torch._foreach_mul_([x, y], 2.0),
)
CASTS = (
    lambda x: x.float(),
    lambda x: x.double(),
    lambda x: x.bfloat16(),
    lambda x: x.long(),
    lambda x: x.bool(),
    lambda x: x.to(x.dtype),
    lambda x: x.to(torch.float32, copy=True),
)
CONSTANTS = (
    lambda: torch.ones(2, 3),
    lambda: torch.arange(3),
    lambda: torch.zeros(3),
    lambda: torch.full((3, 3), 0.5),
    lambda: torch.tensor([1.0, 2.0, 3.0]),
    lambda: torch.eye(3),
    lambda: torch.tensor(2.0),
    lambda: torch.linspace(0, 1, 3),
    lambda: torch.ones(3, 2).t() * 2,
    lambda: torch.empty(3).fill_(1),
)
PICKS = (
    lambda x, places: x.index_select(0, places[:1]),
    lambda x, places: F.embedding(places, x),
    lambda x, places: x[places],
    lambda x, places: x.gather(0, places[:, None].expand(-1, x.shape[1])),
    lambda x, places: x.gather(1, places[:2, None]),
    lambda x, places: F.one_hot(places, 3).to(x.dtype) * x,
    # of rows only: one score without a row is taken by torch, but not by its fake tensors
    lambda x, places: F.nll_loss(x.flatten(1), places[: len(x)]),
)
KINDS = (
    (UNARY, 1, 5),
    (BINARY, 2, 5),
    (MATRIX, 2, 4),
    (VIEWS, 1, 5),
    (SEVERAL, 1, 2),
    (REDUCTIONS, 1, 4),
    (CHANGES, 1, 3),
    (CHANGES_BY, 2, 2),
    (CASTS, 1, 2),
    (CONSTANTS, 0, 2),
    (PICKS, "pick", 2),
)


class Straight:
    """A random function of tensors: `static` of its tensors are kept between runs, `inputs` come with each."""

    def __init__(self, seed, lines=12):
        rng = random.Random(seed)
        generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        shapes = ((3, 3), (3, 3), (2, 3), (3,), (3, 4), (3, 3))
        dtypes = [rng.choice(FLOATS) if rng.random() < 0.3 else torch.float32 for _ in shapes]
        given = [torch.randn(s, generator=generator).to(d) for s, d in zip(shapes, dtypes, strict=True)]
        given.append(torch.randint(0, 3, (3,), generator=generator))
        self._given, self._static = given, rng.randint(0, 4)
        self._lines = []
        values = [one.clone() for one in given]
        with torch.no_grad():
            while len(self._lines) < lines:
                self._try_line(rng, values)
        places = list(range(len(values)))
        latest = places[len(given) :] or places
        self._returned = [rng.choice(latest if rng.random() < 0.8 else places) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.2:
            self._returned.append(None)

    def _try_line(self, rng, values):
        functions, count, _ = rng.choices(KINDS, [kind[2] for kind in KINDS])[0]
        function = rng.choice(functions)
        start = rng.choice((0, max(0, len(values) - 5)))  # recent values more often
        if count == "pick":
            places = [rng.randrange(start, len(values)), len(self._given) - 1]
        else:
            places = [rng.randrange(start, len(values)) for _ in range(count)]
        if functions in (CHANGES, CHANGES_BY) and not all(values[place].is_floating_point() for place in places):
            return  # places in a table stay in range
        try:
            found = function(*(values[place] for place in places))
        except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
            return  # these shapes or dtypes do not go together
        found = found if isinstance(found, (tuple, list)) else [found]
        if any(one is not None and (one.numel() == 0 or one.numel() > 500) for one in found):
            return
        values.extend(one for one in found if one is not None)
        self._lines.append((function, places))

    def __call__(self, *given):
        values = list(given)
        with torch.no_grad():
            for function, places in self._lines:
                found = function(*(values[place] for place in places))
                found = found if isinstance(found, (tuple, list)) else [found]
                values.extend(one for one in found if one is not None)
        return [None if place is None else values[place] for place in self._returned]

    def static(self):
        return [one.clone() for one in self._given[: self._static]]

    def inputs(self, seed=None):
        if seed is None:
            return [one.clone() for one in self._given[self._static :]]
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn(one.shape, generator=generator).to(one.dtype) if one.is_floating_point() else one.clone()
            for one in self._given[self._static :]
        ]


def _bits(value):
    sizes = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return value.contiguous().view(sizes[value.element_size()])


def _is_same(one, two):
    if one is None or two is None:
        return one is two
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, two)
    nan = torch.isnan(one)
    return torch.equal(nan, torch.isnan(two)) and torch.equal(_bits(one)[~nan], _bits(two)[~nan])


@pytest.fixture
def straight():
    """seed -> a random function."""
    return Straight


@pytest.fixture
def is_same():
    """Whether two results have the same shape, dtype and bits; any NaN equals any NaN."""
    return _is_same


@pytest.fixture(scope="module")
def by_torch_alone():
    """Products by torch, as in the function that is compiled, so that all bits are the same."""
    with pytest.MonkeyPatch.context() as patch:
        others = mark_small_products, widen_small_products
        patch.setattr(fanin.program.run, "PASSES", tuple(one for one in PASSES if one not in others))
        patch.setattr(fanin.program.run, "array_function", lambda traced: None)
        yield
