"""What must be so after a step: `check_step`, from what lay there, what was asked, answered and done, and what lies there now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from math import prod
from typing import Any

from data_engine.market.exchange_calendar import can_hold_bars, session_range
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange

from .finality import final_by_calendar
from .market import DAY, NEW_YORK, Market, Values, floor, instant, micros, midnight, next_bar
from .state import Claims, Key, Spans, State, common, inside, joined, minus, shown, timeframe_of
from .vendor import Ask


class Violation(AssertionError):
    """Something is not as it must be."""


@dataclass
class Happened:
    """All that happened in one step.

    Attributes:
        before: What lay there.
        after: What lies there.
        asks: The requests, with their answers.
        clock: The machine's time.
        true_clock: The vendor's.
        accept: Whether removals were asked for.
        alone: Whether one process did the step.
        stored: The bars that a user gave, by series.
        removed: The ranges that were to be removed, by series.
        report: Of a run that came to its end.
        error: What ended it otherwise.
        requested: The ranges that the command was about, by series.
        faulty: Whether anything could fail.
        undated: Whether answers did not say what time it is.
        refused: Whether the latest minutes were refused.
        sigs: By what actions delivered bars of adjusted series are adjusted.
        given: All that vendor and users ever gave.
        moved: Whether actions began to be adjusted by during the step.
        compares: Whether covered ranges were fetched again, to compare them.
        compared: The report of that.
        removes: Whether accepting removes bars, too.
        durable: What a power failure during the step could have left of *before*; None if that is all of it, or none failed.
    """

    before: State
    after: State
    asks: list[Ask]
    clock: int
    true_clock: int
    accept: bool = False
    alone: bool = True
    stored: dict[Key, dict[int, set[Values]]] = field(default_factory=dict)
    removed: dict[Key, Spans] = field(default_factory=dict)
    report: Any = None
    error: BaseException | None = None
    requested: dict[Key, Spans] = field(default_factory=dict)
    faulty: bool = False
    undated: bool = False
    refused: bool = False
    moved: bool = False
    compares: bool = False
    compared: Any = None
    removes: bool = False
    durable: State | None = None

    def asks_of(self, key: Key) -> list[Ask]:
        return [ask for ask in self.asks if ask.dataset.name == key[0] and key[1] in ask.symbols]

    def normal(self, key: Key) -> bool:
        """Tell whether the run said that it completed a series."""
        return self.alone and self.report is not None and label(self.report, key) in self.report["successful"]


_NO_FAULT = ("no_data", "renamed", "ended", "never_ingested", "session_missing")
"""Codes of series that may fail though nothing went wrong."""


_OF_REQUESTS = ("unavailable", "bad_answer", "unanswered")
"""Codes of series whose requests were not answered."""


def label(report: Any, key: Key) -> str:
    """Return how a report names a series."""
    names = {outcome.symbol for outcome in report.outcomes}
    return key[1] if key[1] in names else f"{key[1]} ({key[0]})"


def is_raw(dataset: str) -> bool:
    return len(dataset.split("_")) == 2


Given = dict[Key, dict[int, set[Values]]]

Signatures = dict[tuple[Key, int, Values], set[frozenset[int]]]


class Oracle:
    """Remembers what was ever given, and checks each step.

    Args:
        market: The truth.
    """

    def __init__(self, market: Market) -> None:
        self.market = market
        self.given: Given = {}
        self.signatures: Signatures = {}
        self.bases: dict[Key, set[frozenset[int]]] = {}
        self.owners: dict[tuple[Key, int, Values], set[str]] = {}
        self.asks: dict[Key, list[Ask]] = {}

    def check(self, what: Happened) -> None:
        """Raise `Violation` if something is not as it must be."""
        self._learn(what)
        what.requested = {key: self._of_security(what, key, spans) for key, spans in what.requested.items()}
        for key in sorted({*what.before.keys, *what.after.keys}):
            if what.before.rows_of(key) != what.after.rows_of(key):
                self._invented(what, key)
                self._changes(what, key)
            if what.before.claims_of(key) != what.after.claims_of(key):
                self._claims(what, key)
            self._answers(what, key)
            self._base(what, key)
            self._one_security(what, key)
        self._wanted(what)
        self._report(what)
        self._comparison(what)

    def _learn(self, what: Happened) -> None:
        for ask in what.asks:
            for symbol in ask.symbols:
                self.asks.setdefault((ask.dataset.name, symbol), []).append(ask)
            for symbol, bars in ask.said.items():
                key = (ask.dataset.name, symbol)
                owner = self.market.owner(symbol, ask.asof, what.true_clock)
                for stamp, (values, _) in bars.items():
                    self.owners.setdefault((key, stamp, values), set()).add(str(owner))
                for stamp, (values, applied) in bars.items():
                    self.given.setdefault(key, {}).setdefault(stamp, set()).add(values)
                    self.signatures.setdefault((key, stamp, values), set()).add(applied)
            for symbol in ask.symbols if not ask.dataset.adjustment.is_raw else ():
                for days in (0, -1, 1):
                    now = what.true_clock + days * 86_400_000_000
                    known = frozenset(self.market.known_actions(symbol, now, ask.dataset.adjustment))
                    if not days or what.moved:
                        self.bases.setdefault((ask.dataset.name, symbol), set()).add(known)
        for key, stored in what.stored.items():
            for stamp, values in stored.items():
                self.given.setdefault(key, {}).setdefault(stamp, set()).update(values)

    def _one_security(self, what: Happened, key: Key) -> None:
        """All bars of a series are of one security: whose bars the first are."""
        ours = None
        for stamp, values in sorted(what.after.rows_of(key).items()) if self.market.listings else ():
            owners = self.owners.get((key, stamp, values))
            ours = owners if ours is None or owners is None else ours & owners
            if ours is not None and not ours:
                raise Violation(f"(h) {key} holds bars of two securities; from {instant(stamp)} on they are {owners}")

    def _of_security(self, what: Happened, key: Key, spans: Spans) -> Spans:
        """Return the part of some ranges in which a series' security has the ticker, as far as anybody knows by now."""
        if not self.market.listings:
            return spans
        rows = {**what.before.rows_of(key), **what.after.rows_of(key)}
        owners = {owner for stamp, values in rows.items() for owner in self.owners.get((key, stamp, values), ())}
        if not owners and spans:  # it becomes that of whoever had the ticker when the first range begins
            owners = {self.market.first_owner(key[1], spans[0][0], what.true_clock)}
        ends = [end for owner in owners if (end := self.market.end(key[1], owner, what.true_clock)) is not None]
        return minus(spans, [(min(ends), 1 << 62)]) if ends else spans

    def _invented(self, what: Happened, key: Key) -> None:
        given, before = self.given.get(key, {}), what.before.rows_of(key)
        for stamp, values in what.after.rows_of(key).items():
            if before.get(stamp) != values and values not in given.get(stamp, ()):
                raise Violation(f"(a) {key} has a bar of {instant(stamp)} that nobody gave: {values}; given {given.get(stamp)}")

    def _changes(self, what: Happened, key: Key) -> None:
        """Every change of a row has its reason in this step."""
        before, after = what.before.rows_of(key), what.after.rows_of(key)
        said = _said(what, key)
        stored = what.stored.get(key, {})
        for stamp in sorted({*before, *after}):
            old, new = before.get(stamp), after.get(stamp)
            if old == new or self._was_not_durable(what, key, stamp):
                continue
            if new is not None:
                given = (*said.get(stamp, ()), *stored.get(stamp, ()))
                if new not in given and not (what.accept and what.compares and self._was_answered_with(key, stamp, new)):
                    raise Violation(f"(a) {key} at {instant(stamp)} became {new}, which was not given in this step (was {old})")
            elif not inside(stamp, what.removed.get(key, ())) and not self._may_go(what, key, stamp):
                raise Violation(f"(c) {key} lost the bar of {instant(stamp)}")

    @staticmethod
    def _was_not_durable(what: Happened, key: Key, stamp: int) -> bool:
        """Tell whether a power failure brought back what was there before a killed process changed it."""
        if what.durable is None:
            return False
        durable, new = what.durable.rows_of(key).get(stamp), what.after.rows_of(key).get(stamp)
        claimed = inside(stamp, what.after.claims_of(key).all)
        return new == durable and (not claimed or inside(stamp, what.durable.claims_of(key).all))

    def _may_go(self, what: Happened, key: Key, stamp: int) -> bool:
        """Tell whether a bar may be removed by an answer of this step that lacks it."""
        if what.accept and what.compares and self._was_answered_with(key, stamp, None):
            return True  # what conflicts since an earlier step is accepted
        for ask in what.asks_of(key):
            span = ask.answered(key[1])
            if span and span[0] <= stamp < span[1] and stamp not in ask.said.get(key[1], {}):
                if what.accept or not is_raw(key[0]):
                    return True
                if inside(stamp, what.before.claims_of(key).provisional) and stamp < self._final(what, key, ask):
                    return True
        return False

    def _was_answered_with(self, key: Key, stamp: int, values: Values | None) -> bool:
        """Tell whether the vendor ever gave a bar with these values; with None, whether it ever answered without the bar."""
        for ask in self.asks.get(key, ()):
            said = ask.said.get(key[1], {}).get(stamp)
            if said is not None:
                if said[0] == values:
                    return True
            elif values is None and (span := ask.answered(key[1])) and span[0] <= stamp < span[1]:
                return True
        return False

    def _final(self, what: Happened, key: Key, ask: Ask) -> int:
        """Return the instant before which an answer is final."""
        final = final_by_calendar(ask.dataset.timeframe, ask.now)
        if not ask.dated:
            newest = max((one.newest or 0 for one in what.asks_of(key)), default=0)
            final = min(final, newest)
        return final

    def _claims(self, what: Happened, key: Key) -> None:
        """Nothing is claimed that was not asked and answered, nothing final that can still change."""
        before, after = what.before.claims_of(key), what.after.claims_of(key)
        if common(after.covered, after.provisional):
            raise Violation(f"(b) {key} is covered and provisional at {shown(common(after.covered, after.provisional))}")
        answered = [span for ask in what.asks_of(key) if (span := ask.answered(key[1]))]
        durable = what.durable.claims_of(key) if what.durable is not None else Claims()
        # What an earlier step was answered in several responses may be claimed once its first bars are the same.
        held = [*before.all, *durable.all, *answered]
        unfounded = minus(after.all, [*held, *before.unconfirmed])
        if unfounded:
            raise Violation(f"(b) {key} claims {shown(unfounded)}, and this step answered {shown(answered)}")
        untold = minus(after.unconfirmed, [*before.unconfirmed, *durable.unconfirmed, *answered])
        if untold or common(after.unconfirmed, after.all):
            raise Violation(f"(b) {key} holds {shown(after.unconfirmed)} unconfirmed, and this step answered {shown(answered)}")
        dataset = _dataset(what, key)
        new = minus(minus(after.covered, before.covered), durable.all)
        if new and dataset is not None:
            # A machine that was suspended asks later than the step begins.
            final = final_by_calendar(dataset.timeframe, max([what.true_clock, *(ask.now for ask in what.asks_of(key))]))
            early = minus(new, [(0, final)])
            if early:
                raise Violation(f"(b) {key} covers {shown(early)}, which can still change")
        self._emptiness(what, key)
        outside = minus(after.all, after.wanted)
        if outside and minus(outside, before.all):
            raise Violation(f"(b) {key} claims {shown(minus(outside, before.all))}, which nobody asked for")
        gone = self._of_security(what, key, minus(before.covered, after.covered))
        gone = minus(gone, reopened(what, key))
        if gone and what.report is not None and what.alone and is_raw(key[0]) and not what.removed.get(key):
            raise Violation(f"(c) {key} covers no more: {shown(gone)}")

    def _emptiness(self, what: Happened, key: Key) -> None:
        """Within a week of the first bar, emptiness before its session that this step answered is not final."""
        rows, before, after = what.after.rows_of(key), what.before.claims_of(key), what.after.claims_of(key)
        if not rows or what.report is None or not what.alone or not is_raw(key[0]) or after.changing:
            return
        first = min(rows)
        session = midnight(instant(first).astimezone(NEW_YORK).date())
        empty = common(minus(after.covered, before.covered), [(0, session)])
        if empty and what.clock - first <= 7 * DAY and minus(empty, after.tentative):
            raise Violation(
                f"(b) {key} has {shown(minus(empty, after.tentative))} as empty for ever; its first bar is of {instant(first)}"
            )

    def _answers(self, what: Happened, key: Key) -> None:
        """Bars of claimed ranges are the vendor's as last answered, and what is kept."""
        asks = what.asks_of(key)
        if not asks:
            return
        before, after = what.before.rows_of(key), what.after.rows_of(key)
        claims, old_claims = what.after.claims_of(key), what.before.claims_of(key)
        stamps = {*before, *after, *(stamp for ask in asks for stamp in ask.said.get(key[1], {}))}
        answered = [(ask, span, ask.said.get(key[1], {})) for ask in asks if (span := ask.answered(key[1]))]
        now_claimed, was_claimed = claims.all, old_claims.all
        looked_at = common(now_claimed, [span for _, span, _ in answered])
        for stamp in sorted(stamp for stamp in stamps if inside(stamp, looked_at)):
            states = [(ask, said.get(stamp, (None,))[0]) for ask, span, said in answered if span[0] <= stamp < span[1]]
            if not states:
                continue
            now, was = after.get(stamp), before.get(stamp)
            if key in what.stored and stamp in what.stored[key]:
                continue
            earlier = {values for _, values in states}
            expected = [self._matches(what, key, stamp, state, now, was, earlier) for state in states]
            claimed = inside(stamp, was_claimed)
            fine = expected[-1] if what.normal(key) else any(expected) or (claimed and now == was)
            # Beside what is compared lies what was answered before, and is not asked for again, or not by this run.
            kept = [*old_claims.covered, *old_claims.unconfirmed, *common(old_claims.provisional, claims.provisional)]
            fine = fine or (not is_raw(key[0]) and now == was and inside(stamp, kept))
            if not fine:
                last = states[-1][1]
                raise Violation(f"(b) {key} claims {instant(stamp)} with {now}; the last answer was {last}, before it was {was}")

    def _matches(
        self,
        what: Happened,
        key: Key,
        stamp: int,
        state: tuple[Ask, Values | None],
        now: Values | None,
        was: Values | None,
        said: set[Any],
    ) -> bool:
        ask, values = state
        if values is not None:
            return now == values
        kept = now == was or now in said
        if what.accept and not what.alone:
            return kept or now is None  # perhaps another process had removals accepted
        if not ask.dated and stamp > max((last for bars in ask.said.values() for last in bars), default=0):
            return now is None or kept  # an answer without the vendor's time ends at its newest bar
        if what.accept or not is_raw(key[0]):
            return now is None
        if inside(stamp, what.before.claims_of(key).provisional) and stamp < self._final(what, key, ask):
            # Without the vendor's time it is judged by its newest bar what is final, and nothing is told of that here.
            return now is None or (not ask.dated and kept)
        return kept

    def _base(self, what: Happened, key: Key) -> None:
        """All claimed bars of an adjusted series are adjusted by the same actions."""
        if is_raw(key[0]) or key not in self.bases:
            return
        security = self.market.securities.get(key[1])
        if security is None or not security.actions:
            return
        claimed = what.after.claims_of(key).all
        rows = {stamp: values for stamp, values in what.after.rows_of(key).items() if inside(stamp, claimed)}
        timeframe = timeframe_of(key[0])
        left = set(self.bases[key])
        for stamp, values in sorted(rows.items()):
            if any(stamp < midnight(one.day) < next_bar(stamp, timeframe) for one in security.actions):
                continue  # a bar of several days, some of them before the action
            applied = self.signatures.get((key, stamp, values), set())
            effects = {self._effect(security, one) for one in applied}
            left = {base for base in left if self._effect(security, self._applies(security, base, stamp, timeframe)) in effects}
            if not left:
                raise Violation(f"(d) {key} has two adjustment bases; {instant(stamp)} is adjusted by {applied}")

    @staticmethod
    def _applies(security: Any, base: frozenset[int], stamp: int, timeframe: Any) -> frozenset[int]:
        # Of a bar of several days: those of its first day; worlds with actions have bars of at most a day.
        day = instant(stamp).astimezone(NEW_YORK).date()
        return frozenset(number for number in base if security.actions[number].day > day)

    @staticmethod
    def _effect(security: Any, applied: Iterable[int]) -> tuple[float, float]:
        """Return the factors of prices and of sizes: a split and its reverse are as if neither had happened."""
        actions = [security.actions[number] for number in sorted(applied)]
        splits = prod(one.factor for one in actions if one.kind == "split")
        return round(splits * prod(one.factor for one in actions if one.kind != "split"), 12), round(splits, 12)

    def _wanted(self, what: Happened) -> None:
        """What a run asked for is written down before it asks the vendor, and stays so."""
        for key, spans in what.requested.items():
            asked = any(ask.run == "main" for ask in what.asks_of(key)) or what.report is not None
            lost = minus(minus(spans, what.after.claims_of(key).wanted), what.removed.get(key, ()))
            if (
                asked
                and lost
                and not _withdrawn(what.error)
                and not (_failed(what, key, "renamed") or _failed(what, key, "ended"))
            ):
                raise Violation(f"(e) {key}: {shown(lost)} was requested, and is not written down")

        for key, claims in what.before.claims.items():
            sure = claims.wanted if what.durable is None else common(claims.wanted, what.durable.claims_of(key).wanted)
            lost = minus(sure, [*what.after.claims_of(key).wanted, *what.removed.get(key, ())])
            if lost and not _withdrawn(what.error):
                raise Violation(f"(c) {key}: {shown(lost)} was requested earlier, and is not written down any more")

    def _report(self, what: Happened) -> None:
        report = what.report
        if report is None or not what.alone:
            return
        failures = len(report["codes"])
        lost = sum(len(what.before.rows_of(key).keys() - what.after.rows_of(key).keys()) for key in what.before.rows)
        self._sessions(what)
        for key, spans in what.requested.items():
            name = label(report, key)
            code = report["codes"].get(name)
            missing = self._missing(what, key, spans)
            rows, claims = what.after.rows_of(key), what.after.claims_of(key)
            if code is None and missing and not what.undated:
                raise Violation(f"(e) {key} is reported complete, and lacks {shown(missing)}")
            # Of an adjusted series that broke off, what might have to be removed is asked for once more, and may fail then.
            if code in _OF_REQUESTS and not missing and is_raw(key[0]) and self._was_answered(what, key):
                raise Violation(
                    f"(e) {key} is reported to have failed with {code}; all its requests were answered, and it lacks nothing"
                )
            if code == "no_data" and (rows or missing):
                raise Violation(f"(e) {key} is reported to have no data; it has {len(rows)} bars and lacks {shown(missing)}")
            if code not in (None, *_NO_FAULT) and not what.faulty and not what.undated:
                raise Violation(f"(e) {key} failed though nothing did: {code} {report['failed']}")
            left = self._missing(
                what, key, self._of_security(what, key, claims.wanted)
            )  # a killed run may have left bars there that nobody has counted
            if code is None and not left and report["bars"][name] != len(rows):
                raise Violation(f"(e) {key} holds {len(rows)} bars; the report says {report['bars'][name]}")
            if code is None and not left and not claims.changing and claims.bars != len(rows):
                raise Violation(f"(e) {key} holds {len(rows)} bars; its coverage counts {claims.bars}")
        if (report.exit_code == 0) != (not failures):
            raise Violation(f"(e) {failures} failed, and the exit code is {report.exit_code}")
        again = any("adjusted anew" in note or "fetched again" in note for note in report["notes"])
        if not what.stored and not what.removed and not again and not what.faulty:
            added = sum(len(what.after.rows_of(key).keys() - what.before.rows_of(key).keys()) for key in what.after.rows)
            if report.changes.added != added:
                raise Violation(f"(e) {added} bars were added; the report says {report.changes.added}")
            if report.changes.removed != lost:
                raise Violation(f"(e) {lost} bars were removed; the report says {report.changes.removed}")
            kept = self._kept(what)
            if report.changes.vanished != kept and not what.undated:
                raise Violation(
                    f"(e) {kept} bars were kept though the answer lacked them; the report says {report.changes.vanished}"
                )

    def _comparison(self, what: Happened) -> None:
        """What was fetched again and is new is stored, what differs is counted, and taken over if it was to be."""
        report = what.compared
        if report is None or what.error is not None or not what.alone:
            return
        failed = {(series.dataset.name, series.symbol) for series in report.failed}
        added = removed = revised = 0
        for key in what.after.keys:
            before, after = what.before.rows_of(key), what.after.rows_of(key)
            added += len(after.keys() - before.keys())
            removed += len(before.keys() - after.keys())
            revised += sum(before[stamp] != after[stamp] for stamp in before.keys() & after.keys())
            if key not in failed and not what.before.claims_of(key).changing:
                self._compared(what, key)
        if failed and what.faulty:
            return
        told = (
            (report.added, report.accepted.total.removed, report.accepted.total.revised) if report.accepted else (report.added,)
        )
        if told != ((added, removed, revised) if what.accept else (added,)):
            raise Violation(f"(e) {added} bars were added, {removed} removed and {revised} revised; the report says {told}")
        if not what.accept and (removed or revised):
            raise Violation(f"(c) {removed} bars were removed and {revised} revised by a comparison")

    def _compared(self, what: Happened, key: Key) -> None:
        before, after = what.before.rows_of(key), what.after.rows_of(key)
        covered = what.before.claims_of(key).covered
        differing: set[int] = set()
        for ask in what.asks_of(key):
            span, said = ask.answered(key[1]), ask.said.get(key[1], {})
            for stamp in sorted({*said, *before}) if span else ():
                if not inside(stamp, common(covered, [span])):
                    continue
                theirs = said[stamp][0] if stamp in said else None
                if stamp not in before and after.get(stamp) != theirs:
                    raise Violation(f"(b) {key}: the bar of {instant(stamp)} was fetched again, and is not stored")
                if after.get(stamp) != theirs:
                    differing.add(stamp)
                if what.accept and after.get(stamp) != theirs and (theirs is not None or what.removes):
                    raise Violation(f"(e) {key}: {theirs} was to be accepted for {instant(stamp)}; stored is {after.get(stamp)}")
        if what.after.claims_of(key).conflicting < len(differing):
            raise Violation(f"(e) {key}: {len(differing)} bars differ, and {what.after.claims_of(key).conflicting} are counted")

    def _sessions(self, what: Happened) -> None:
        """Whoever is said to lack a session was given no bar of it, and none lies beside the answer."""
        for day, keys in _missing_days(what).items():
            for key in keys:
                bars = session_range(dataset_of(key), day)
                session = [(micros(bars.start), micros(bars.end))]
                said = [stamp for stamp in _said(what, key) if inside(stamp, session)]
                asked = [span for ask in what.asks_of(key) if (span := ask.answered(key[1]))]
                beside = [stamp for stamp in what.after.rows_of(key) if inside(stamp, minus(session, asked))]
                if said or beside:
                    raise Violation(f"(e) {key} is said to lack {day}, and has the bar of {instant(min([*said, *beside]))}")

    @staticmethod
    def _was_answered(what: Happened, key: Key) -> bool:
        """Tell whether all requests for a series were answered, or broke off after bars of it that had ended."""
        asks = what.asks_of(key)
        return bool(asks) and all(ask.complete or (key[1] < ask.last and ask.answered(key[1])) for ask in asks)

    def _kept(self, what: Happened) -> int:
        """Count the stored bars that a complete answer to their range lacked."""
        kept = 0
        for key in filter(lambda key: is_raw(key[0]), what.after.rows):  # of others nothing is kept, and some is only compared
            asks = [(span, ask.said.get(key[1], {})) for ask in what.asks_of(key) if (span := ask.answered(key[1]))]
            spans = joined(span for span, _ in asks)
            for stamp in what.after.rows_of(key) if asks else ():
                if not inside(stamp, spans):
                    continue
                over = [said for span, said in asks if span[0] <= stamp < span[1]]
                kept += bool(over) and all(stamp not in said for said in over)
        return kept

    def _missing(self, what: Happened, key: Key, spans: Spans) -> Spans:
        """Return what was requested, can hold bars that have ended, and is not claimed."""
        dataset = _dataset(what, key) or dataset_of(key)
        limit = floor(what.clock - (960_000_000 if what.refused else 0), dataset.timeframe)
        left = minus(common(spans, [(0, limit)]), what.after.claims_of(key).all)
        return with_sessions(left, dataset)


def with_sessions(spans: Spans, dataset: Dataset) -> Spans:
    """Return the ranges in which a bar can start."""
    return [(start, end) for start, end in spans if can_hold_bars(TimeRange(instant(start), instant(end)), dataset)]


def dataset_of(key: Key) -> Dataset:
    return Dataset.from_name(key[0])


def _dataset(what: Happened, key: Key) -> Dataset | None:
    return next((ask.dataset for ask in what.asks_of(key)), None)


def _missing_days(what: Happened) -> dict[date, list[Key]]:
    """Return the sessions that a run called missing, and the series that it says lack them."""
    days: dict[date, list[Key]] = {}
    if what.report is not None:
        failed = dict(what.report["failed"])
        for key in what.after.keys:
            name = label(what.report, key)
            if what.report["codes"].get(name) == "session_missing":
                days.setdefault(date.fromisoformat(failed[name].split()[1]), []).append(key)
    return days


def reopened(what: Happened, key: Key) -> Spans:
    """Return the ranges of the sessions that a run called missing: no series is covered there any more."""
    ranges = [session_range(dataset_of(key), day) for day in _missing_days(what)]
    timeframe = dataset_of(key).timeframe
    return [(micros(span.start), micros(span.end)) for span in map(timeframe.widen, ranges)]


def _said(what: Happened, key: Key) -> dict[int, set[Values]]:
    said: dict[int, set[Values]] = {}
    for ask in what.asks_of(key):
        for stamp, (values, _) in ask.said.get(key[1], {}).items():
            if next_bar(stamp, ask.dataset.timeframe) <= ask.now:
                said.setdefault(stamp, set()).add(values)
    return said


def _withdrawn(error: BaseException | None) -> bool:
    return getattr(error, "code", "") == "clock_ahead"


def _failed(what: Happened, key: Key, code: str) -> bool:
    return what.report is not None and what.report["codes"].get(label(what.report, key)) == code


def outside_repeat(before: State, asks: list[Ask]) -> Iterator[str]:
    """Yield what a repeat at the same instant asked for beside what is provisional or tentative, or missing."""
    for ask in asks:
        start, end = micros(ask.span.start), micros(ask.span.end)
        for symbol in ask.symbols:
            claims = before.claims_of((ask.dataset.name, symbol))
            final = minus(common([(start, end)], claims.covered), claims.tentative)
            final = with_sessions(final, ask.dataset)
            if final and ask.dataset.adjustment.is_raw:
                yield f"{symbol} in {ask.dataset.name}: {shown(final)}"


__all__ = ["Happened", "Oracle", "Violation", "joined", "outside_repeat", "reopened", "with_sessions"]
