"""Cross-entropy of logits and labels: the loss in one operation, its gradient without a scattered matrix in between.

::

    mean(nll_loss(lp, y, "none"))                      ->  nll_loss(lp, y, "mean")
    log_softmax_backward(nll_loss_backward(c, lp, y))  ->  c (exp(lp) - one_hot(y))       lp = log_softmax(logits)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import aten, is_getitem
from fanin.program.passes.rewrite import add_call, add_filled, declare, replace

_NO_LABEL = -(1 << 62)  # below every label: nothing is ignored


def simplify_cross_entropy(graph: fx.Graph) -> None:
    """Simplify loss and gradient where all rows weigh the same: no class or sample weights, no ignored label."""
    for node in list(graph.nodes):
        if node.target == aten._log_softmax_backward_data.default:
            _simplify_gradient(graph, node)
    for node in list(graph.nodes):
        if node.target == aten.mean.default and not node.kwargs:
            _simplify_loss(graph, node)


def _simplify_loss(graph: fx.Graph, mean: fx.Node) -> None:
    losses = mean.args[0]
    if not isinstance(losses, fx.Node) or not is_getitem(losses) or losses.args[1] != 0 or len(losses.users) > 1:
        return
    forward = losses.args[0]
    if (
        not isinstance(forward, fx.Node)
        or forward.target != aten.nll_loss_forward.default
        or not _is_unweighted(forward.args[2:])
    ):
        return
    if any(user.users for user in forward.users if user is not losses):
        return  # a gradient that was not simplified needs its second result
    with graph.inserting_before(forward):
        loss = graph.call_function(aten.nll_loss.default, (*forward.args[:2], None, 1, forward.args[4]))
    declare(loss, mean.meta["val"])
    replace(mean, loss)


def _simplify_gradient(graph: fx.Graph, node: fx.Node) -> None:
    loss_gradient, outputs, axis = node.args[:3]
    if (
        not isinstance(loss_gradient, fx.Node)
        or loss_gradient.target != aten.nll_loss_backward.default
        or len(loss_gradient.users) > 1
    ):
        return
    scale, source, labels = loss_gradient.args[:3]
    value = node.meta["val"]
    fits = source is outputs and value.dim() == 2 and axis in (1, -1) and value.dtype in (torch.float32, torch.float64)
    if not fits or not _is_unweighted(loss_gradient.args[3:6]) or labels.meta["val"].dtype != torch.int64:  # type: ignore[union-attr]
        return
    number = _constant_fill(scale)
    if number is None:
        return
    rows = value.shape[0]
    with graph.inserting_before(node):
        probabilities = add_call(graph, aten.exp.default, outputs)
        column = add_call(graph, aten.unsqueeze.default, labels, 1)
        ones = add_filled(graph, [rows, 1], -1.0, value)
        errors = add_call(graph, aten.scatter_add_.default, probabilities, 1, column, ones)
        gradient = add_call(graph, aten.mul.Tensor, errors, number)
    replace(node, gradient)
    graph.erase_node(loss_gradient)


def _is_unweighted(weight_reduction_ignored: tuple[Any, ...]) -> bool:
    """Whether there are no class weights, no reduction and no ignored label."""
    weight, reduction, ignored = weight_reduction_ignored[:3]
    return weight is None and reduction == 0 and ignored <= _NO_LABEL


def _constant_fill(node: Any) -> float | None:
    """The number that a value is filled with, if that is a constant; else None."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return None
    fills = {aten.ones_like.default: 1.0, aten.zeros_like.default: 0.0}
    if node.target in fills:
        return fills[node.target]
    if node.target == aten.full.default:
        return float(node.args[1])  # type: ignore[arg-type]
    if node.target in (aten.expand.default, aten.view.default):
        return _constant_fill(node.args[0])
    number = _constant_fill(node.args[0]) if node.args else None
    if number is None or len(node.args) != 2 or isinstance(node.args[1], fx.Node):
        return None
    exact: Tensor = torch.tensor(number, dtype=node.meta["val"].dtype, device="cpu")
    if node.target in (aten.div.Scalar, aten.div.Tensor):
        return float(exact / node.args[1])  # type: ignore[operator]
    return float(exact * node.args[1]) if node.target in (aten.mul.Scalar, aten.mul.Tensor) else None  # type: ignore[operator]
