"""Say whether all that was requested of some series is there: `state_of_series`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_engine.agents.scope import digest_of
from data_engine.market.wording import and_more
from data_engine.verify.status import SeriesStatus


def state_of_series(found: Sequence[SeriesStatus]) -> dict[str, Any]:
    """Return the fields that are in every answer about whole series.

    Args:
        found: The state of each of them.
    """
    lacking = [one for one in found if one.missing or one.problem is not None]
    unverified = [one for one in found if one.coverage.bars and not (one.coverage.covered or one.coverage.provisional)]
    names = (f"{one.series} {one.problem or and_more(one.missing, 3, 'ranges')}" for one in lacking)
    return {
        "complete": not lacking and not unverified,
        "missing": and_more(names, 5, separator="; ") or None,
        "series_by_state": {state: sum(one.state == state for one in found) for state in sorted({one.state for one in found})},
        "ranges": {
            "final": sum(len(one.coverage.covered) for one in found),
            "provisional": sum(len(one.coverage.provisional) for one in found),
            "missing": sum(len(one.missing) for one in found),
        },
        "unverified": and_more((one.series for one in unverified), 5) or None,
        "digest": digest_of(one.coverage for one in found),
    }
