"""Check that the lists of a store have their histories, and agree with them."""

from __future__ import annotations

from collections.abc import Iterator

from data_engine.errors import StoreError
from data_engine.market.wording import and_more
from data_engine.store.file_store import FileStore
from data_engine.store.history.store_history import StoreHistory
from data_engine.universe.index_names import name_fault
from data_engine.universe.index_store import MetadataStore
from data_engine.verify.findings import Finding

_FOLDER = "metadata/indices"

_SHOWN = 5


def index_findings(files: FileStore, history: StoreHistory) -> Iterator[Finding]:
    """Yield what is wrong with the lists of a store that can be read.

    Args:
        files: The files of the store.
        history: The history of the store, which tells what files there were.
    """
    lists = MetadataStore(files=files)
    for name in _names(files, lists):
        key, past = f"{_FOLDER}/{name}.csv", f"{_FOLDER}/history/{name}.csv"
        try:
            there, outdated = files.get(past) is not None, lists.outdated(name)
        except StoreError:
            continue  # `unrecognized_files` reports it
        if not there and past in history.links:
            text = (
                f"{files.location}/{past} is gone: the members that had left index {name!r} are not known, nor when others came"
            )
            yield Finding("index_history_missing", text, key=past)
        if outdated:
            text = (
                f"{files.location}/{key} differs from the history of index {name!r}, which is used: {and_more(outdated, _SHOWN)}"
            )
            yield Finding("index_differs", f"{text}; its writer was killed, or it was changed by hand", key=key)


def _names(files: FileStore, lists: MetadataStore) -> list[str]:
    """Return the names of the indices that have a list or a history, sorted."""
    keys = (key.removeprefix(f"{_FOLDER}/history/") for key in files.list(f"{_FOLDER}/history"))
    stems = (key.removesuffix(".csv") for key in keys if key.endswith(".csv") and "/" not in key)
    return sorted({*lists.names(), *(stem for stem in stems if name_fault(stem) is None)})
