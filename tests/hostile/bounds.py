"""How long a hostile file may take, and how much memory."""

import time
from contextlib import contextmanager, suppress


def resident(reset=False):
    """The largest resident memory, in bytes, since the last reset where the kernel has one."""
    if reset:
        with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


@contextmanager
def bounded(seconds=2.0, size=64 * 2**20):
    """The block must take less time of the processor than this, and fewer bytes."""
    before, start = resident(reset=True), time.process_time()
    yield
    assert time.process_time() - start < seconds
    assert resident() - before < size
