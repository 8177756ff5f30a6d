"""Find which ranges of a series were covered when a commit changed its bars: `PastCoverage`."""

from __future__ import annotations

from bisect import bisect_left

from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store import coverage_file
from data_engine.store.history.chain import Chain
from data_engine.store.history.revert import earlier


class PastCoverage:
    """What the coverage file of a series said before each commit. Each of its states is made once, when it is asked for.

    Args:
        series: The series.
        content: The file as it is; None if there is none.
        chain: Its history.
    """

    def __init__(self, series: Series, content: bytes | None, chain: Chain) -> None:
        self._series = series
        self._chain = chain
        self._numbers = [link.number for link in reversed(chain.links)]
        self._contents = [content]  # by the number of changes that are undone
        self._covered: dict[int, tuple[TimeRange, ...] | None] = {}

    def covered_before(self, number: int) -> tuple[TimeRange, ...] | None:
        """Return the ranges that were complete and final before a record, without tentative emptiness; None if that is not known.

        Args:
            number: The number of the record.
        """
        undone = len(self._numbers) - bisect_left(self._numbers, number)
        if undone not in self._covered:
            self._covered[undone] = self._read(undone)
        return self._covered[undone]

    def _read(self, undone: int) -> tuple[TimeRange, ...] | None:
        chain = self._chain
        if chain.unknown or (chain.begins is not None and undone == len(chain.links)):
            return None
        try:
            while len(self._contents) <= undone:
                step = chain.links[len(self._contents) - 1].entry.undo
                self._contents.append(earlier(self._contents[-1], (step,)))
            content = self._contents[undone]
            return () if content is None else coverage_file.load(content, self._series, fingerprints=False).trusted
        except ValueError:
            return None
