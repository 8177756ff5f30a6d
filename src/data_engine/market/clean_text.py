"""Make text from outside (a server, a file name) fit for a terminal, a log and a file. Pure."""

from __future__ import annotations

import re

MOST_CHARACTERS = 400
"""The length at which a text from outside is cut."""

# Controls of terminals, line and paragraph separators, marks that reverse or hide text, halves of surrogate pairs.
_ODD = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e01ef"
)

_ONE_LINE = re.compile(f"[{_ODD}]")

_LINES = re.compile(f"(?![\n\t])[{_ODD}]")


def clean(text: str, *, most: int | None = None, lines: bool = False) -> str:
    r"""Return a text in which every character shows: ``\x1b`` for what would move a cursor, ``\udc80`` for half a character.

    Args:
        text: The text.
        most: The number of characters to keep, three of four from the beginning and one from the end. If None, all.
        lines: Whether line ends and tabs stay.
    """
    if most is not None and len(text) > most:
        end = most // 4  # messages of ours end in what to do
        text = f"{text[: most - end]} ... ({len(text):,} characters) ... {text[-end:]}"
    return (_LINES if lines else _ONE_LINE).sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(match[0], f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
