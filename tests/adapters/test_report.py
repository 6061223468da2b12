"""What the report says."""

from torch import nn

from fanin import adapters
from fanin.layers import Embedding


def test_report():
    model = nn.Sequential(Embedding(7, 4, input_length=2), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model[0].build(None)
    adapters.add(model, "ann", {"0": 2, "1": 1}, alpha=4)
    report = adapters.add(model, "bob", 1, target="1")
    assert report == adapters.report(model)
    assert [(each.path, each.kind, each.active, each.merged, each.bytes) for each in report.layers] == [
        ("0", "Embedding", None, None, 4 * (7 * 2 + 2 * 4)),
        ("1", "Linear", "bob", None, 4 * 2 * (4 + 3)),
    ]
    assert report.without == ("3",)
    assert report.trained == 4 + 3
    assert report.total == sum(p.numel() for p in model.parameters())
    assert report.bytes == 4 * (22 + 14)
    assert str(report).splitlines() == [
        "0: Embedding, ann (rank 2, scale 2), active: None",
        "1: Linear, ann (rank 1, scale 4), bob (rank 1, scale 1), active: bob",
        "without: 3",
        f"trained: 7 of {report.total} weights; adapters take 144 bytes",
    ]
    adapters.merge(model, "ann")
    assert str(adapters.report(model)).splitlines()[0].endswith("merged: ann")
    assert adapters.report(model).trained == 0
    assert str(adapters.report(nn.ReLU())) == "trained: 0 of 0 weights; adapters take 0 bytes"
