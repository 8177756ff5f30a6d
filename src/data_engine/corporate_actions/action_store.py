"""Read and write the corporate actions of a store: one small JSON file per symbol, replaced whole, under the store's locks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from data_engine.corporate_actions import symbol_actions as codec
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.corporate_actions.ticker_changes import (
    TickerChange,
    TickerChanges,
    change_order,
    may_hold_changes,
    ticker_changes_of,
)
from data_engine.errors import DamagedFile
from data_engine.market.corporate_action import Action
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import symbols_of
from data_engine.version import written_by


class ActionStore:
    """Corporate actions by symbol.

    Args:
        files: The store's files.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def read(self, symbol: str) -> SymbolActions:
        """Return the stored actions of a symbol; none if there is no file.

        Raises:
            DamagedFile: If the file cannot be read as this symbol's. Others are not affected.
        """
        return self._document(symbol).read()

    def known_days(self, symbol: str) -> SymbolActions:
        """Return what `read` does without the actions: the days that are known, and when they were fetched. It is quicker.

        Raises:
            DamagedFile: If the file cannot be read as this symbol's.
        """
        data = self._files.get(codec.key(symbol))
        return SymbolActions(symbol) if data is None else self._document(symbol).parse(codec.without_actions(data))

    def update(self, symbol: str, change: Callable[[SymbolActions], SymbolActions]) -> SymbolActions:
        """Replace the actions of a symbol by what *change* makes of them; if they are equal, nothing is written.

        Raises:
            DamagedFile: If the file cannot be read as this symbol's.
            StoreError: If the file cannot be written.
        """
        return self._document(symbol).update(change)

    def symbols(self) -> list[str]:
        """Return the symbols that have a file, sorted."""
        return symbols_of(self._files.list(codec.FOLDER))

    def changes_of(self, symbol: str) -> tuple[TickerChange, ...]:
        """Return the ticker changes among the actions of one symbol; none if its file cannot be read."""
        data = self._files.get(codec.key(symbol))
        if data is None or not may_hold_changes(data):
            return ()
        try:
            return ticker_changes_of(self._document(symbol).parse(data).counted)
        except DamagedFile:
            return ()

    def ticker_changes(self) -> TickerChanges:
        """Return all ticker changes that are known, and the symbols whose changes cannot be read."""
        found: dict[str, set[TickerChange]] = {}
        unreadable: dict[str, str] = {}
        dropped: set[TickerChange] = set()  # locally, under one of the symbols of the record
        for symbol in self.symbols():
            data = self._files.get(codec.key(symbol))
            # Few files contain one: the others need not be decoded, if they are complete.
            if data is None or (not may_hold_changes(data) and data.startswith(codec.HEAD) and data.endswith(codec.TAIL)):
                continue
            try:
                known = self._document(symbol).parse(data)
            except DamagedFile as error:
                unreadable[symbol] = str(error)
                continue
            counted = set(ticker_changes_of(known.counted))
            dropped |= set(ticker_changes_of(known.actions)) - counted if known.local else set()
            for change in counted:
                for ticker in filter(None, (change.old, change.new)):
                    found.setdefault(ticker, set()).add(change)
        ordered = {symbol: tuple(sorted(made - dropped, key=change_order)) for symbol, made in found.items()}
        return TickerChanges(ordered, unreadable)

    def shared_actions(self) -> dict[str, tuple[Action, ...]]:
        """Return the actions that name several symbols, by the symbol whose file has them; none of files that cannot be read."""
        found: dict[str, tuple[Action, ...]] = {}
        for symbol in self.symbols():
            data = self._files.get(codec.key(symbol))
            if data is not None and may_hold_changes(data):
                with suppress(DamagedFile):
                    found[symbol] = self._document(symbol).parse(data).shared
        return found

    def _document(self, symbol: str) -> Document[SymbolActions]:
        return Document(
            self._files,
            codec.key(symbol),
            f"the corporate actions of {symbol}",
            "remove that file and run `data-engine actions`",
            SymbolActions(symbol),
            load=lambda content: codec.load(content, symbol),
            dump=codec.dump,
            seal=_sealed,
        )


def _sealed(made: SymbolActions) -> SymbolActions:
    return replace(made, by=written_by())
