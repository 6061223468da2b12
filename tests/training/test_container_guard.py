"""What lists, dicts and sets hold is compared one level deep, and put back."""

import pytest

from fanin.training.guards.container_guard import ContainerGuard


def of(*containers):
    return ContainerGuard([({}, f"name {place}", one) for place, one in enumerate(containers)])


def names(guard):
    return [name for _, name, _ in guard.differences()]


CHANGES = {
    "set": ([1, 2], lambda one: one.__setitem__(0, 3)),
    "append": ([1, 2], lambda one: one.append(3)),
    "order": ([1, 2], lambda one: one.reverse()),
    "clear": ([1, 2], lambda one: one.clear()),
    "value": ({"a": 1, "b": [2]}, lambda one: one.update(a=5)),
    "key": ({"a": 1}, lambda one: one.update(b=1)),
    "removed": ({"a": 1, "b": 2}, lambda one: one.pop("a")),
    "added": ({1, 2}, lambda one: one.add(3)),
    "large list": ([*range(1000)], lambda one: one.append(1)),
    "large dict": ({number: number for number in range(1000)}, lambda one: one.update(new=1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_and_undone(name):
    one, change = CHANGES[name]
    before = one.copy()
    guard = of([0], one, {})
    assert guard.holds()
    change(one)
    assert not guard.holds()
    assert names(guard) == ["name 1"]
    guard.restore()
    assert guard.holds()
    assert one == before
    if isinstance(one, dict):
        assert list(one) == list(before)


def test_equal_but_other_objects_are_a_change_and_equal_numbers_are_none():
    one = [[1.0], 0.5, "word"]
    guard = of(one)
    one[1] = float("0.5")
    for _ in range(2):
        assert guard.holds()
    one[1] = True
    assert not guard.holds()
    guard.restore()
    assert one[1] == 0.5
    one[0] = [1.0]
    assert not guard.holds()


def test_what_lies_deeper_and_values_in_large_ones_are_not_seen():
    inner, large = [1], [*range(1000)]
    guard = of([inner], large)
    inner.append(2)
    large[0] = 5
    assert guard.holds()
