"""Dropout's draws by whole words: as often as asked, fresh in each run, by the seed, and into any float."""

import pytest
import torch
import torch.nn.functional as F

from fanin.program import Program

SIZE = 1 << 18


def drawn(probability, shape=(SIZE,), dtype=torch.float32, generator=None, seed=0):
    """What a program draws that only draws, twice."""
    x = torch.empty(shape, dtype=dtype)
    program = Program(lambda x: [torch.empty_like(x).bernoulli_(probability, generator=generator)], [], [x])
    assert "random_(" in program.source
    (generator or torch.default_generator).manual_seed(seed)
    return [program(x)[0] for _ in range(2)]


@pytest.mark.parametrize("probability", [1e-4, 0.1, 1 / 3, 0.5, 0.9, 1 - 1e-4])
def test_numbers_are_kept_as_often_as_asked(probability):
    first, second = drawn(probability)
    assert set(first.unique().tolist()) <= {0.0, 1.0}
    deviation = (probability * (1 - probability) / SIZE) ** 0.5
    for one in (first, second):
        assert abs(one.double().mean() - probability) < 5 * deviation
        # Neighbours, the two halves of a word, and two runs know nothing of each other.
        centred = one.double() - one.double().mean()
        for lag in (1, 2, 3):
            assert abs((centred[lag:] * centred[:-lag]).mean()) < 5 * deviation**2 * SIZE**0.5
    assert abs(((first - probability) * (second - probability)).double().mean()) < 5 * deviation**2 * SIZE**0.5


@pytest.mark.parametrize("shape", [(1024,), (1025,), (33, 32), (1, 5, 999)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_numbers_are_those_of_the_words(shape, dtype):
    first, second = drawn(0.3, shape, dtype, seed=7)
    assert first.dtype == dtype
    assert first.shape == shape
    torch.manual_seed(7)
    for one in (first, second):
        words = torch.empty(-(-one.numel() // 2), dtype=torch.int64).random_(-(2**63), None)
        low, high = words & 0xFFFFFFFF, (words >> 32) & 0xFFFFFFFF
        halves = torch.stack([low, high], 1).flatten()[: one.numel()]
        signed = torch.where(halves >= 2**31, halves - 2**32, halves)
        assert torch.equal(one.flatten(), (signed < round(0.3 * 2**32) - 2**31).to(dtype))


def test_seeds_hold():
    one, again = drawn(0.5, seed=3), drawn(0.5, seed=3)
    other = drawn(0.5, seed=4)
    own = drawn(0.5, generator=torch.Generator(), seed=3)
    assert all(map(torch.equal, one, again))
    assert all(map(torch.equal, one, own))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], other[0])


def test_dropout_and_its_gradient_see_the_same_numbers():
    weight = torch.ones(64, 64)

    def function(weight, x):
        weight = weight.detach().requires_grad_()
        y = F.dropout(x * weight, 0.25)
        return [y.detach(), *torch.autograd.grad(y.sum(), [weight])]

    x = torch.ones(64, 64)
    program = Program(function, [weight], [x])
    assert "random_(" in program.source
    y, gradient = program(x)
    assert torch.equal(y, gradient)
    torch.testing.assert_close(y.unique(), torch.tensor([0.0, 4 / 3]))


LEFT = {  # what is drawn of x
    "few numbers": lambda x: torch.empty(1023).bernoulli_(0.5),
    "never": lambda x: torch.empty_like(x).bernoulli_(0.0),
    "always": lambda x: torch.empty_like(x).bernoulli_(1.0),
    "a probability for each": lambda x: torch.empty_like(x).bernoulli_(torch.sigmoid(x)),
    "turned": lambda x: torch.empty(64, 32).t().bernoulli_(0.5),
    "over numbers": lambda x: (x * 2).bernoulli_(0.5),
    "a part": lambda x: torch.zeros(4096)[:2048].bernoulli_(0.5),
}


@pytest.mark.parametrize("case", LEFT)
def test_others_draw_as_eagerly(case):
    x = torch.randn(2048)
    program = Program(lambda x: [LEFT[case](x) + 0], [], [x])
    assert "random_(" not in program.source
    torch.manual_seed(5)
    expected = LEFT[case](x)
    torch.manual_seed(5)
    assert torch.equal(program(x)[0], expected)
