"""Rows that go through a graph without seeing each other: what is known to keep them apart, and what is not."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from fanin.program.row_independence import rows_are_independent
from fanin.program.trace import trace

torch.manual_seed(0)
LINEAR, NORM, BATCH, TABLE = nn.Linear(6, 6), nn.LayerNorm(6), nn.BatchNorm1d(6).eval(), nn.Embedding(9, 6)
WEIGHT, ROW = torch.randn(6, 6), torch.randn(6)
CONSTANT = torch.randn(1, 6)

APART = {  # (B, 6) -> (B, 6)
    "linear": LINEAR,
    "product": lambda x: x @ WEIGHT,
    "activations": lambda x: torch.relu(x) + torch.sigmoid(x) * F.gelu(x) - F.elu(x),
    "layer normalization": NORM,
    "batch normalization in eval mode": BATCH,
    "softmax": lambda x: F.softmax(x, -1) + F.log_softmax(x, 1),
    "a row of numbers": lambda x: x * ROW + CONSTANT,
    "reductions over features": lambda x: x - x.mean(1, keepdim=True) + x.amax(-1, keepdim=True),
    "variance": lambda x: x / (x.var(-1, keepdim=True) + 1),
    "parts of rows": lambda x: torch.cat([x[:, 3:], x[:, :2], x[:, 2, None]], 1),
    "split": lambda x: torch.cat(x.split(2, dim=1)[::-1], -1),
    "folded and unfolded": lambda x: LINEAR(x.view(-1, 3, 2).reshape(-1, 6)),
    "turned within rows": lambda x: x.view(-1, 2, 3).transpose(1, 2).reshape(-1, 6),
    "permuted within rows": lambda x: x.view(len(x), 2, 3).permute(0, 2, 1).flatten(1),
    "steps of a sequence": lambda x: F.linear(x.view(-1, 3, 2), WEIGHT[:2, :2]).flatten(1),
    "attention within a row": lambda x: (x.view(-1, 3, 2) @ x.view(-1, 3, 2).mT @ x.view(-1, 3, 2)).flatten(1),
    "embedding": lambda x: TABLE(x[:, 0].abs().long().clamp(0, 8)),
    "choice": lambda x: torch.where(x > 0, x, 0.1 * x).masked_fill(x > 2, 1.0),
    "cumulative sums of a row": lambda x: x.cumsum(1),
    "ones for every row": lambda x: torch.cat([x[:, :5], torch.ones(len(x), 1)], 1),
    "zeros like rows": lambda x: x + torch.zeros(len(x), 6) + torch.full((len(x), 6), 2.0),
    "expanded": lambda x: x[:, :1].expand(-1, 6) + x[:, 1:2].expand(len(x), 6),
    "in place": lambda x: (x * 2).relu_().add_(1),
    "gathered within rows": lambda x: x.gather(1, (x > 0).long()),
    "the same columns of each row": lambda x: x.index_select(1, torch.tensor([5, 4, 3, 2, 1, 0])),
}
TOGETHER = {
    "mean over rows": lambda x: x - x.mean(0),
    "sum of all": lambda x: x / x.sum(),
    "softmax over rows": lambda x: F.softmax(x, 0),
    "cumulative over rows": lambda x: x.cumsum(0),
    "rows turned around": lambda x: x.flip(0),
    "rows shifted": lambda x: x.roll(1, 0),
    "the first row": lambda x: x + x[:1],
    "one row": lambda x: x + x[0],
    "rows against rows": lambda x: (x @ x.t()) @ x,
    "rows as weights": lambda x: x @ (x.t() @ x),
    "the number of rows": lambda x: x * len(x),
    "divided by their number": lambda x: x / len(x),
    "their number as a tensor": lambda x: x * torch.tensor(float(len(x))),
    "their places": lambda x: x + torch.arange(len(x), dtype=x.dtype)[:, None],
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "random numbers": lambda x: F.dropout(x, 0.5),
    "noise": lambda x: x + torch.randn_like(x),
    "halves of the batch": lambda x: torch.cat([x[len(x) // 2 :], x[: len(x) // 2]]),
    "features as rows": lambda x: x.t().reshape(-1, 6),
    "the rows of a table": lambda x: x.index_select(0, torch.zeros(len(x), dtype=torch.long)),
    "the largest in a column": lambda x: x - x.amax(0, keepdim=True),
    "one number for all": lambda x: x - x.max(),
    "norm over rows": lambda x: x / x.norm(dim=0),
    "one row changed in place": lambda x: x.clone().index_fill_(0, torch.tensor([0]), 1.0),
}


def stays_apart(function, *shape):
    traced = [trace(lambda x: [function(x)], [], [torch.zeros(rows, *(shape or (6,)))]) for rows in (3, 8)]
    return rows_are_independent(*traced)


@pytest.mark.parametrize("name", APART)
def test_rows_that_stay_apart(name):
    assert stays_apart(APART[name])
    x = torch.randn(7, 6)
    with torch.no_grad():
        alone = torch.cat([APART[name](row) for row in x.split(1)])
        torch.testing.assert_close(APART[name](x), alone)


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_that_see_each_other(name):
    assert not stays_apart(TOGETHER[name])


@settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])
@given(st.lists(st.sampled_from([*APART, *TOGETHER]), min_size=1, max_size=4))
def test_chains(names):
    def chain(x):
        for name in names:
            x = (APART | TOGETHER)[name](x)
        return x

    assert stays_apart(chain) is all(name in APART for name in names)


def test_results_have_one_row_for_each():
    assert stays_apart(lambda x: x.view(-1, 2, 3))
    assert not stays_apart(lambda x: x.view(-1, 3))  # two rows for each
    assert not stays_apart(lambda x: torch.ones(6))
    assert not stays_apart(lambda x: x.sum())


def test_several_inputs_and_results():
    def function(x, y):
        return [x + y[:, :1], torch.cat([x, y], 1)]

    def traced(rows, others=None):
        return trace(function, [], [torch.zeros(rows, 6), torch.zeros(others or rows, 2)])

    assert rows_are_independent(traced(3), traced(8))
    assert not rows_are_independent(
        *(trace(lambda x, y: [x + y.sum(1), y], [], [torch.zeros(rows, 6), torch.zeros(6, 2)]) for rows in (3, 8))
    )


def test_a_buffer_that_changes_tells_rows_of_each_other():
    total = torch.zeros(6)

    def function(total, x):
        total.add_(x.sum(0))
        return [x + total]

    assert not rows_are_independent(*(trace(function, [total], [torch.zeros(rows, 6)]) for rows in (3, 8)))


def test_another_way_for_more_rows_is_found():
    assert not stays_apart(lambda x: x * 2 if len(x) > 4 else x + x)
