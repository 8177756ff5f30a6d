"""The codes of findings: each is explained in the documentation, and no other is."""

from __future__ import annotations

import re

import pytest

from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.verify.findings import INCONSISTENCIES, WARNINGS, Finding
from data_engine.verify.gaps import KINDS
from data_engine.verify.verify import VerificationReport
from real_data import PROJECT

A = Series("AAPL", Dataset(Timeframe.parse("1Min")))
PAGE = PROJECT / "docs" / "explanation" / "verification.md"


def test_a_code_is_either_an_inconsistency_or_a_warning():
    assert set(INCONSISTENCIES) & set(WARNINGS) == set()
    assert all(re.fullmatch(r"[a-z_]+", code) for code in (*INCONSISTENCIES, *WARNINGS))
    with pytest.raises(ValueError, match="'oops'"):
        Finding("oops", "something")


def test_a_finding_has_its_remedy():
    bad, odd = Finding("file_missing", "it is gone", A, key="a/b"), Finding("gap", "nothing there")

    assert (bad.is_inconsistency, bad.repairable, odd.is_inconsistency, odd.repairable) == (True, True, False, False)
    report = VerificationReport(findings=[bad, odd])
    assert (report.inconsistencies, report.warnings) == ([bad], [odd])
    assert (str(bad), str(odd)) == ("AAPL in equities_1min: it is gone", "nothing there")
    assert bad.to_json() == {
        "dataset": "equities_1min",
        "symbol": "AAPL",
        "code": "file_missing",
        "message": "it is gone",
        "remedy": INCONSISTENCIES["file_missing"],
        "file": "a/b",
    }
    assert (odd.to_json()["symbol"], odd.to_json()["file"]) == (None, None)


def test_the_documentation_explains_every_code_and_kind_of_gap_and_no_other():
    rows = re.findall(r"^\| `([a-z_]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)

    assert sorted(rows) == sorted({*INCONSISTENCIES, *WARNINGS, *KINDS})
