"""Report what most series of a dataset have in common once: a source without extended hours says nothing about 500 symbols."""

from __future__ import annotations

from collections.abc import Sequence

from data_engine.market.series import Dataset
from data_engine.market.wording import and_more
from data_engine.verify.findings import Finding

_SERIES = 20  # with fewer, each has its own finding

_SHARE = 0.5  # of the series of the dataset

_SHOWN = 3

_CODES = (
    "extended_hours_missing",
    "minutes_missing",
    "series_begins_late",
    "series_ends_early",
    "session_repeated",
    "timestamps_shifted",
    "volume_unusual",
)


def of_whole_dataset(dataset: Dataset, findings: Sequence[Finding], series: int) -> list[Finding]:
    """Return findings about the series of a dataset, with one for all where most have the same.

    Args:
        dataset: The dataset.
        findings: The findings.
        series: The number of series that were checked.
    """
    kept = list(findings)
    for code in _CODES:
        alike = [finding for finding in kept if finding.code == code and finding.series is not None]
        if len(alike) < max(_SERIES, _SHARE * series):
            continue
        symbols = and_more((finding.series.symbol for finding in alike if finding.series), _SHOWN)
        text = f"{dataset.name}: {len(alike)} of {series} series ({symbols}); {alike[0]}"
        kept = [finding for finding in kept if finding not in alike]
        kept.append(Finding(code, text))
    return kept
