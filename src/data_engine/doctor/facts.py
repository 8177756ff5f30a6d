"""State what data-engine assumes of Alpaca's API, and judge answers by it. Pure; `conformance` asks.

Every judge gets the answers by name and returns what was observed, and whether that is what is assumed; None if the answers
cannot tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from data_engine.doctor.probe import Answer

Answers = Mapping[str, Answer]

Verdict = tuple[bool | None, str]

WALK = ("walk_1", "walk_2", "walk_3")

WALK_LIMIT = 500

_NANOSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class Fact:
    """One assumption.

    Attributes:
        name: Its identifier.
        assumed: What data-engine assumes.
        judge: The function that judges it.
        open: Whether no source establishes it; then a difference is worth a report, and no fault is expected of it.
    """

    name: str
    assumed: str
    judge: Callable[[Answers], Verdict]
    open: bool = False


def _all_bars(answers: Answers) -> list[list[tuple[str, str]]]:
    """Return symbol and timestamp of each bar of the walk, page by page, by symbol."""
    pages = (answers[name] for name in WALK)
    return [[(symbol, str(row.get("t"))) for symbol in sorted(page.bars) for row in page.bars[symbol]] for page in pages]


def _page_fill(answers: Answers) -> Verdict:
    sizes = [len(page) for page in _all_bars(answers)[:2]]
    return sizes == [WALK_LIMIT] * 2, f"{sizes} bars on pages with limit={WALK_LIMIT}"


def _symbol_order(answers: Answers) -> Verdict:
    bars = [bar for page in _all_bars(answers) for bar in page]
    seen = list(dict.fromkeys(symbol for symbol, _ in bars))
    if len(seen) < 2:
        return None, f"symbols {seen}"
    return bars == sorted(bars), f"symbols in the order {seen}, bars {'ascending' if bars == sorted(bars) else 'not ascending'}"


def _no_repeats(answers: Answers) -> Verdict:
    bars = [bar for page in _all_bars(answers) for bar in page]
    repeated = len(bars) - len(set(bars))
    return (repeated == 0 if bars else None), f"{repeated} bars on two pages"


def _last_token(answers: Answers) -> Verdict:
    names = [bool(answers[name].token) for name in WALK]
    content = answers[WALK[2]].content
    last = content.get("next_page_token", "absent") if isinstance(content, dict) else "absent"
    return names == [True, True, False] and last is None, f"tokens on the pages: {names}; on the last: {last}"


def _fields(answers: Answers) -> Verdict:
    kinds = {tuple(sorted(row)) for row in answers["walk_1"].rows}
    return (kinds == {("c", "h", "l", "n", "o", "t", "v", "vw")} if kinds else None), f"fields {sorted(kinds)[:2]}"


def _field_order(answers: Answers) -> Verdict:
    orders = {tuple(row) for row in answers["walk_1"].rows}
    return (orders == {("c", "h", "l", "n", "o", "t", "v", "vw")} if orders else None), f"order {sorted(orders)[:2]}"


def _compact(answers: Answers) -> Verdict:
    text = answers["walk_1"].text
    return (not re.search(r'[,:] ["\d\[{]', text[:20_000])), f"begins {text[:60]!r}"


def _time_form(answers: Answers) -> Verdict:
    times = answers["walk_1"].times
    wrong = [one for one in times if not _NANOSECONDS.fullmatch(one)]
    return (not wrong if times else None), f"such as {(wrong or times)[:1]}"


def _whole_numbers(answers: Answers) -> Verdict:
    rows = answers["walk_1"].rows
    whole = all(isinstance(row.get("v"), int) and isinstance(row.get("n"), int) for row in rows)
    return (whole if rows else None), "v and n are whole numbers" if whole else "v or n is no whole number"


def _start(answers: Answers) -> Verdict:
    times = answers["window"].times
    return (times[0] == "2024-06-03T13:30:00Z" if times else None), f"first bar {times[:1]}"


def _end(answers: Answers) -> Verdict:
    times = answers["window"].times
    return (times[-1] == "2024-06-03T14:00:00Z" if times else None), f"last bar {times[-1:]}"


def _end_before(answers: Answers) -> Verdict:
    times = answers["window_before"].times
    return (times[-1] == "2024-06-03T13:59:00Z" if times else None), f"last bar {times[-1:]}"


def _limit_headers(answers: Answers) -> Verdict:
    found = sorted(name for name in answers["walk_1"].headers if name.startswith("x-ratelimit"))
    return found == ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"], f"{found} on 200"


def _limit_headers_refused(answers: Answers) -> Verdict:
    found = sorted(name for name in answers["bad_timeframe"].headers if name.startswith("x-ratelimit"))
    return len(found) == 3, f"{found} on 400"


def _date(answers: Answers) -> Verdict:
    dates = [one.headers.get("date") for one in answers.values() if one.status == 200]
    return all(dates) if dates else None, f"{sum(1 for one in dates if one)} of {len(dates)} responses have a Date"


def _json_type(answers: Answers) -> Verdict:
    kinds = {one.headers.get("content-type", "none") for one in answers.values() if one.status == 200}
    return all("json" in kind.lower() for kind in kinds) if kinds else None, f"{sorted(kinds)}"


def _gzip(answers: Answers) -> Verdict:
    found = answers["full_page"].headers.get("content-encoding", "none")
    return found in ("gzip", "x-gzip"), f"content-encoding {found}"


def _full_page(answers: Answers) -> Verdict:
    rows, token = len(answers["full_page"].rows), answers["full_page"].token
    return rows == 10_000 and token is not None, f"{rows} bars{', and a token' if token else ''}, with limit=10000"


def _aggregated_page(answers: Answers) -> Verdict:
    rows, token = len(answers["five_minutes"].rows), answers["five_minutes"].token
    return rows == WALK_LIMIT and token is not None, f"{rows} five-minute bars{', and a token' if token else ''}"


def refused(name: str, status: int, message: str) -> Callable[[Answers], Verdict]:
    """Return a judge of a refusal.

    Args:
        name: The name of the answer.
        status: The status that is due.
        message: What the message must contain.
    """

    def judge(answers: Answers) -> Verdict:
        one = answers[name]
        return one.status == status and message in one.message, _said(one)

    return judge


def _said(one: Answer) -> str:
    """Return status and message of an answer; of 200 the status alone."""
    return "200" if one.status == 200 else f"{one.status}: {one.message[:120]}"


def _wrong_keys(answers: Answers) -> Verdict:
    one = answers["wrong_keys"]
    fits = one.status == 401 or (one.status == 403 and one.message == "forbidden.")
    return fits, f"{one.headers.get('content-type', '')}, {_said(one)}"


def _nothing(name: str) -> Callable[[Answers], Verdict]:
    def judge(answers: Answers) -> Verdict:
        one = answers[name]
        content = one.content
        fits = one.status == 200 and isinstance(content, dict) and content.get("bars") == {} and one.token is None
        return fits, f"{_said(one)}, {len(one.rows)} bars"

    return judge


def _recent(answers: Answers) -> Verdict:
    one = answers["recent"]
    refusal = one.status == 403 and "subscription does not permit querying recent" in one.message
    return one.status == 200 or refusal, _said(one)


def _days_of(name: str) -> list[str]:
    return [f"2022-06-{day:02d}" for day in ({"asof_old": (6, 7, 8)}.get(name, (6, 7, 8, 9, 10)))]


def _asof_new(answers: Answers) -> Verdict:
    one = answers["asof_new"]
    days = [stamp[:10] for stamp in one.times]
    return days == _days_of("asof_new") and set(one.bars) == {"META"}, f"{sorted(one.bars)}: {days}"


def _asof_old(answers: Answers) -> Verdict:
    one = answers["asof_old"]
    days = [stamp[:10] for stamp in one.times]
    return days == _days_of("asof_old") and set(one.bars) == {"FB"}, f"{sorted(one.bars)}: {days}"


def _split_prices(answers: Answers) -> Verdict:
    raw, split = answers["raw_day"].rows, answers["split_day"].rows
    if len(raw) != 1 or len(split) != 1:
        return None, f"{len(raw)} raw, {len(split)} adjusted bars"
    pairs = [(raw[0][key], split[0][key]) for key in ("o", "h", "l", "c")]
    fits = all(abs(before / 10 - after) <= 0.005_000_1 and round(after, 2) == after for before, after in pairs)
    return fits, f"{pairs[3][0]} becomes {pairs[3][1]}"


def _split_volume(answers: Answers) -> Verdict:
    raw, split = answers["raw_day"].rows, answers["split_day"].rows
    if len(raw) != 1 or len(split) != 1:
        return None, f"{len(raw)} raw, {len(split)} adjusted bars"
    (before, after), trades = (raw[0]["v"], split[0]["v"]), (raw[0]["n"], split[0]["n"])
    return before * 10 == after and trades[0] == trades[1], f"volume {before} becomes {after}, trades {trades[0]} {trades[1]}"


def _aligned(name: str, hours: int) -> Callable[[Answers], Verdict]:
    def judge(answers: Answers) -> Verdict:
        times = answers[name].times
        fits = all(stamp[14:] == "00:00Z" and int(stamp[11:13]) % hours == 0 for stamp in times)
        return (fits if times else None), f"{[stamp[11:16] for stamp in times[:4]]} UTC"

    return judge


def _at(name: str, stamp: str) -> Callable[[Answers], Verdict]:
    def judge(answers: Answers) -> Verdict:
        times = answers[name].times
        return (times[:1] == [stamp] if times else None), f"{times[:1]}"

    return judge


def _same_again(answers: Answers) -> Verdict:
    first, second = answers["yesterday"], answers["yesterday_again"]
    return (first.bars == second.bars if first.bars else None), f"{len(first.rows)} and {len(second.rows)} bars"


def _folded(answers: Answers) -> Verdict:
    rows, times = answers["twice"].rows, answers["twice"].times
    return (len(times) == len(set(times)) if rows else None), f"{len(rows)} bars, {len(set(times))} of them different"


def _split_record(answers: Answers) -> Verdict:
    content = answers["split_action"].content
    lists = content.get("corporate_actions", {}) if isinstance(content, dict) else {}
    found = [one for one in lists.get("forward_splits", []) if one.get("symbol") == "NVDA"]
    fits = [(one.get("ex_date"), one.get("new_rate"), one.get("old_rate")) for one in found] == [("2024-06-10", 10, 1)]
    return fits, f"forward_splits {[(one.get('ex_date'), one.get('new_rate'), one.get('old_rate')) for one in found]}"


def _rename_record(answers: Answers) -> Verdict:
    content = answers["rename_action"].content
    lists = content.get("corporate_actions", {}) if isinstance(content, dict) else {}
    found = [(one.get("old_symbol"), one.get("new_symbol"), one.get("process_date")) for one in lists.get("name_changes", [])]
    return ("FB", "META", "2022-06-09") in found, f"name_changes {found}"


def _lower_case(answers: Answers) -> Verdict:
    one = answers["lower_case"]
    return one.status == 400, f"{_said(one)}, bars of {sorted(one.bars)}"


def _too_long(answers: Answers) -> Verdict:
    one = answers["too_long"]
    return one.status in (413, 414, 431), f"{one.status}"


def offset_seconds(date: str | None, before: datetime, after: datetime) -> float | None:
    """Return by how many seconds this machine's clock is surely ahead of a ``Date`` header, negative if behind; None without one.

    Args:
        date: The header.
        before: What this machine's clock said before the request.
        after: What it said after the answer; in between, both clocks may have been the same.
    """
    from email.utils import parsedate_to_datetime

    try:
        server = parsedate_to_datetime(date) if date else None
        return None if server is None else (min(max(server, before), after) - server).total_seconds()
    except (ValueError, TypeError):
        return None


FACTS = (
    Fact("page_fill", "a page has exactly `limit` bars while there are more", _page_fill),
    Fact("symbol_order", "bars come by symbol, then by time, over all pages", _symbol_order),
    Fact("pages_disjoint", "no bar is on two pages", _no_repeats),
    Fact("last_token", "`next_page_token` is null on the last page, and only there", _last_token),
    Fact("full_page", "`limit=10000` gives 10,000 bars a page", _full_page),
    Fact("aggregated_page", "pages of five-minute bars are filled as those of minutes are", _aggregated_page, open=True),
    Fact("bar_fields", "a bar has the fields c, h, l, n, o, t, v, vw", _fields),
    Fact("field_order", "the fields of a bar come in that order (else decoding is slower)", _field_order),
    Fact("compact_json", "JSON has no spaces (else decoding is slower)", _compact),
    Fact("time_form", "a minute is written 2024-06-03T13:30:00Z", _time_form),
    Fact("whole_numbers", "volume and trade count are whole numbers", _whole_numbers),
    Fact("start_inclusive", "`start` is included", _start),
    Fact("end_inclusive", "`end` is included", _end),
    Fact("end_nanoseconds", "an `end` of one nanosecond before a minute leaves that minute out", _end_before),
    Fact("json_type", "responses 200 say that they are JSON", _json_type),
    Fact("gzip", "large responses are compressed with gzip", _gzip),
    Fact("date_header", "responses have a Date", _date),
    Fact("limit_headers", "responses 200 have X-RateLimit-Limit, -Remaining and -Reset", _limit_headers),
    Fact("limit_headers_400", "responses 400 have them, too", _limit_headers_refused, open=True),
    Fact("wrong_keys", "wrong keys are refused with 401, or 403 `forbidden.`", _wrong_keys),
    Fact(
        "bad_timeframe", "an unknown timeframe is refused by name", refused("bad_timeframe", 400, "invalid timeframe: 3Fortnight")
    ),
    Fact("limit_bound", "`limit=10001` is refused", refused("limit_bound", 400, "10000")),
    Fact(
        "start_after_end", "a start after the end is refused", refused("start_after_end", 400, "end should not be before start")
    ),
    Fact("unknown_feed", "`feed=delayed_sip` is refused", refused("unknown_feed", 400, "invalid feed: delayed_sip")),
    Fact(
        "malformed_symbol", "BRK-B is refused by name, with its whole request", refused("malformed", 400, "invalid symbol: BRK-B")
    ),
    Fact("digit_symbol", "3USL is refused by name", refused("digit_symbol", 400, "invalid symbol: 3USL")),
    Fact("lower_case", "a symbol in lower case is refused", _lower_case, open=True),
    Fact("unknown_symbol", "an unknown symbol is no error, and has no bars", _nothing("unknown_symbol")),
    Fact("before_history", "a range before the history has no bars", _nothing("before_history")),
    Fact("symbol_twice", "a symbol that is requested twice comes once", _folded, open=True),
    Fact("too_long", "a request that is too long is refused with 414 (or 413, 431)", _too_long),
    Fact("recent_data", "the latest minutes come, or are refused in the known words", _recent),
    Fact("asof_mapped", "META's bars begin with those of FB", _asof_new),
    Fact("asof_former", "`asof` gives the bars of the former owner of a ticker, under it", _asof_old),
    Fact("split_prices", "adjusted prices are rounded to cents", _split_prices),
    Fact("split_volume", "a split multiplies volume exactly, and leaves the trade count", _split_volume),
    Fact("hours_winter", "hours begin at whole UTC hours in winter", _aligned("hours_winter", 1)),
    Fact(
        "four_hours_winter",
        "4-hour bars begin at multiples of 4 hours UTC in winter",
        _aligned("four_hours_winter", 4),
        open=True,
    ),
    Fact("day_winter", "a day is stamped midnight New York in winter", _at("day_winter", "2024-01-16T05:00:00Z")),
    Fact("day_summer", "a day is stamped midnight New York in summer", _at("raw_day", "2024-06-07T04:00:00Z")),
    Fact("week", "a week is stamped its Monday", _at("week", "2024-06-03T04:00:00Z")),
    Fact("month", "a month is stamped its first day", _at("month", "2024-06-01T04:00:00Z")),
    Fact("finality", "minutes of a past session are the same when asked again", _same_again),
    Fact("split_record", "corporate actions list NVDA's split of 2024-06-10", _split_record),
    Fact("rename_record", "corporate actions list FB's rename of 2022-06-09", _rename_record),
)
