"""What the benchmark commands measure with: seconds of runs taken in turn, and the memory that a process held."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

STATUS = Path("/proc/self/status")


class Taken(NamedTuple):
    """Seconds that a run took."""

    clock: float
    processor: float  # of all of this process's threads


def time_in_turn(functions: Sequence[Callable[[], object]], turns: int) -> list[list[Taken]]:
    """What each run of each function took, one after the other, after one turn that is not counted."""
    taken: list[list[Taken]] = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, kept in zip(functions, taken, strict=True):
            clock, processor = time.perf_counter(), time.process_time()
            function()
            if turn:
                kept.append(Taken(time.perf_counter() - clock, time.process_time() - processor))
    return taken


def peak_memory() -> float:
    """MB that this process has held at most; 0 where the system does not tell."""
    if STATUS.exists():  # Linux's getrusage begins with what the parent held when it started this process
        return status_megabytes("VmHWM")
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes, on macOS


def status_megabytes(entry: str) -> float:
    """An entry of this process's STATUS, in MB."""
    found = re.search(rf"^{entry}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
