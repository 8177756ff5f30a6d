"""Break off requests that take too long, from outside: a server can keep whoever reads from it, and not another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_IDLE_SECONDS = 5.0


class Breakable(Protocol):
    """What can be broken off.

    Attributes:
        late: Whether it took too long.
    """

    late: bool

    def break_off(self) -> None:
        """End it at once."""


class Watch:
    """Breaks off calls at their time, in one thread, which ends when there has been no call for a while."""

    def __init__(self) -> None:
        self._due: dict[int, tuple[float, Breakable]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, call: Breakable, seconds: float) -> Iterator[None]:
        """Break off *call* if the block takes longer than *seconds*."""
        due = time.monotonic() + seconds
        with self._changed:
            earliest = all(due < other for other, _ in self._due.values())
            self._due[id(call)] = due, call
            if self._thread is None or not self._thread.is_alive():  # a forked child has none of the threads of its parent
                self._thread = threading.Thread(target=self._run, name="time limit", daemon=True)
                self._thread.start()
            elif earliest:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._due.pop(id(call), None)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._due and not self._changed.wait(_IDLE_SECONDS) and not self._due:
                    self._thread = None
                    return
                now = time.monotonic()
                late = [key for key, (due, _) in self._due.items() if due <= now]
                calls = [self._due.pop(key)[1] for key in late]
                if not calls:
                    self._changed.wait(min((due for due, _ in self._due.values()), default=now) - now)
            for call in calls:
                call.late = True
                call.break_off()


WATCH = Watch()
"""The watch of this process."""
