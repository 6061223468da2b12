"""What `Watch` sees in the tuples that it compares before every step."""

import torch

from fanin.training.watch import Watch


def test_a_hook_after_another_was_removed():
    module = torch.nn.Linear(2, 1)
    module.weight.register_hook(lambda gradient: None).remove()  # leaves an empty dict
    watch = Watch(module)
    assert watch.stands()
    handle = module.weight.register_hook(lambda gradient: None)
    assert not watch.stands()
    assert "weight" in watch.difference()
    handle.remove()
    assert watch.stands()


def test_an_attribute_whose_comparison_fails():
    class Odd:
        def __eq__(self, other):
            raise AttributeError

        __hash__ = None

    module = torch.nn.Linear(2, 1)
    module.odd = Odd()
    watch = Watch(module)
    assert watch.stands()
    module.odd = Odd()
    assert not watch.stands()
