"""Check the history of a store: that its records can be read, and that they explain what the files are."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from data_engine.errors import StoreError
from data_engine.market.wording import and_more, plural
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.history.chain import Chain
from data_engine.store.history.record import recorded_folders
from data_engine.store.history.revert import earlier
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.partitions import Partition
from data_engine.verify.findings import Finding


def history_findings(
    files: FileStore, known: Collection[Finding], *, quick: bool, history: StoreHistory | None = None
) -> Iterator[Finding]:
    """Yield what is wrong with the history of a store.

    Args:
        files: The files of the store.
        known: What else is wrong: that a file is not what it was, or a series is not counted, is said once.
        quick: Whether to read only the records, not the files that they are about.
        history: The records, if they were read already.
    """
    history = history or StoreHistory(files)
    last = history.last_number
    for key in history.incomplete:
        if key == history.damaged or history.is_before(key, last):  # the last one may be of a writer that is at it
            yield Finding("history_damaged", f"cannot read {key}, a part of the history", key=key)
    if quick or history.begins is None:
        return
    told = {finding.key for finding in known} | {finding.series for finding in known}
    unexplained: list[str] = []
    present = (key for folder in recorded_folders(files.folders("")) for key in files.list(folder))
    for key in sorted({*history.links, *present}):
        try:
            content, chain = history.present(key)
        except StoreError:
            continue  # which the check of the file itself reports
        partition = Partition.parse(key)
        if chain.unknown and key not in told and (partition is None or partition.series not in told):
            unexplained.append(key)
        elif chain.links:
            yield from _contradiction(key, content, chain)
    if unexplained:
        text = f"no record of the history explains {plural(len(unexplained), 'file')}: {and_more(unexplained, 3)}"
        yield Finding("history_ends", text, key=unexplained[0])


def _contradiction(key: str, content: bytes | None, chain: Chain) -> Iterator[Finding]:
    """Go back through all changes of a file, and compare what it then was with what the first of them says."""
    links = chain.links if chain.begins is None else chain.links[:-1]  # what it was before that is not known
    if not links:
        return
    first = links[-1].entry.before
    try:
        found = earlier(content, [link.entry.undo for link in links])
    except ValueError as error:
        yield Finding("history_damaged", f"cannot go back through the changes of {key}: {error}", key=key)
        return
    same = (found is None) == (first is None)
    if not same or (found is not None and first is not None and not key.endswith(".parquet") and Fingerprint.of(found) != first):
        yield Finding("history_damaged", f"the records of {key} do not lead back to what it was", key=key)
