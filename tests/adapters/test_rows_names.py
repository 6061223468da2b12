"""Names of adapters for the rows of a batch: in which forms they come, and which are refused."""

import numpy as np
import pytest
import torch
from rows_cases import Tower, mixed, row_by_row
from torch import nn

from fanin import adapters


def test_names_that_no_layer_has():
    tower = mixed(Tower())
    with pytest.raises(ValueError, match=r"Tower cannot mix.*no layer has 'eve'; there is 'ann', 'bob', 'cid', 'dan'"):
        adapters.rows(tower, ["ann", "eve"]).__enter__()
    assert not tower.head.ann_kernel_a.requires_grad  # nothing was thawed
    with pytest.raises(ValueError, match=r"Linear cannot mix.*no layer has 'ann'; there is none"):
        adapters.rows(nn.Linear(2, 2), ["ann"]).__enter__()
    linear = mixed(nn.Linear(6, 5))
    with adapters.rows(linear, ["ann"]):
        adapters.remove(linear, "ann")
        with pytest.raises(ValueError, match="There is no adapter 'ann' here"):
            linear(torch.zeros(1, 6))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ann", "names is a list with a name or None for each row of the batch, found 'ann'"),
        (3, "names is a list .* found 3"),
        (["ann", 3], "row 1 needs the name of an adapter or None, found 3"),
    ],
)
def test_what_is_no_list_of_names(names, message):
    with pytest.raises(TypeError, match=message):
        adapters.rows(mixed(nn.Linear(6, 5)), names).__enter__()


def test_names_in_an_array():
    layer, x = mixed(nn.Linear(6, 5)), torch.randn(2, 6)
    with adapters.rows(layer, np.array(["ann", "bob"])):
        found = layer(x)
    torch.testing.assert_close(found, row_by_row(layer, ["ann", "bob"], x))
