"""What lies in a store's folders and is not the store's: files that readers see and nobody counts, leftovers, damaged lists."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.symbol_actions import key as action_key
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.series import Dataset, Series
from data_engine.store import coverage_file as codec
from data_engine.store.bar_store import BarStore
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition, decode_symbol
from data_engine.universe.index_store import MetadataStore
from data_engine.verify.findings import Finding

REFERENCE = re.compile(r"symbol=(?P<symbol>[^/]+)/year=(?P<year>\d{4})/month=(?P<month>[1-9]|1[0-2])/data_?\d+\.parquet")
"""The path of a file below a dataset in the layout of the reference: ``symbol=AAPL/year=2024/month=1/data_0.parquet``."""

SET_ASIDE = "metadata/set_aside"
"""Where a repair puts what it takes out."""

_DRAFTS = "metadata/drafts"

_ALL_HISTORY = "9999-12-31"


def foreign_files(storage: BarStore) -> Iterator[Finding]:
    """Yield what is wrong, or strange, beside the series of a store."""
    files = storage.files
    for name in files.folders(""):
        if name.startswith("equities_"):
            yield from _in_dataset(files, name)
    yield from _in_coverage(files)
    yield from _in_lists(files)
    yield from _in_actions(files)
    yield from _leftovers(files)


def _in_dataset(files: FileStore, name: str) -> Iterator[Finding]:
    """Yield the files of a folder of bars that are no file of bars of ours."""
    try:
        Dataset.from_name(name)
    except ValueError:
        yield Finding("foreign_file", f"{files.location}/{name} is no dataset of a store; nothing here reads it", key=name)
        return
    ours, reference, odd = 0, [], []
    for key in files.list(name):
        if Partition.parse(key) is not None:
            ours += 1
        elif REFERENCE.fullmatch(key.removeprefix(f"{name}/")):
            reference.append(key)
        else:
            odd.append(key)
    if reference and not ours:
        example = f"{files.location}/{reference[0]}"
        yield Finding(
            "reference_layout",
            f"{len(reference):,} files of {name} have the reference's layout ({example}); "
            f"`data-engine import {files.location} --base-path NEW` brings their bars into a store of their own",
            key=name,
        )
        reference = []
    for key in (*reference, *odd):
        if key.endswith(".parquet"):
            why = _why_foreign(key, name)
            text = f"{files.location}/{key} is no file of this store{why}, but readers of the whole dataset see its rows"
            yield Finding("foreign_bars", text, key=key)
        else:
            yield Finding("foreign_file", f"{files.location}/{key} lies among the bars and is none of the store's files", key=key)


def _why_foreign(key: str, name: str) -> str:
    """Return for people what makes a path another than ours."""
    if REFERENCE.fullmatch(key.removeprefix(f"{name}/")):
        return " (the reference names files so)"
    folder = re.match(r"[^/]+/symbol=([^/]+)/", key)
    if folder and Partition.parse(key.replace(folder[1], "A", 1)) is not None:
        twin = codec.key(Series(decode_symbol(folder[1]), Dataset.from_name(name)))
        ours = twin.rsplit("/", 1)[1].removesuffix(".json")
        return f" (its symbol is written {ours} here)"
    return ""


def _in_coverage(files: FileStore) -> Iterator[Finding]:
    for key in files.list("metadata/coverage"):
        parts = key.split("/")
        try:
            symbol = decode_symbol(parts[3].removeprefix("symbol=").removesuffix(".json"))
            expected = codec.key(Series(symbol, Dataset.from_name(parts[2])))
        except (IndexError, ValueError):
            expected = ""
        if key != expected:
            yield Finding("foreign_file", f"{files.location}/{key} is the name of no coverage; nothing here reads it", key=key)


def _in_lists(files: FileStore) -> Iterator[Finding]:
    lists = MetadataStore(files=files)
    for name in lists.names():
        try:
            lists.members(name)
            lists.members(name, _ALL_HISTORY)
        except DamagedFile as error:
            yield Finding("index_damaged", str(error), key=f"metadata/indices/{name}.csv")
        except StoreError as error:
            yield Finding("file_unreadable", str(error), key=f"metadata/indices/{name}.csv")


def _in_actions(files: FileStore) -> Iterator[Finding]:
    books = ActionStore(files)
    for symbol in books.symbols():
        try:
            books.read(symbol)
        except DamagedFile as error:
            yield Finding("actions_damaged", str(error), key=action_key(symbol))
        except StoreError as error:
            yield Finding("file_unreadable", str(error), key=action_key(symbol))


def _leftovers(files: FileStore) -> Iterator[Finding]:
    drafts = [key for key in files.list(_DRAFTS) if key.endswith(".tmp")]
    if drafts:
        text = f"{files.location}/{drafts[0]} is what a killed writer left, or one that is at work ({len(drafts)} in all)"
        yield Finding("drafts_left", text, key=drafts[0])
    aside = list(files.list(SET_ASIDE))
    if aside:
        text = f"{len(aside)} files that a repair took out are in {files.location}/{SET_ASIDE}"
        yield Finding("set_aside", text, key=SET_ASIDE)
