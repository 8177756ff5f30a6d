"""The cores of this machine, and a place at each for work that does nothing but compute.

Workers wait for the network most of the time, so there are more of them than cores. What computes without waiting (inflating,
decoding, encoding) takes a place first: more threads at once would only be in each other's way, and hold more in memory.
"""

from __future__ import annotations

import os
from queue import SimpleQueue


def count() -> int:
    """Return how many cores this process may use, at least one."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone; containers and batch systems set it
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


class CpuSlots:
    """One place a core, to be taken with ``with``.

    Whoever holds one waits for nobody who could want one, and asks for no second.
    """

    def __init__(self) -> None:
        self._renew()
        # A child that is forked has the threads of its parent no more, but would still count the places that they held.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._places = count()
        # Not a semaphore, which is written in Python: several places are taken for every page.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._places):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        if self._free.qsize() < self._places:  # a child that was forked meanwhile has all its places already
            self._free.put(None)


CPU_SLOTS = CpuSlots()
"""Those of this process."""
