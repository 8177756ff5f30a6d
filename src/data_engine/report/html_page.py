"""Write an `Overview` as one self-contained HTML file.

Text from the store is in the file as base64, and its script shows it as text, never as markup. The content security policy allows
only this style and this script, by their digests, and no request.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256
from importlib import resources
from pathlib import Path
from uuid import uuid4

from data_engine.errors import InputError
from data_engine.report.contents import Overview
from data_engine.store.location import check_out

MARK = "<!doctype html>\n<!-- made by data-engine report -->\n"
"""The first bytes of a report; a file that begins otherwise is not replaced."""

_STYLE = "page.css"

_PROGRAM = ("data.js", "text.js", "heatmap.js", "chart.js", "tables.js", "history.js", "page.js")


def render(overview: Overview) -> str:
    """Return the HTML text of an overview."""
    style = _asset(_STYLE)
    program = '"use strict";\n(() => {\n' + "\n".join(map(_asset, _PROGRAM)) + "})();\n"
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(program)}; base-uri 'none'; form-action 'none'"
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = json.dumps(overview.head(), separators=(",", ":")).encode()
    blocks = [b64encode(squeeze.compress(head) + squeeze.flush()).decode("ascii")]
    blocks += [",".join(texts) for texts in overview.candles()]
    data = "".join(f'<script type="text/plain" class="data">{block}</script>\n' for block in blocks)
    parts = {"POLICY": policy, "STYLE": style, "PROGRAM": program, "DATA": data}
    page = _asset("page.html")
    for name, text in parts.items():
        before, after = page.split(f"@{name}@")
        page = before + text + after
    return MARK + page


def check_target(path: Path, store: Path | None) -> Path:
    """Return the absolute path of a report that may be written.

    Args:
        path: The path of the report.
        store: The directory of the store. If None, the store is not on a local disk.

    Raises:
        InputError: If it is a directory, has no parent directory, lies in the store, or is another file.
    """
    path = path.absolute()
    check_out(path, store)
    try:
        if path.exists() and not path.read_bytes()[: len(MARK)] == MARK.encode():
            raise InputError(f"cannot replace {path}: not a report of data-engine; pass another --out")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; pass another --out") from error
    return path


def save(page: str, path: Path) -> int:
    """Write a report atomically, replacing an older one, and return its size in bytes.

    Raises:
        InputError: If it cannot be written.
    """
    content = page.encode()
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}; pass another --out") from error
    return len(content)


def _asset(name: str) -> str:
    return resources.files("data_engine.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}'"
