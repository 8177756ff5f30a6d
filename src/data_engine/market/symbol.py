"""What a symbol is: trimmed, upper case, and otherwise as it was written; whether it exists is for the vendor to say. Pure."""

from __future__ import annotations

import re

from data_engine.errors import InputError

MAX_SYMBOL_LENGTH = 32

_INNER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-/^_=+$*")

_NAMES_OF_CONTROLS = {" ": "a space", "\t": "a tab", "\n": "a line break", "\r": "a line break"}

# Share classes whose letter is often written without its separator. Only used to guess what was meant, never to rewrite.
_GLUED = frozenset({
    "AGMA", "AKOA", "AKOB", "BFA", "BFB", "BIOB", "BRKA", "BRKB", "CRDA", "CRDB", "CWENA", "EBRB", "GEFB", "GTNA", "HEIA",
    "HVTA", "JWA", "JWB", "LENB", "LGFA", "LGFB", "MKCV", "MOGA", "MOGB", "PBRA", "RDSA", "RDSB", "STZB", "TAPA", "UHALB", "WSOB",
})  # fmt: skip


def check_symbol(text: str) -> str:
    """Return *text* as a canonical symbol: trimmed, in upper case.

    Accepts what could be a symbol somewhere: 1 to 32 ASCII letters, digits and ``. - / ^ _ = + $ *``, the first a letter or
    digit, without ``..`` and without ``.`` or ``/`` at the end. Nothing is rewritten: ``BRK-B`` stays ``BRK-B``.

    Raises:
        InputError: it cannot be a symbol; the message names it, says why, and what was probably meant.
    """
    fault = _fault(text)
    if fault is not None:
        raise InputError(f"not a symbol: {_shown(text)} {fault}")
    return text.strip().upper()


def suggestion(symbol: str) -> str | None:
    """Return what was probably meant by a share class not written Alpaca's way, or None where there is no such guess.

    ``BRK-B``, ``BRK/B``, ``BRK_B``, ``BRK B`` and ``BRKB`` all give ``BRK.B``.
    """
    text = symbol.strip().upper()
    match = re.fullmatch(r"([A-Z]{1,5})[-/_ ]([A-Z]{1,2})", text)
    if match:
        return f"{match[1]}.{match[2]}"
    return f"{text[:-1]}.{text[-1]}" if text in _GLUED else None


def _fault(text: object) -> str | None:
    """Say why *text* is not a symbol, or return None."""
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
    # Before any change of case: the upper case of some letters that are not ASCII is.
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


def _shown(value: object) -> str:
    """Write a value for a message, shortened where it is long."""
    if isinstance(value, str) and len(value) > 40:
        return f"{value[:40]!r}... ({len(value)} characters)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
