"""Check symbols: they are trimmed, in upper case, and otherwise as written; only the vendor knows whether they exist."""

from __future__ import annotations

import re

from data_engine.errors import InputError

MAX_SYMBOL_LENGTH = 32

_INNER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-/^_=+$*")

_NAMES_OF_CONTROLS = {" ": "a space", "\t": "a tab", "\n": "a line break", "\r": "a line break"}

# Share classes whose letter is often written without its separator. Only for suggestions: symbols are never rewritten.
_GLUED = frozenset({
    "AGMA", "AKOA", "AKOB", "BFA", "BFB", "BIOB", "BRKA", "BRKB", "CRDA", "CRDB", "CWENA", "EBRB", "GEFB", "GTNA", "HEIA",
    "HVTA", "JWA", "JWB", "LENB", "LGFA", "LGFB", "MKCV", "MOGA", "MOGB", "PBRA", "RDSA", "RDSB", "STZB", "TAPA", "UHALB", "WSOB",
})  # fmt: skip


def check_symbol(text: str) -> str:
    """Return *text* as a canonical symbol: trimmed, in upper case.

    Accepts 1 to 32 ASCII letters, digits and ``. - / ^ _ = + $ *``, the first a letter or digit, without ``..`` and without
    ``.`` or ``/`` at the end. Nothing is rewritten: ``BRK-B`` stays ``BRK-B``.

    Raises:
        InputError: If it cannot be a symbol; the message names it, the reason, and a suggestion.
    """
    fault = symbol_fault(text)
    if fault is not None:
        raise InputError(f"not a symbol: {shortened(text)} {fault}")
    return text.strip().upper()


def suggestion(symbol: str) -> str | None:
    """Return Alpaca's spelling of a share class that is written in another way, or None if there is no suggestion.

    ``BRK-B``, ``BRK/B``, ``BRK_B``, ``BRK B`` and ``BRKB`` all give ``BRK.B``.
    """
    text = symbol.strip().upper()
    match = re.fullmatch(r"([A-Z]{1,5})[-/_ ]([A-Z]{1,2})", text)
    if match:
        return f"{match[1]}.{match[2]}"
    return f"{text[:-1]}.{text[-1]}" if text in _GLUED else None


def symbol_fault(text: object) -> str | None:
    """Return why *text* is not a symbol, or None."""
    if not isinstance(text, str):
        return "is not a string"
    symbol = text.strip()
    reason = _reason(symbol)
    meant = suggestion(symbol) if reason else None
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
    return None


def shortened(value: object) -> str:
    """Return a value for a message, shortened if it is long."""
    if isinstance(value, str) and len(value) > 40:
        return f"{value[:40]!r}... ({len(value)} characters)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
