"""Recognize a secret in text, however a server encoded it. Pure."""

from __future__ import annotations

import base64
import re
from functools import lru_cache

_UNSEEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_BETWEEN = (
    r"(?:\x00|\\{1,8}x00|\\{1,8}u0000|%(?:25){0,4}00|&#x?0{1,8};|\ufffd|"
    rf"[\s{_UNSEEN}]|\\{{1,8}}(?:[nrt]|u200[b-d]|u2060|ufeff|u00ad)|%(?:25){{0,4}}(?:20|09|0[aAdD])){{0,6}}"
)
"""What may stand between two characters: the halves of UTF-16 or UTF-32, read as bytes, white space of a text that was wrapped,
and characters that nobody sees. Bounded, so that time is linear."""

_SHORTEST = 8  # a shorter one is no key of Alpaca's, and its encodings are in many words


@lru_cache(maxsize=16)
def echoes(*secrets: str) -> re.Pattern[str]:
    """Return what matches any of some secrets.

    They may be plain, wrapped, with escapes of JSON, JavaScript, Python, HTML or URLs, in hex, Base64, UTF-16 or UTF-32.
    """
    forms = [form for secret in secrets if secret for form in _forms(secret)]
    return re.compile("|".join(forms) or r"(?!)")


_ESCAPES = ("\\", "&#", "%", "\0", "\ufffd", "\n", *_UNSEEN)
"""What a text has in it if characters are written in another way."""


def echoed(text: str, *secrets: str) -> bool:
    """Tell whether any of some secrets occurs in a text; quick where nothing in the text is escaped."""
    if any(mark in text for mark in _ESCAPES):
        return echoes(*secrets).search(text) is not None
    return any(form in text for secret in secrets if secret for form in _unescaped(secret))


@lru_cache(maxsize=16)
def _unescaped(secret: str) -> tuple[str, ...]:
    numbers = secret.encode().hex()
    long = (numbers, numbers.upper(), *_base64(secret.encode())) if len(secret) >= _SHORTEST else ()
    return (secret, *long)


def _forms(secret: str) -> list[str]:
    if len(secret) < _SHORTEST:
        return [re.escape(secret)]
    plain = _BETWEEN.join(map(_character, secret))
    numbers = "".join(f"[{digit.lower()}{digit.upper()}]" if digit.isalpha() else digit for digit in secret.encode().hex())
    return [plain, numbers, *map(re.escape, _base64(secret.encode()))]


def _character(char: str) -> str:
    """Return what matches a character of ASCII in any of the usual escapes."""
    code = ord(char)
    number = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:02x}")
    escape = r"\\{1,8}"
    html = rf"&#0{{0,8}}{code};?|&#[xX]0{{0,8}}{number};?"
    codes = rf"{escape}u00{number}|{escape}u\{{0{{0,6}}{number}\}}|{escape}x{number}|{escape}0?{code:o}|%(?:25){{0,4}}{number}"
    return rf"(?:\\{{0,8}}{re.escape(char)}|{codes}|{html})"


def _base64(secret: bytes) -> set[str]:
    """Return the parts of the Base64 of any text with the secret in it that do not depend on what surrounds it."""
    parts = set()
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret).decode()
        part = text[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        parts |= {part, part.translate(str.maketrans("+/", "-_"))}
    return parts
