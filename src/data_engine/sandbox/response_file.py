"""Read a file that has the form of a response of the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from data_engine.errors import InputError, MissingFileError

_Made = TypeVar("_Made")


def read_response(path: str | PathLike[str], what: str, endpoint: str, make: Callable[[Any], _Made]) -> _Made:
    """Return what *make* makes of the JSON in a file.

    Args:
        path: The path of the file.
        what: What the file has, for messages.
        endpoint: The path of the endpoint with whose responses it has the form in common.
        make: Makes the value.

    Raises:
        MissingFileError: If there is no such file.
        InputError: If it has another form.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"cannot read {what}: there is no file {file}")
    try:
        return make(json.loads(file.read_bytes()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"cannot read {what}: {file} is not a response of {endpoint}: {error!r}") from error
