"""Read and write the corporate actions of a store: one small JSON file per symbol, replaced whole, under the store's locks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from data_engine.corporate_actions import symbol_actions as codec
from data_engine.corporate_actions.local_actions import LocalChange
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.corporate_actions.ticker_changes import (
    TickerChange,
    TickerChanges,
    change_order,
    may_hold_changes,
    ticker_changes_of,
)
from data_engine.errors import DamagedFile
from data_engine.market.corporate_action import Action, concerned_symbols
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import symbols_of


class ActionStore:
    """Corporate actions by symbol.

    Args:
        files: The store's files.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def read(self, symbol: str) -> SymbolActions:
        """Return the stored actions of a symbol, and the local changes of all symbols that they name; none if there is no file.

        Raises:
            DamagedFile: If the file cannot be read as this symbol's. Others are not affected.
        """
        return self._with_others(self._document(symbol).read())

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
        return self._with_others(self._document(symbol).update(change))

    def symbols(self) -> list[str]:
        """Return the symbols that have a file, sorted."""
        return symbols_of(self._files.list(codec.FOLDER))

    def changes_of(self, symbol: str) -> tuple[TickerChange, ...]:
        """Return the ticker changes among the actions of one symbol; none if its file cannot be read."""
        data = self._files.get(codec.key(symbol))
        if data is None or not may_hold_changes(data):
            return ()
        try:
            return ticker_changes_of(self._with_others(self._document(symbol).parse(data)).counted)
        except DamagedFile:
            return ()

    def ticker_changes(self) -> TickerChanges:
        """Return all ticker changes that are known, and the symbols whose changes cannot be read."""
        books: list[SymbolActions] = []
        unreadable: dict[str, str] = {}
        for symbol in self.symbols():
            data = self._files.get(codec.key(symbol))
            if data is None or _has_none(data):
                continue
            try:
                books.append(self._document(symbol).parse(data))
            except DamagedFile as error:
                unreadable[symbol] = str(error)
        local = {book.symbol: book.local for book in books if book.local}
        found: dict[str, set[TickerChange]] = {}
        for book in books:
            for change in ticker_changes_of(replace(book, elsewhere=local).counted):
                for ticker in filter(None, (change.old, change.new)):
                    found.setdefault(ticker, set()).add(change)
        return TickerChanges({symbol: tuple(sorted(made, key=change_order)) for symbol, made in found.items()}, unreadable)

    def shared_actions(self) -> dict[str, tuple[Action, ...]]:
        """Return the actions that name several symbols, by the symbol whose file has them; none of files that cannot be read."""
        found: dict[str, tuple[Action, ...]] = {}
        for symbol in self.symbols():
            data = self._files.get(codec.key(symbol))
            if data is not None and may_hold_changes(data):
                with suppress(DamagedFile):
                    found[symbol] = self._document(symbol).parse(data).shared
        return found

    def _with_others(self, known: SymbolActions) -> SymbolActions:
        """Return the actions of a symbol with the local changes of the others that they name: one view for every reader."""
        others = {name for action in known.shared for name in concerned_symbols(action.kind, action.record)} - {known.symbol}
        elsewhere = {name: self._local(name) for name in others}
        return replace(known, elsewhere=elsewhere) if any(elsewhere.values()) else known

    def _local(self, symbol: str) -> tuple[LocalChange, ...]:
        """Return the local changes of a symbol; none if its file cannot be read, which is a matter of that symbol's."""
        data = self._files.get(codec.key(symbol))
        if data is None or codec.LOCAL not in data:
            return ()
        with suppress(DamagedFile):
            return self._document(symbol).parse(codec.without_actions(data)).local
        return ()

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
    from data_engine.version import written_by

    return replace(made, by=written_by())


def _has_none(data: bytes) -> bool:
    """Return whether a complete file has neither a ticker change nor a local change: most do, and need not be decoded."""
    return not may_hold_changes(data) and codec.LOCAL not in data and data.startswith(codec.HEAD) and data.endswith(codec.TAIL)
