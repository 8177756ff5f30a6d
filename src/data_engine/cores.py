"""The cores of this machine, and a place at each for work that does nothing but compute.

Workers wait for the network most of the time, so there are more of them than cores. What computes without waiting (inflating,
decoding, encoding) takes a place first: more threads at once would only be in each other's way, and hold more in memory.
"""

from __future__ import annotations

import os
import threading


def count() -> int:
    """Return how many cores this process may use, at least one."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone; containers and batch systems set it
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


PLACES = threading.BoundedSemaphore(count())
"""One place a core. Whoever holds one neither waits for anything else nor asks for a second."""
