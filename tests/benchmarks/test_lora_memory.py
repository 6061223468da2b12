"""What training with LoRA holds, beside full fine-tuning."""

from __future__ import annotations

import sys

import pytest

from benchmarks import lora_memory


def found(**megabytes: float) -> lora_memory.Found:
    peers = {name: [{"bytes": value * 1e6, "left": value * 1e6}] * 2 for name, value in megabytes.items()}
    return {"peers": peers, "missing": {}, "failed": {}}


@pytest.mark.parametrize(("lora", "verdict"), [(10, "met"), (20, "met"), (21, "missed")])
def test_the_target_is_half(lora: float, verdict: str) -> None:
    assert lora_memory.verdict(found(lora=lora, full=40))[1] == verdict


def test_without_one_of_them_nothing_is_said() -> None:
    assert lora_memory.verdict(found(lora=10)) == ("-", "not measured")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("peer", [peer.name for peer in lora_memory.PEERS])
def test_each_peer_trains(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_memory, "WIDTH", 1024)
    record = lora_memory.train(peer)
    assert record["bytes"] >= record["left"]
    assert record["bytes"] < 300e6
