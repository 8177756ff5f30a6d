"""The history of a store: a line for every run of ``ingest`` and ``update``, in one small file that any JSON reader reads."""

from __future__ import annotations

from data_engine import runs
from data_engine.errors import StoreError
from data_engine.files import FileStore
from data_engine.runs import Run

KEY = "metadata/history/runs.jsonl"


class RunHistory:
    """What the runs of a store asked, got and failed. It is for people: no run depends on it.

    Args:
        files: of the store.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def add(self, run: Run) -> bool:
        """Write down a run, and forget the oldest; return whether that could be done.

        A history that cannot be written is no reason for a run to fail, so nothing of it is raised.
        """
        try:
            return self._files.update(KEY, lambda content: runs.appended(content, run))
        except StoreError:
            return False

    def read(self) -> list[Run]:
        """Return the runs that are remembered, the latest first; none where there is no history.

        Raises:
            StoreError: the file is there and cannot be read at all; single damaged lines are left out.
        """
        return runs.parsed(self._files.get(KEY))
