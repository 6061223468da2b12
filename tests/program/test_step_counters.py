"""Counters of one number are counted by numpy, in the memory of their tensors."""

import torch

from fanin.program import Program
from fanin.program.passes.step_counters import mark_counters


def counting(step=1):
    def function(*given):
        counters, x = given[:-1], given[-1]
        torch._foreach_add_(list(counters), step)
        return [x + counters[0]]

    return function


def marks(program):
    return [node.meta.get("by_numpy") for node in program.traced.graph.nodes if "_foreach_add_" in str(node.target)]


def test_counters_grow_and_are_read():
    counters = [torch.zeros(()), torch.ones(1), torch.full((), 2.0)]
    program = Program(counting(0.5), counters, [torch.ones(2)])
    assert marks(program) == [True]
    assert "_foreach_add_" not in program.source
    for run in range(1, 4):
        (found,) = program(torch.ones(2))
        assert torch.equal(found, torch.full((2,), 1 + 0.5 * run))
        assert [one.item() for one in counters] == [0.5 * run, 1 + 0.5 * run, 2 + 0.5 * run]


def test_other_dtypes_and_larger_tensors_stay_with_torch():
    for other in (torch.zeros((), dtype=torch.float64), torch.zeros(2), torch.zeros((), dtype=torch.int64)):
        counters = [torch.zeros(()), other]
        program = Program(counting(), counters, [torch.ones(2)])
        assert marks(program) == [False]
        program(torch.ones(2))
        assert counters[0].item() == 1
        assert other.sum().item() == other.numel()


def test_the_pass_leaves_other_graphs_alone():
    program = Program(lambda x: [x + 1], [], [torch.ones(2)])
    before = str(program.traced.graph)
    mark_counters(program.traced.graph)
    assert str(program.traced.graph) == before
