"""Keep simulated bars and Alpaca's apart: a store is filled from a server on this machine, or from one that is not.

``metadata/source.txt`` has the address that the first run of a store requested bars from.
"""

from __future__ import annotations

from data_engine.alpaca.credentials import is_loopback_url
from data_engine.errors import ConfigError
from data_engine.store.file_store import FileStore

DEMO = "metadata/simulated.txt"
"""The file with which `data-engine demo` marks its store."""

SOURCE = "metadata/source.txt"
"""The file with the address that a store is filled from."""


def check_source(files: FileStore, url: str | None) -> None:
    """Refuse to fill a store from Alpaca whose bars are those of a local server, and the other way round.

    Args:
        files: The files of the store.
        url: The address that bars are to be requested from; None is a client's own, which is not judged.

    Raises:
        ConfigError: If the bars of the store are of the other kind. Nothing was sent or written.
    """
    if url is None:
        return
    if files.get(DEMO) is not None:
        key, address, local = DEMO, "", True
    elif (recorded := files.get(SOURCE)) is not None:
        key, address = SOURCE, recorded.decode(errors="replace").strip()
        local = is_loopback_url(address)
    else:
        return
    if local == is_loopback_url(url):
        return
    if local:
        held = f"are from {address}, a server on this machine" if address else "are simulated: `data-engine demo` made it"
        remedy = "pass another store with --base-path, or set APCA_API_DATA_URL to a sandbox"
        wrong = "if these are Alpaca's bars"
    else:
        held = f"are from {address}"
        remedy = "pass another store with --base-path, or unset APCA_API_DATA_URL"
        wrong = "if that server passes on Alpaca's bars"
    raise ConfigError(f"cannot fetch from {url} into store {files.location}: its bars {held}; {remedy}; delete {key} {wrong}")


def record_source(files: FileStore, url: str | None) -> str | None:
    """Write the address that a store is filled from, if none is written; return a note if its bars may be from elsewhere.

    Bars without a record were imported, stored, or fetched by an older version. From now on, the store also has bars from this
    address, so that it is what decides.

    Args:
        files: The files of the store; the caller has its lock.
        url: The address; None is a client's own, which is not recorded.

    Raises:
        StoreError: If the store cannot be written.
    """
    if url is None or files.get(SOURCE) is not None:
        return None
    unknown = bool(files.folders("metadata/coverage")) and files.get(DEMO) is None
    files.update(SOURCE, lambda known: f"{url}\n".encode() if known is None else known)
    if not unknown or not is_loopback_url(url):
        return None
    return (
        f"The store has bars of unknown source, and now takes bars from {url}, a server on this machine; "
        f"runs that fetch from Alpaca are refused from now on: delete {SOURCE} if that server passes on Alpaca's bars"
    )
