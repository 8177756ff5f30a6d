"""One HTML file that shows an `Overview`: everything is inside, nothing is loaded, and no text of the store is markup.

All text of the store goes into the page as base64, and the page's program puts it on the screen as text, never as markup. The
page's policy allows the one style and the one program that it was made with, by their digests, and no request at all.
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
"""How our pages begin: what begins otherwise is not overwritten."""

_STYLE = "page.css"

_PROGRAM = ("data.js", "text.js", "heatmap.js", "chart.js", "tables.js", "page.js")


def render(overview: Overview) -> str:
    """Return the page."""
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
    """Return where a page is to be written, made absolute.

    Args:
        path: of the page.
        store: the folder of the store, where it is one.

    Raises:
        InputError: a folder, a place in a folder that is not there or in the store, or a file that is no page of ours.
    """
    path = path.absolute()
    check_out(path, store)
    try:
        if path.exists() and not path.read_bytes()[: len(MARK)] == MARK.encode():
            raise InputError(f"--out {path} is there already, and is no page of data-engine; name another file")
    except OSError as error:
        raise InputError(f"--out {path} cannot be read: {error.strerror}") from error
    return path


def save(page: str, path: Path) -> int:
    """Write a page, and return how many bytes it has. An older one is replaced by a whole new one.

    Raises:
        InputError: it cannot be written.
    """
    content = page.encode()
    draft = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise InputError(f"--out {path} cannot be written: {error.strerror}") from error
    return len(content)


def _asset(name: str) -> str:
    return resources.files("data_engine.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}'"
