"""What prediction of many rows holds beyond its output."""

from __future__ import annotations

import sys

import pytest
from benchmarks.rounds import Peer

from benchmarks import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


@pytest.mark.parametrize("peer", [peer.name for peer in memory.PEERS if peer.name != "limit"])
def test_memory_counts_what_is_held_beyond_the_output(peer: str) -> None:
    record = memory.predict(peer, 2000)
    assert record["us"] > 0
    assert record["bytes"] < 64e6  # activations of one chunk: 2000 * (784 + 256 + 10) * 4 bytes are 8 MB


def test_a_quarter_and_all_rows_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_turns(module: str, peers: list[Peer], rounds: int, number: str) -> memory.Found:
        records = {peer.name: [{"us": int(number) * 1e3, "bytes": 5e6}] for peer in peers}
        records["limit"][0]["us"] /= 1 if number == "1000" else 2  # the verdict is that of all rows
        return {"peers": records, "missing": {}, "failed": {}}

    monkeypatch.setattr(memory, "take_turns", take_turns)
    results = memory.main(1, rows=1000)
    heads, *rows = memory.table(results)
    assert heads == ["rows", "", "seconds", "MB more", "fanin / peer"]
    assert len(rows) == 2 * len(memory.PEERS)
    assert ["1,000", "torch", "1.000 (1.000 to 1.000)", "5.0", "1.000 (1.000 to 1.000)"] in rows
    assert ["250", "limit", "0.125 (0.125 to 0.125)", "", ""] in rows
    assert memory.verdict(results) == ("share of the limit", "at least 0.9", "1.000 (1.000 to 1.000)", "met")
