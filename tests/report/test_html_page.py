"""The report as a file: it is self-contained, loads nothing, and no text of the store is markup."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from datetime import date
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_engine.errors import InputError
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Dataset, Timeframe
from data_engine.market.time_range import new_york_days
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.report.contents import overview_of
from data_engine.report.html_page import MARK, check_target, render, save
from data_engine.store.selection import DatasetFilter
from pages import ATTACK, NOW, blocks_of, head_of, make_store, put
from running import here


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = make_store(tmp_path_factory.mktemp("html") / ATTACK.replace("/", "-").strip())
    return render(overview_of(storage.bars, DatasetFilter(), now=NOW, by="data-engine test"))


class Elements(HTMLParser):
    """All start tags of a page, by another parser than ours."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_no_text_of_the_store_is_in_the_page_but_as_base64(page: str) -> None:
    head = head_of(page)

    assert ATTACK.replace("/", "-").strip() in head["store"]
    assert head["runs"][0]["error"] == ["refused", ATTACK]
    assert "hacked" not in page
    assert "AAPL" not in page
    assert all(re.fullmatch(r"[A-Za-z0-9+/=,]*", block) for block in blocks_of(page))
    scripts = [attributes for tag, attributes in Elements(page).tags if tag == "script"]
    assert scripts == [{"type": "text/plain", "class": "data"}] * len(blocks_of(page)) + [{}]


def test_nothing_is_loaded_and_only_its_own_script_runs(page: str) -> None:
    tags = Elements(page).tags
    policy = next(one["content"] for tag, one in tags if one.get("http-equiv") == "Content-Security-Policy") or ""
    program = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)

    assert [tag for tag, one in tags if "src" in one or (tag == "link")] == []
    assert {one["href"] for tag, one in tags if tag == "a"} == {"#coverage", "#chart", "#flags", "#history", "#runs"}
    assert [name for _, one in tags for name in one if name.startswith("on") or name == "style"] == []
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in (*style, *program)]
    assert policy == f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; base-uri 'none'; form-action 'none'"
    without_data = re.sub(r'class="data">[^<]*<', "", page)
    assert re.findall(r"(?:https?|wss?):|//[a-z]|url\(|@import", without_data) == []


def test_the_program_makes_no_markup_of_text(page: str) -> None:
    (program,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)

    assert (
        re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|fetch\(|XMLHttp|import\(", program
        )
        == []
    )


def test_a_page_is_replaced_and_nothing_else(tmp_path: Path, page: str) -> None:
    path = check_target(tmp_path / "page.html", None)
    assert save(page, path) == len(page.encode()) == path.stat().st_size
    assert save(MARK, check_target(path, None)) == len(MARK)
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]

    (tmp_path / "thesis.html").write_text("<!doctype html>\n<p>Years of work")
    for wrong, text in (
        (tmp_path, str(tmp_path)),
        (tmp_path / "nowhere" / "page.html", "nowhere"),
        (tmp_path / "thesis.html", "thesis.html"),
    ):
        with pytest.raises(InputError, match=re.escape(text)):
            check_target(wrong, None)


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    path = tmp_path / "gone" / "page.html"
    (tmp_path / "gone").rmdir()

    with pytest.raises(InputError, match="gone"):
        save(MARK, path)


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_report_and_prints_its_path(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}

    ran = here("report", "--base-path", "store")
    quick = here("report", "AAPL", "--minutes", "0", "--quick", "--out", "other.html", "--json", "--base-path", "store")

    path = tmp_path / "data-engine-report.html"
    assert ran.code == 0, ran.text
    assert ran.out.splitlines()[0].startswith(f"{path}  ")
    head = head_of(path.read_text())
    assert len(head["datasets"]) == 2
    assert quick.json == {
        "report": str(tmp_path / "other.html"),
        "bytes": (tmp_path / "other.html").stat().st_size,
        "series": 2,
        "inconsistencies": quick.json["inconsistencies"],
        "warnings": quick.json["warnings"],
        "gaps": None,
        "runs": 2,
        "quick": True,
    }
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("NVDA",), 2, "NVDA"),
        (("A;B",), 2, "A;B"),
        (("--timeframe", "2Fortnight"), 2, "2Fortnight"),
        (("--minutes", "-1"), 2, "--minutes"),
        (("--out", "."), 2, "--out"),
        (("--out", "store/page.html"), 2, "page.html"),
        (("--out", "no/page.html"), 2, "page.html"),
        (("--out", "settings.toml"), 2, "settings.toml"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path: Path, words: tuple[str, ...], code: int, text: str) -> None:
    make_store(tmp_path / "store")
    (tmp_path / "settings.toml").write_text("[a]\n")

    ran = here("report", *words, "--base-path", "store")

    assert (ran.code, text in ran.err, "Traceback" in ran.err, ran.out) == (code, True, False, ""), ran.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.toml", "store"]


def test_a_store_without_series_has_a_page_too(tmp_path: Path) -> None:
    ParquetStorage(tmp_path / "store").files.update("metadata/indices/x.csv", lambda _: b"symbol,added_date\nA,2024-01-01\n")

    ran = here("report", "--base-path", "store")

    assert ran.code == 0, ran.text
    assert head_of((tmp_path / "data-engine-report.html").read_text())["datasets"] == []


DAYS = Dataset(Timeframe.parse("1Day"))


def holed(tmp_path: Path) -> ParquetStorage:
    """Return a store where all of May 2024 is requested: A has it, B has its first week."""
    storage = ParquetStorage(tmp_path / "store")
    month, week = new_york_days(date(2024, 5, 1), date(2024, 5, 31)), new_york_days(date(2024, 5, 1), date(2024, 5, 7))
    put(storage, "A", DAYS, list(sessions(date(2024, 5, 1), date(2024, 5, 31))), 50, wanted=(month,), covered=(month,))
    put(storage, "B", DAYS, list(sessions(date(2024, 5, 1), date(2024, 5, 7))), 50, wanted=(month,), covered=(week,))
    return storage


def missing(head: dict[str, Any]) -> dict[str, int]:
    return {one["symbol"]: sum(one["missing"]) for dataset in head["datasets"] for one in dataset["series"]}


def test_a_hole_is_a_hole_too_where_the_file_of_the_series_cannot_be_read(tmp_path: Path) -> None:
    storage = holed(tmp_path)
    before = missing(overview_of(storage.bars, DatasetFilter(), now=NOW).head())
    (tmp_path / "store/equities_1day/symbol=B/year=2024/data.parquet").write_bytes(b"x")
    head = overview_of(storage.bars, DatasetFilter(), now=NOW).head()

    assert before == missing(head) == {"A": 0, "B": 17}  # 22 sessions without the first 5
    assert [bool(one["problem"]) for one in head["datasets"][0]["series"]] == [False, True]


def test_a_page_of_some_series_says_of_which(tmp_path: Path) -> None:
    storage = holed(tmp_path)
    made = [overview_of(storage.bars, choice, names, now=NOW).head()["selection"] for choice, names in (
        (DatasetFilter(), None), (DatasetFilter(), ["A"]), (DatasetFilter.parse("1Day"), ["A", "B"]),
    )]  # fmt: skip

    assert made == [None, "A", "A, B, 1Day"]


def test_notes_that_are_left_out_are_counted(tmp_path: Path) -> None:
    overview = overview_of(holed(tmp_path).bars, DatasetFilter(), now=NOW)
    notes = [f"note {number}" for number in range(53)]

    assert replace(overview, notes=notes).head()["notes"][49:] == ["note 49", "and 3 more"]
    assert replace(overview, notes=notes[:50]).head()["notes"][49:] == ["note 49"]
