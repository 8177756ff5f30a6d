"""The tree of errors: as drawn, under one root, each with a word for machines and an exit code."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re

import pytest

import data_engine
from data_engine import errors
from data_engine.errors import DataEngineError, InvalidSymbol, RequestRefused

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, DataEngineError)}


def drawn() -> dict[str, str | None]:
    """Read the tree in the module's docstring: the parent of each class."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if match:
            while path and path[-1][0] >= len(match[1]):
                path.pop()
            parents[match[2]] = path[-1][1] if path else None
            path.append((len(match[1]), match[2]))
    return parents


def drawn_exit_codes() -> dict[str, int]:
    found = re.findall(r"([A-Z]\w+) .*\(exit (\d+)\)", errors.__doc__ or "")
    return {name: int(code) for name, code in found}


def test_the_tree_is_as_drawn():
    ours = {
        name: next((base.__name__ for base in kind.__bases__ if base.__name__ in CLASSES), None) for name, kind in CLASSES.items()
    }

    assert ours == drawn()


def test_exit_codes_are_as_drawn_and_inherited():
    own = {name: kind.exit_code for name, kind in CLASSES.items()}
    parents, expected = drawn(), drawn_exit_codes()
    for name in parents:
        expected.setdefault(name, expected.get(parents[name] or "", 1))

    assert own == expected


def test_exit_codes_of_the_contract():
    codes = {
        "InputError": 2, "CredentialsRefused": 3, "StoreError": 4, "ServiceDown": 6, "SourceUnavailable": 6, "StoreBusy": 7,
        "Interrupted": 130,
    }  # fmt: skip

    assert codes == {name: CLASSES[name].exit_code for name in codes}


def test_codes_are_words_for_machines():
    assert [name for name, kind in CLASSES.items() if not re.fullmatch(r"[a-z][a-z_]*", kind.code)] == []


def test_every_error_of_the_package_descends_from_the_root():
    strangers = []
    for module in pkgutil.walk_packages(data_engine.__path__, "data_engine."):
        if module.name.endswith("__main__"):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            if not inspect.isclass(kind) or not kind.__module__.startswith("data_engine"):
                continue
            if issubclass(kind, BaseException) and not issubclass(kind, (DataEngineError, Warning)):
                strangers.append(f"{module.name}.{name}")

    assert strangers == []


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InputError", ValueError), ("MissingFileError", FileNotFoundError), ("UnknownIndexError", KeyError),
        ("Interrupted", KeyboardInterrupt),
    ],
)  # fmt: skip
def test_errors_that_python_has_a_word_for_are_that_too(name, builtin):
    with pytest.raises(builtin):
        raise CLASSES[name]("told")


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "InvalidSymbol"])
def test_an_error_reads_as_its_sentence(name):
    sentence = "no 'such' file: naïve.csv"

    assert str(CLASSES[name](sentence)) == sentence


def test_an_invalid_symbol_says_which():
    error = InvalidSymbol("BRK-B")

    assert (str(error), error.symbol, error.status) == ("invalid symbol: BRK-B", "BRK-B", 400)


def test_a_refused_request_keeps_its_status():
    assert (RequestRefused("no").status, RequestRefused("no", status=422).status) == (400, 422)


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_survives_the_way_between_processes(name):
    error = CLASSES[name]("AAPL")
    again = pickle.loads(pickle.dumps(error))

    assert (type(again), vars(again)) == (type(error), vars(error))


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_read_back_says_the_same(name):
    error = CLASSES[name]("AAPL")

    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_report_is_attached_where_there_is_one():
    assert DataEngineError("told").report is None
