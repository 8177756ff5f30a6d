"""Estimate how many pages a run takes, from its plan and from what has come of the tasks that are done. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class PageEstimate:
    """How many pages tasks take in all; what is left is scaled by what finished tasks took.

    Args:
        before: The number of pages received before the first of these tasks.
        tasks: The planned number of pages of each task.
    """

    def __init__(self, before: int = 0, tasks: Iterable[int] = ()) -> None:
        self._before = before
        self._waiting = sum(tasks)
        self._running: list[int] = []
        self._done = self._came = 0

    def start(self, planned: int) -> None:
        """Count a task as begun.

        Args:
            planned: Its planned number of pages.
        """
        self._waiting -= planned
        self._running.append(planned)

    def restart(self, planned: int) -> None:
        """Count a task that was begun as waiting again."""
        self._running.remove(planned)
        self._waiting += planned

    def finish(self, planned: int, pages: int) -> None:
        """Count a task as done.

        Args:
            planned: Its planned number of pages.
            pages: The number of pages it took; a task without any was not requested, and tells nothing about the others.
        """
        self._running.remove(planned)
        self._came += pages
        self._done += planned if pages else 0

    def expected(self, pages: int) -> int:
        """Return how many pages come in all; *pages* if tasks are left and their planned pages have come already.

        Args:
            pages: The number of pages received so far.
        """
        scale = self._came / self._done if self._done else 1.0
        of_running = scale * sum(self._running) - (pages - self._before - self._came)
        least = len(self._running)  # each has one page to come, or to be stored
        if not self._waiting and of_running < -least:
            return pages
        return pages + round(max(of_running, least) + scale * self._waiting)
