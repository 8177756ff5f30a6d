"""Import the index lists of a folder that the legacy pipeline wrote."""

from __future__ import annotations

from pathlib import Path

from data_engine.errors import DataEngineError
from data_engine.ingest.file_import import ImportReport
from data_engine.store.file_store import FileStore
from data_engine.store.local_files import LocalFiles
from data_engine.universe.index_store import MetadataStore


def import_lists(files: FileStore, folder: Path | str, report: ImportReport, *, dry_run: bool = False) -> None:
    """Store the lists below ``metadata/indices`` of a folder, with the days on which symbols were added, and their past.

    The past of a list without a history begins on the last of these days: who left before is not known. A list of the store
    keeps its members, now and in the past; the report names those of the folder that differ.

    Args:
        files: The files of the store; the caller has locked it against other runs.
        folder: The folder.
        report: What is told of the lists.
        dry_run: Whether to read everything and write nothing.
    """
    theirs, ours = MetadataStore(files=LocalFiles(Path(folder))), MetadataStore(files=files)
    for name in theirs.names():
        try:
            members, past = theirs.members(name), theirs.history(name)
            if name in ours.names():
                if list(ours.members(name)) != list(members) or ours.history(name) != past:
                    report.lists_kept.append(name)
                continue
            if not dry_run:
                ours.adopt(name, theirs)
            report.lists.append(name)
        except DataEngineError as error:
            report.failed.append((f"{folder}/metadata/indices/{name}.csv", str(error)))
