"""Check symbols: they are trimmed, in upper case, and otherwise as written; only the vendor knows whether they exist.

A symbol is a ticker as Alpaca writes it (``BRK.B``, ``BAC.PRB``), or the ticker of a former owner: ``S@2020-04-01`` is the
security that had the ticker S until the end of that day.
"""

from __future__ import annotations

import re
from datetime import date

from data_engine.errors import InputError

MAX_SYMBOL_LENGTH = 32

_INNER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-/^_=+$*")

_NAMES_OF_CONTROLS = {" ": "a space", "\t": "a tab", "\n": "a line break", "\r": "a line break"}

# Share classes whose letter is often written without its separator. Only for suggestions: symbols are never rewritten.
_GLUED = frozenset({
    "AGMA", "AKOA", "AKOB", "BFA", "BFB", "BIOB", "BRKA", "BRKB", "CRDA", "CRDB", "CWENA", "EBRB", "GEFB", "GTNA", "HEIA",
    "HVTA", "JWA", "JWB", "LENB", "LGFA", "LGFB", "MKCV", "MOGA", "MOGB", "PBRA", "RDSA", "RDSB", "STZB", "TAPA", "UHALB", "WSOB",
})  # fmt: skip


_SERIES, _WARRANT, _UNIT = "PR", "WS", "U"  # Alpaca's suffixes: BAC.PRB, IRRX.WS, IRRX.U

_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"([A-Z]{1,6})p([A-Z]?)"), _SERIES),
    (re.compile(r"([A-Z]{1,6})[-/_ .^]?PR[-/_ .]?([A-Z]?)", re.IGNORECASE), _SERIES),
    (re.compile(r"([A-Z]{1,6})[-/_ .]P([A-Z]?)"), _SERIES),
    (re.compile(r"([A-Z]{1,6})\^([A-Z]?)"), _SERIES),
    (re.compile(r"([A-Z]{1,6})(?:ws|wt|[-/_ .](?:WS|WT|W)|\+)()"), _WARRANT),
    (re.compile(r"([A-Z]{1,6})(?:un?|[-/_ .](?:UN|U)|=)()"), _UNIT),
    (re.compile(r"([A-Z]{1,6})[-/_ ]([A-Z]{1,2})"), ""),
)
"""What other vendors write for preferred shares, warrants, units and share classes, and Alpaca's suffix."""

_WORD = re.compile(r"[A-Z](?!(?:p|r|w|u|un|ws|wt|wi|wd|cl|rt)$)[a-z]+([./_-][A-Za-z])?")  # Aapl; not Tp, a preferred share of T


def check_symbol(text: str) -> str:
    """Return *text* as a canonical symbol: trimmed, in upper case.

    Accepts 1 to 32 ASCII letters, digits and ``. - / ^ _ = + $ *``, the first a letter or digit, without ``..`` and without
    ``.`` or ``/`` at the end, and ``@YYYY-MM-DD`` after them. Nothing is rewritten: ``BRK-B`` stays ``BRK-B``. Capitals and small
    letters together are refused, except in a word such as ``Aapl``: ``BACpB``, a preferred share, is not ``BACPB``.

    Raises:
        InputError: If it cannot be a symbol; the message names it, the reason, and a suggestion.
    """
    fault = symbol_fault(text)
    if fault is not None:
        raise InputError(f"not a symbol: {shortened(text)} {fault}")
    return text.strip().upper()


def ticker_of(symbol: str) -> str:
    """Return the ticker of a canonical symbol: ``S`` for ``S@2020-04-01``."""
    return symbol.partition("@")[0]


def asof_day(symbol: str) -> date | None:
    """Return the last day of a former owner: 2020-04-01 for ``S@2020-04-01``; None for the symbol of the present one."""
    day = symbol.partition("@")[2]
    return date.fromisoformat(day) if day else None


def at_day(symbol: str, asof: date | None) -> str:
    """Return the symbol of the security that had a ticker until the end of a day: the inverse of `ticker_of` and `asof_day`.

    Raises:
        InputError: If the symbol names another day.
    """
    if asof is None or asof_day(symbol) == asof:
        return symbol
    if asof_day(symbol) is not None:
        raise InputError(f"cannot use asof {asof} with {symbol}, which names another day; pass one of them")
    return f"{symbol}@{asof.isoformat()}"


def suggestion(symbol: str) -> str | None:
    """Return Alpaca's spelling of a symbol that is written in another way, or None if there is no suggestion.

    ``BRK-B``, ``BRK/B``, ``BRK_B``, ``BRK B`` and ``BRKB`` all give ``BRK.B``; ``BACpB``, ``BAC-PB``, ``BAC^B`` and ``BAC PRB``
    give ``BAC.PRB``; warrants end with ``.WS``, units with ``.U``.
    """
    text = symbol.strip()
    if not _is_mixed(text):
        text = text.upper()
    for pattern, suffix in _FORMS:
        match = pattern.fullmatch(text)
        if match and (suffix != _SERIES or match[0] != f"{match[1]}PR{match[2]}"):  # a plain ticker may end with these letters
            made = f"{match[1]}.{suffix}{match[2]}".upper()
            return made if made != text else None
    return f"{text[:-1]}.{text[-1]}" if text in _GLUED else None


def _is_mixed(text: str) -> bool:
    """Return whether capitals and small letters mean something: not in a word that begins with a capital."""
    return text not in (text.upper(), text.lower()) and not _WORD.fullmatch(text)


def symbol_fault(text: object) -> str | None:
    """Return why *text* is not a symbol, or None."""
    if not isinstance(text, str):
        return "is not a string"
    symbol = text.strip()
    ticker, _, day = symbol.partition("@")
    reason = _reason(ticker) or (_reason_of_day(day) if "@" in symbol else None)
    meant = suggestion(ticker) if reason else None
    return f"{reason}; did you mean {meant}?" if meant else reason


def _reason(symbol: str) -> str | None:
    if not symbol:
        return "is empty"
    if len(symbol) > MAX_SYMBOL_LENGTH:
        return f"is longer than {MAX_SYMBOL_LENGTH} characters"
    # Before any change of case: some letters outside ASCII have an upper case inside it.
    for char in symbol:
        if char not in _INNER:
            return f"contains {_NAMES_OF_CONTROLS.get(char) or repr(char)}"
    if not symbol[0].isalnum():
        return f"begins with {symbol[0]!r}" if len(symbol) > 1 else "has no letter or digit"
    if ".." in symbol:
        return "contains '..'"
    if symbol[-1] in "./":
        return f"ends with {symbol[-1]!r}"
    return "mixes capitals and small letters" if _is_mixed(symbol) else None


def _reason_of_day(day: str) -> str | None:
    try:
        if len(day) == len("YYYY-MM-DD") and date.fromisoformat(day):
            return None
    except ValueError:
        pass
    return "has no day YYYY-MM-DD after '@'"


def shortened(value: object) -> str:
    """Return a value for a message, shortened if it is long."""
    if isinstance(value, str) and len(value) > 40:
        return f"{value[:40]!r}... ({len(value)} characters)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
