"""The report in headless Chromium, driven by playwright; what it shows is compared with the store by DuckDB."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.market.corporate_action import decode
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Series
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.report import charts
from data_engine.report.contents import overview_of
from data_engine.report.html_page import render, save
from data_engine.store.selection import DatasetFilter
from pages import ATTACK, DAYS, NOW, SOURCE, make_changed_store, make_store, put

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium brings one"),
]


@dataclass
class Shown:
    """An open report, its messages and its requests."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def settle(self) -> None:
        """Wait until the page is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def wait_for_chart(self, words: str) -> None:
        """Wait until the chart is of a symbol, or of some bars. (Functions to wait for are strings, which the page forbids.)"""
        self.page.wait_for_selector(f'#candles[aria-label*="{words}"]')
        self.settle()

    def pixels(self, canvas: str, places: list[tuple[float, float]]) -> list[list[int]]:
        """Return red, green, blue and opacity of places of a canvas."""
        script = """([selector, places]) => {
            const from = document.querySelector(selector);
            const copy = Object.assign(document.createElement('canvas'), { width: from.width, height: from.height });
            const pen = copy.getContext('2d', { willReadFrequently: true });
            pen.drawImage(from, 0, 0);
            return places.map(([x, y]) => [...pen.getImageData(x, y, 1, 1).data]);
        }"""
        return list(self.page.evaluate(script, [canvas, [list(place) for place in places]]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield made
        made.close()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> ParquetStorage:
    return make_store(tmp_path_factory.mktemp("browser") / "store")


@pytest.fixture(scope="module")
def file(storage: ParquetStorage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    save(render(overview_of(storage.bars, DatasetFilter(), now=NOW, by="data-engine test")), path)
    return path


def opened(browser: Any, file: Path, **options: Any) -> Iterator[Shown]:
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
    shown = Shown(context.new_page())
    shown.page.on("console", lambda message: shown.messages.append(f"{message.type}: {message.text}"))
    shown.page.on("pageerror", lambda error: shown.messages.append(str(error)))
    shown.page.on("request", lambda request: shown.requests.append(request.url))
    shown.page.goto(file.as_uri())
    shown.page.wait_for_selector("html[data-ready=yes]")
    yield shown
    messages, requests, hacked = shown.messages, shown.requests, shown.page.evaluate("window.hacked")
    context.close()
    # Whatever a test did: no error, no request but the file itself, and no script from the texts of the store.
    assert (messages, requests, hacked) == ([], [file.as_uri()], None)


@pytest.fixture
def shown(browser: Any, file: Path) -> Iterator[Shown]:
    yield from opened(browser, file, color_scheme="light")


@pytest.fixture
def dark(browser: Any, file: Path) -> Iterator[Shown]:
    yield from opened(browser, file, color_scheme="dark")


@pytest.fixture
def narrow(browser: Any, file: Path) -> Iterator[Shown]:
    yield from opened(browser, file, viewport={"width": 360, "height": 700}, has_touch=True)


def days_of(storage: ParquetStorage, symbol: str) -> list[tuple[Any, ...]]:
    """Return a row for each session of minutes: day, open, high, low, close, volume of regular hours."""
    path = f"{storage.files.folder}/equities_1min/symbol={symbol}/**/*.parquet"
    return duckdb.sql(f"""
        SELECT here::DATE, first(open ORDER BY timestamp), max(high), min(low), last(close ORDER BY timestamp), sum(volume)
        FROM (SELECT *, timezone('America/New_York', timestamp) AS here FROM read_parquet('{path}'))
        WHERE here::TIME >= '09:30' AND here::TIME < (CASE here::DATE WHEN '2024-07-03' THEN TIME '13:00' ELSE TIME '16:00' END)
        GROUP BY 1 ORDER BY 1""").fetchall()


# ------------------------------------------------------------------------------------------------------------- coverage


def test_a_hover_over_the_map_reads_out_the_month(shown: Shown) -> None:
    shown.page.hover("#map", position={"x": 62, "y": 30 + 17 + 8})  # the second row: AAPL, and its first month
    shown.settle()

    assert shown.text("#map-readout").startswith("AAPL, Apr 2024: complete, final · 22 of 22 sessions final · ")


def test_the_map_is_walked_with_the_keyboard_and_a_live_region_tells(shown: Shown) -> None:
    shown.page.focus("#map")
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowRight"):
        shown.page.keyboard.press(key)

    assert shown.page.get_attribute("#map-readout", "aria-live") == "polite"
    assert shown.text("#map-readout").startswith(
        "MSFT, May 2024: partial, other requested sessions are missing · 11 of 22 sessions final · 11 missing"
    )
    assert "</script>" in shown.text("#map-readout")  # the failure's own words, as words


def test_a_click_on_a_month_shows_it_in_the_chart(shown: Shown, storage: ParquetStorage) -> None:
    shown.page.click("#map", position={"x": 62, "y": 30 + 2 * 17 + 8})  # MSFT, April
    shown.wait_for_chart("MSFT")

    assert shown.page.input_value("#from") <= "2024-04-01"
    assert shown.page.evaluate("document.activeElement.id") == "candles"


def test_the_same_is_there_as_a_table(shown: Shown) -> None:
    shown.page.click("#as-table")

    rows = shown.page.locator("#map-table tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["<I>&", "AAPL", "MSFT"]
    assert rows[2].endswith("\t1 complete, 1 partial, 2 missing")
    assert not shown.page.is_visible("#map")


def test_symbols_are_found_and_ordered(shown: Shown) -> None:
    shown.page.click("#as-table")
    shown.page.select_option("#order", "missing")
    first = shown.page.locator("#map-table tbody th").all_inner_texts()
    shown.page.fill("#find", "aap")

    assert first[0] == "MSFT"
    assert shown.page.locator("#map-table tbody th").all_inner_texts() == ["AAPL"]


def test_another_dataset_can_be_chosen(shown: Shown) -> None:
    shown.page.select_option("#dataset", label="equities_1day")

    assert shown.page.get_attribute("#map", "aria-label") == "Coverage of equities_1day: 1 symbol, 4 months"


# ---------------------------------------------------------------------------------------------------------------- chart


def choose(shown: Shown, symbol: str) -> None:
    shown.page.fill("#symbol", symbol)
    shown.page.keyboard.press("Enter")
    shown.wait_for_chart(symbol)


def test_a_session_is_read_out_by_keyboard_as_the_store_has_it(shown: Shown, storage: ParquetStorage) -> None:
    choose(shown, "MSFT")
    shown.page.focus("#candles")
    shown.page.keyboard.press("Home")

    day, opened_at, high, low, close, volume = days_of(storage, "MSFT")[0]
    assert shown.text("#chart-readout").startswith(
        f"Mon {day} · Open {opened_at:.2f} High {high:.2f} Low {low:.2f} Close {close:.2f}"
    ) or shown.text("#chart-readout").startswith(
        f"Mon {day} · Open {opened_at:.3f} High {high:.3f} Low {low:.3f} Close {close:.3f}"
    )
    assert volume == 19_500
    assert shown.text("#chart-readout").endswith("Volume 19.5K")


def test_a_hover_shows_the_crosshair_and_the_bar_below_it(shown: Shown) -> None:
    choose(shown, "AAPL")
    before = shown.page.locator("#candles").screenshot()
    shown.page.hover("#candles", position={"x": 400, "y": 120})
    shown.settle()

    assert "Open" in shown.text("#chart-readout")
    assert shown.page.locator("#candles").screenshot() != before


def test_minutes_are_shown_with_regular_hours_shaded(shown: Shown) -> None:
    choose(shown, "AAPL")
    shown.page.select_option("#bars", "minutes")
    shown.wait_for_chart("1Min")
    width = shown.page.evaluate("document.getElementById('candles').clientWidth - 62")
    # The 3rd of July: from 04:00 to 17:00, regular hours from 09:30 to 13:00. Sampled along the top, above all candles.
    hours = (5, 8, 10, 12, 14, 16)
    colors = dict(zip(hours, shown.pixels("#candles canvas", [(width * (hour - 4) / 13 + 7, 3) for hour in hours]), strict=True))

    assert shown.page.input_value("#from") == "2024-07-03"
    assert colors[5] == colors[8] == colors[14] == colors[16] == [0, 0, 0, 0]
    assert colors[10] == colors[12] == [0xF3, 0xEF, 0xE3, 255]
    shown.page.focus("#candles")
    shown.page.keyboard.press("Home")
    assert shown.text("#chart-readout").startswith("2024-06-27 04:00")


def test_a_range_of_days_is_chosen_by_date(shown: Shown) -> None:
    choose(shown, "AAPL")
    shown.page.fill("#from", "2024-05-06")
    shown.page.fill("#to", "2024-05-24")
    shown.page.keyboard.press("Enter")
    shown.settle()
    shown.page.click("#chart-details summary")
    shown.page.wait_for_selector("#chart-table tbody th")

    rows = shown.page.locator("#chart-table tbody th").all_inner_texts()
    assert (rows[0], rows[-1], len(rows)) == ("Mon 2024-05-06", "Fri 2024-05-24", 15)


def test_buttons_zoom_and_a_drag_moves(shown: Shown) -> None:
    choose(shown, "AAPL")
    whole = shown.page.input_value("#from"), shown.page.input_value("#to")
    shown.page.click("button[aria-label='Zoom in']")
    near = shown.page.input_value("#from"), shown.page.input_value("#to")
    shown.page.locator("#candles").scroll_into_view_if_needed()
    box = shown.page.locator("#candles").bounding_box()
    shown.page.mouse.move(box["x"] + 300, box["y"] + 100)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + 500, box["y"] + 100)
    shown.page.mouse.up()
    moved = shown.page.input_value("#from"), shown.page.input_value("#to")

    assert whole[0] < near[0] < near[1] < whole[1]
    assert moved[0] < near[0]


def test_what_does_not_fit_is_said_with_the_command_that_brings_it(
    browser: Any, storage: ParquetStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "MINUTE_CHARACTERS", 1)
    save(render(overview_of(storage.bars, DatasetFilter(), now=NOW)), tmp_path / "small.html")

    for shown in opened(browser, tmp_path / "small.html"):
        choose(shown, "MSFT")
        assert shown.page.is_disabled("#bars option[value=minutes]")
        assert "2 other symbols" in shown.text("#chart-note")
        assert "data-engine report MSFT --minutes 5" in shown.text("#chart-note")


def test_a_symbol_that_is_not_there_is_said(shown: Shown) -> None:
    shown.page.fill("#symbol", "NVDA")
    shown.page.keyboard.press("Enter")

    assert shown.text("#chart-readout") == "NVDA has no candles in this report."


# -------------------------------------------------------------------------------------------------- flags, runs, theme


def test_flags_and_runs_are_texts_whatever_they_hold(shown: Shown) -> None:
    assert "inconsistency" in shown.text("#flags-table tbody tr >> nth=0")
    assert shown.page.locator("img").count() == 0
    newest = " ".join(shown.text("#runs-table tbody tr >> nth=0").split())
    assert newest.startswith(
        "2024-07-02 00:00 update stopped equities_1min: 2 symbols, 1 already complete, 2024-04-01 to 2024-07-03"
    )
    assert "</script><script>window.hacked = 1</script>" in newest
    assert newest.endswith("1 m 15 s")


def test_what_changed_later_is_listed_chosen_marked_and_text_whatever_it_is(browser: Any, tmp_path: Path) -> None:
    storage = make_changed_store(tmp_path / "store")
    save(render(overview_of(storage.bars, DatasetFilter(), now=NOW)), tmp_path / "changed.html")

    for shown in opened(browser, tmp_path / "changed.html", viewport={"width": 360, "height": 700}):
        rows = [" ".join(row.split()) for row in shown.page.locator("#history-table tbody tr").all_inner_texts()]
        assert [("– 2 –" in row, "1 – –" in row) for row in rows] == [(True, False), (False, True)]
        assert f"2024-06-05 to 2024-06-06 (2 days) import of {ATTACK}".replace("\u2028", "") in rows[0]
        assert "<I>& · equities_1day" in rows[1]
        shown.page.select_option("#history-kind", "late")
        assert shown.page.locator("#history-table tbody tr").count() == 1
        shown.page.select_option("#history-by", "day")
        assert shown.page.locator("#history-table tbody tr").all_inner_texts()[0].split()[1:] == ["1", "1", "2", "–"]
        assert shown.page.is_disabled("#history-find")
        conflicts = [" ".join(row.split()) for row in shown.page.locator("#conflicts-table tbody tr").all_inner_texts()]
        assert "close 108 close 108.25 2024-07-08" in conflicts[1]
        assert "dropped 2024-07-08" in conflicts[0]
        fills = [" ".join(row.split()) for row in shown.page.locator("#fills-table tbody tr").all_inner_texts()]
        assert fills[0] == f"2024-07-01 to 2024-07-01 <I>& · equities_1day_fill {SOURCE} counts"
        assert fills[1].endswith("left out: Alpaca has bars there now")
        shown.page.focus("#map")
        assert "1 bar came late · 2 bars revised" in shown.text("#map-readout")
        assert "changed later 1" in shown.text("#legend")
        wide = "[...document.querySelectorAll('html, .cards')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
        assert shown.page.evaluate(wide) == 0


def test_findings_are_chosen_by_code(shown: Shown) -> None:
    shown.page.select_option("#flag-code", "range_missing")

    rows = shown.page.locator("#flags-table tbody tr").all_inner_texts()
    assert {row.split("\t")[1].strip() for row in rows} == {"range missing"}


def test_it_follows_the_system_into_the_dark_and_a_button_leads_out(dark: Shown) -> None:
    night = dark.page.evaluate("getComputedStyle(document.body).backgroundColor")
    drawn = [dark.page.evaluate(f"document.querySelector('{one} canvas').toDataURL()") for one in ("#map", "#candles", "#legend")]
    dark.page.click("#theme")
    dark.settle()
    again = [dark.page.evaluate(f"document.querySelector('{one} canvas').toDataURL()") for one in ("#map", "#candles", "#legend")]

    assert night == "rgb(20, 23, 28)"
    assert all(before != after for before, after in zip(drawn, again, strict=True))
    assert dark.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 249, 246)"
    dark.page.reload()
    dark.page.wait_for_selector("html[data-ready=yes]")
    assert dark.page.get_attribute("html", "data-theme") == "light"
    dark.requests.pop()


def test_on_a_narrow_screen_nothing_hangs_over(narrow: Shown) -> None:
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 360
    narrow.page.tap("#map", position={"x": 62, "y": 30 + 17 + 8})
    narrow.wait_for_chart("AAPL")


def luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_enough(shown: Shown, theme: str) -> None:
    """WCAG AA: 4.5 to 1 for text, on paper and on cards; 3 to 1 for what a bar or a month must be told by."""
    names = ("paper", "card", "ink", "soft", "accent", "bad", "warn", "good", "up", "down", "complete", "missing")
    shown.page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
    script = "(names) => names.map((name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim())"
    colors = dict(zip(names, shown.page.evaluate(script, list(names)), strict=True))

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(colors[one]), luminance(colors[other])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    words = {
        name: min(contrast(name, "paper"), contrast(name, "card")) for name in ("ink", "soft", "accent", "bad", "warn", "good")
    }
    shapes = {name: contrast(name, "card") for name in ("up", "down", "complete", "missing")}
    assert {name: ratio for name, ratio in words.items() if ratio < 4.5} == {}
    assert {name: ratio for name, ratio in shapes.items() if ratio < 3} == {}


def test_everything_is_reached_by_tab_and_named(shown: Shown) -> None:
    shown.page.keyboard.press("Tab")
    assert shown.page.evaluate("document.activeElement.className") == "skip"
    nameless = shown.page.evaluate("""() => [...document.querySelectorAll('main :is(button, select, input, [tabindex])')]
        .filter((one) => one.offsetParent)
        .filter((one) => !one.getAttribute('aria-label') && !one.closest('label'))
        .filter((one) => one.tagName !== 'BUTTON' || !one.textContent.trim())
        .map((one) => one.outerHTML.slice(0, 80))""")
    assert nameless == []
    assert shown.page.evaluate("[...document.querySelectorAll('h1, h2')].map((one) => one.textContent)") == [
        "Store report", "Coverage", "Chart", "Gaps and findings", "History", "Runs",
    ]  # fmt: skip


def test_an_empty_store_has_a_page_that_says_so(browser: Any, tmp_path: Path) -> None:
    storage = ParquetStorage(tmp_path / "store")
    save(render(overview_of(storage.bars, DatasetFilter(), now=NOW)), tmp_path / "empty.html")

    for shown in opened(browser, tmp_path / "empty.html"):
        assert shown.text("#map-readout") == "The store has no series."
        assert shown.text("#chart-note") == "The store has no bars of a day or shorter."
        assert "No run is recorded" in shown.text("#runs-table")
        assert "no history yet" in shown.text("#history-lead")
        assert not shown.page.is_visible("#history-table")


# -------------------------------------------------------------------------------------------- what to do next, splits, phones


def test_the_next_command_is_that_of_the_worst_trouble_and_can_be_copied(shown: Shown, storage: ParquetStorage) -> None:
    assert shown.text("#next-command") == f"data-engine verify --repair --base-path {storage.files.folder}"

    shown.page.click("#next-copy")
    shown.page.wait_for_selector("#next-copy:text-matches('Copied|Selected')")


def test_a_split_is_marked_and_sessions_without_a_bar_are_a_gap(browser: Any, tmp_path: Path) -> None:
    """Some days of bars, three weeks without, and two more; the split is on the last one."""
    storage = ParquetStorage(tmp_path / "store")
    june, july = list(sessions(date(2024, 6, 3), date(2024, 6, 10))), [date(2024, 7, 3), date(2024, 7, 5)]
    put(storage, "NVDA", DAYS, [*june, *july], 100.0)
    record = {"id": "x", "symbol": "NVDA", "new_rate": 10, "old_rate": 1, "ex_date": "2024-07-05", "process_date": "2024-07-05"}
    action = decode("forward_split", record)
    ActionStore(storage.files).update("NVDA", lambda known: replace(known, actions=(action,)))
    file = tmp_path / "report.html"
    save(render(overview_of(storage.bars, DatasetFilter(), now=NOW, by="data-engine test")), file)
    (chart,) = charts.charts(storage.bars, [Series("NVDA", DAYS)], now=NOW, quick=False, minutes=0, notes=[])

    assert [date.fromordinal(day) for day in chart.days] == list(sessions(june[0], july[-1]))
    for shown in opened(browser, file):
        shown.page.focus("#candles")
        shown.page.keyboard.press("ArrowLeft")
        assert shown.text("#chart-readout").startswith("Fri 2024-07-05")
        assert "10-for-1 split" in shown.text("#chart-readout")
        shown.page.keyboard.press("Home")
        for _ in range(len(june)):
            shown.page.keyboard.press("ArrowRight")
        assert "no bar" in shown.text("#chart-readout")


def test_on_a_phone_a_run_is_a_card_and_nothing_is_wider_than_the_screen(narrow: Shown) -> None:
    wide = "(selector) => [...document.querySelectorAll(selector)].filter((one) => one.scrollWidth > one.clientWidth + 1).length"

    assert narrow.page.evaluate(wide, "html, #runs-table, #flags-table") == 0
    assert narrow.page.evaluate("getComputedStyle(document.querySelector('#runs-table td'), '::before').content") == '"Time"'
