"""The words for what can be wrong: each has a meaning in the documentation, and no other word is used."""

from __future__ import annotations

import re

import pytest

from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.verify.findings import CONTRADICTIONS, WARNINGS, Finding, contradictions, warnings
from real_data import PROJECT

A = Series("AAPL", Dataset(Timeframe.parse("1Min")))
PAGE = PROJECT / "docs" / "explanation" / "verification.md"


def test_a_code_is_one_or_the_other():
    assert set(CONTRADICTIONS) & set(WARNINGS) == set()
    assert all(re.fullmatch(r"[a-z_]+", code) for code in (*CONTRADICTIONS, *WARNINGS))
    with pytest.raises(ValueError, match="'oops' is no code"):
        Finding("oops", "something")


def test_a_finding_says_what_is_done_about_it():
    bad, odd = Finding("file_missing", "it is gone", A, key="a/b"), Finding("hole", "nothing there")

    assert (bad.is_contradiction, bad.repairable, odd.is_contradiction, odd.repairable) == (True, True, False, False)
    assert (contradictions([bad, odd]), warnings([bad, odd])) == ([bad], [odd])
    assert (str(bad), str(odd)) == ("AAPL in equities_1min: it is gone", "nothing there")
    assert bad.to_json() == {
        "dataset": "equities_1min",
        "symbol": "AAPL",
        "code": "file_missing",
        "message": "it is gone",
        "remedy": CONTRADICTIONS["file_missing"],
        "file": "a/b",
    }
    assert (odd.to_json()["symbol"], odd.to_json()["file"]) == (None, None)


def test_every_code_is_explained_and_none_else():
    rows = re.findall(r"^\| `([a-z_]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)

    assert sorted(rows) == sorted({*CONTRADICTIONS, *WARNINGS})
