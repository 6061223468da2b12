"""Operations whose form that writes, or whose schema, says something else than one would think."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fanin import compile_predict, compile_step
from fanin.errors import NotTraceableError
from fanin.program import Program
from fanin.program.effects import aten, mutated_inputs, returned_input

SHAPE = (6, 4)


def values(seed, positive=False):
    drawn = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.sigmoid() if positive else drawn


SIGNS = torch.where(values(5) > 0, 1.0, -1.0)
LOSSES = {
    "mse": lambda r: (nn.MSELoss(reduction=r), values(1)),
    "l1": lambda r: (nn.L1Loss(reduction=r), values(1)),
    "smooth l1": lambda r: (nn.SmoothL1Loss(reduction=r, beta=0.5), values(1)),
    "huber": lambda r: (nn.HuberLoss(reduction=r), values(1)),
    "bce": lambda r: (lambda p, y: F.binary_cross_entropy(p.sigmoid(), y, reduction=r), values(1, True)),
    "weighted bce": lambda r: (
        lambda p, y: F.binary_cross_entropy(p.sigmoid(), y, weight=y + 1, reduction=r), values(1, True),
    ),
    "bce with logits": lambda r: (nn.BCEWithLogitsLoss(reduction=r), values(1, True)),
    "kl": lambda r: (
        lambda p, y: F.kl_div(p.log_softmax(-1), y, reduction=r.replace("mean", "batchmean")), values(1, True),
    ),
    "poisson": lambda r: (nn.PoissonNLLLoss(reduction=r, full=True), values(1, True)),
    "soft margin": lambda r: (nn.SoftMarginLoss(reduction=r), SIGNS.double()),
    "hinge embedding": lambda r: (nn.HingeEmbeddingLoss(reduction=r), SIGNS.double()),
    "multi margin": lambda r: (nn.MultiMarginLoss(reduction=r), torch.arange(6) % 4),
    "multi-label margin": lambda r: (nn.MultiLabelMarginLoss(reduction=r), torch.tensor([[1, 0, -1, 0]] * 6)),
    "multi-label soft margin": lambda r: (nn.MultiLabelSoftMarginLoss(reduction=r), (SIGNS > 0).double()),
    "cross entropy": lambda r: (nn.CrossEntropyLoss(reduction=r, label_smoothing=0.1), torch.arange(6) % 4),
    "cross entropy of rates": lambda r: (nn.CrossEntropyLoss(reduction=r), values(1, True)),
    "nll": lambda r: (lambda p, y: F.nll_loss(p.log_softmax(-1), y, reduction=r), torch.arange(6) % 4),
    "cosine": lambda r: (lambda p, y: F.cosine_embedding_loss(p, y, SIGNS[:, 0].double(), reduction=r), values(1)),
    "triplet": lambda r: (lambda p, y: F.triplet_margin_loss(p, y, y.flip(0), reduction=r), values(1)),
    "margin ranking": lambda r: (lambda p, y: F.margin_ranking_loss(p, y, SIGNS.double(), reduction=r), values(1)),
}  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_torch(name, reduction):
    loss, targets = LOSSES[name](reduction)
    found = []
    for compiled in (True, False):
        torch.manual_seed(0)
        module = nn.Linear(3, 4).double()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        x = values(2)[:, :3]

        def scalar(outputs, y):
            return loss(outputs, y).sum() if reduction == "none" else loss(outputs, y)

        step = compile_step(module, scalar, optimizer)
        for _ in range(2):
            if compiled:
                value = step(x, targets)
            else:
                optimizer.zero_grad()
                value = scalar(module(x), targets)
                value.backward()
                optimizer.step()
            found.append(value.detach())
        found.append(module.weight.detach())
        assert bool(step.programs) is compiled
    for one, two in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def run(module, *shape):
    """Outputs in eval mode and gradients in train mode, compiled and not."""
    module.double()
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module.eval()
    predict = compile_predict(module, x)
    torch.testing.assert_close(predict(x), module(x).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(predict(x), module(x).detach(), rtol=1e-12, atol=1e-12)
    assert predict.programs
    module.train()

    def gradients(*given):
        torch.manual_seed(0)
        outputs = torch.func.functional_call(module, dict(zip(names, given[:-1], strict=True)), (given[-1],))
        return list(torch.autograd.grad(outputs.cos().sum(), given[: len(names)]))

    names = [name for name, _ in module.named_parameters()]
    weights = [weight for _, weight in module.named_parameters()]
    if weights:
        program = Program(gradients, weights, [x])
        torch.manual_seed(0)
        found = program(x)
        for one, two in zip(found, gradients(*weights, x), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


class Cell(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(6, 5)

    def forward(self, x):
        found = self.cell(x)
        return found[0] if isinstance(found, tuple) else self.cell(x, found)


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell, nn.RNNCell])
def test_cells_of_recurrent_networks(kind):
    run(Cell(kind), 8, 6)


def test_normalizations_without_averages():
    run(nn.Sequential(nn.Conv1d(4, 3, 2), nn.InstanceNorm1d(3, affine=True)), 5, 4, 6)
    run(nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, track_running_stats=False)), 5, 6)


def test_rrelu():
    run(nn.Sequential(nn.Linear(6, 4), nn.RReLU()), 8, 6)


def test_decompositions_of_matrices():
    def function(x):
        q, r = torch.linalg.qr(x)
        return [q @ r, r, *torch.linalg.svd(x)[1:2], torch.linalg.inv(x), torch.linalg.cholesky(x @ x.t() + 1)]

    x = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one, two in zip(Program(function, [], [x])(x), function(x), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_moving_averages_count_as_changed():
    module = nn.BatchNorm1d(3)

    def function(mean, var, x):
        before = mean * 2
        outputs = F.batch_norm(x, mean, var, training=True)
        return [outputs, before, mean * 2]

    x = torch.randn(5, 3)
    program = Program(function, [module.running_mean, module.running_var], [x])
    mean, var = torch.zeros(3), torch.ones(3)
    for _ in range(2):
        for one, two in zip(program(x), function(mean, var, x), strict=True):
            torch.testing.assert_close(one, two)
    node = next(one for one in program.traced.graph.nodes if one.target == aten.native_batch_norm.default)
    assert len(mutated_inputs(node)) == 2
    assert returned_input(node) is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [torch.fft.ifft(x).real],
        lambda x: [torch.view_as_real(torch.complex(x, x))],
        lambda x: [x.to_sparse()],
    ],
)
def test_complex_and_sparse_values_are_refused(function):
    with pytest.raises((NotTraceableError, NotImplementedError)):
        Program(function, [], [torch.ones(4, 4)])
