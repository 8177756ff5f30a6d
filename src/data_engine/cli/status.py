"""``status``: what a store holds, and what is wanted and missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import (
    choice_options,
    print_json,
    print_store,
    refuse_unknown,
    size,
    store_options,
)
from data_engine.cli.update import _SHOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from data_engine.market.series import Series
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.status import IndexStatus, SeriesStatus


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@click.option("--index", "index_name", metavar="NAME", help="Only of this list, and name its members without bars.")
@choice_options
@click.option("--all", "everything", is_flag=True, help="List every series, however many there are.")
@click.option(
    "--digest", "with_digest", is_flag=True, help="Print one digest of all bars, to compare stores by. Reads every bar."
)
@store_options
def status(
    symbols: tuple[str, ...],
    index_name: str | None,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    everything: bool,
    with_digest: bool,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Say what the store holds, and what is wanted and missing: series, ranges, bars, bytes."""
    from data_engine.errors import InputError
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store
    from data_engine.store.selection import DatasetFilter
    from data_engine.universe.index_store import MetadataStore
    from data_engine.universe.symbol_lists import SymbolLoader
    from data_engine.verify.status import index_status, series_status

    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    storage.check_exists()
    if symbols and index_name is not None:
        raise InputError("name symbols or --index, not both")
    choice = DatasetFilter.parse(timeframe, feed, adjustment)
    names = SymbolLoader.from_list(symbols) if symbols else None
    events = None if index_name is None else MetadataStore(files=storage.files).history(index_name)
    if events is not None:
        names = sorted({event.symbol for event in events})
    found = list(series_status(storage, choice, names))
    if symbols:
        refuse_unknown(names or (), {one.series.symbol for one in found})
    of_index = []
    if events is not None:
        of_index = index_status(events, [one for one in storage.coverage.datasets() if one in choice], found)
    digest = _digest(storage, choice, names) if with_digest else None
    if with_digest and not as_json:
        click.echo(digest)
        return
    if as_json:
        print_json(
            {
                "store": storage.files.location,
                "series": [one.to_json() for one in found],
                "bars": sum(one.coverage.bars for one in found),
                "bytes": sum(one.bytes for one in found),
                **({"digest": digest} if digest else {}),
                **({"index": {"name": index_name, "datasets": [one.to_json() for one in of_index]}} if index_name else {}),
            }
        )
        return
    for one in of_index:
        for line in _index_lines(str(index_name), one):
            click.echo(line)
    for line in _lines(found, everything=everything or bool(symbols)):
        click.echo(line)


def _index_lines(name: str, one: IndexStatus) -> list[str]:
    """Return who of an index has no bars, for people."""
    lines = [f"{name} in {one.dataset.name}: {one.members - len(one.without):,} of {one.members:,} members have bars"]
    if one.without:
        lines.append(f"  without: {' '.join(one.without)}")
    if one.former and one.span is not None:
        held = one.former - len(one.former_without)
        lines.append(f"  of {one.former:,} more that were members at some time in {one.span}, {held:,} have bars from then")
    if one.former_without:
        lines.append(f"  without: {' '.join(one.former_without)}")
    return lines


def _digest(storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None) -> str:
    """Return the digest of all bars of a choice, those without coverage included."""
    from data_engine.market.digest import series_digest, store_digest
    from data_engine.verify.verify import known_series

    def tables(one: Series) -> Iterator[pa.Table]:
        return (storage.read(one, part.period) for part in storage.partitions(one.dataset, one.symbol))

    return store_digest({one: series_digest(tables(one)) for one in known_series(storage, choice, names)})


def _lines(found: Sequence[SeriesStatus], *, everything: bool) -> list[str]:
    """Return a summary per dataset, then the series: all of them if there are few, else those that lack something."""
    from data_engine.market.time_range import iso

    lines = []
    for dataset in dict.fromkeys(one.series.dataset for one in found):
        ours = [one for one in found if one.series.dataset == dataset]
        states = ", ".join(f"{count} {state}" for state, count in _counts(ours).items())
        bars = sum(one.coverage.bars for one in ours)
        lines.append(f"{dataset.name}: {len(ours):,} series ({states}), {bars:,} bars, {size(sum(one.bytes for one in ours))}")
        listed = ours
        if not everything and len(ours) > _SHOWN:
            listed = [one for one in ours if one.state not in ("held", "empty") or one.rename]
        for one in listed if everything else listed[:_SHOWN]:
            known = one.coverage
            reach = f"{iso(known.covered[0].start)} .. {iso(known.covered[-1].end)}" if known.covered else "nothing final"
            lines.append(f"  {one.series.symbol:<8} {one.state:<10} {known.bars:>12,} bars  {reach}")
            lines += [f"           missing {hole}" for hole in one.missing[:3]]
            lines += [f"           nobody asked for {gap}" for gap in one.unasked[:3]]
            if len(one.unasked) > 3:
                lines.append(f"           nor for {len(one.unasked) - 3} more ranges")
            if one.rename is not None:
                lines.append(f"           {one.rename}{_beyond(one)}")
            if len(one.missing) > 3:
                lines.append(f"           and {len(one.missing) - 3} more holes")
            if one.problem or (one.missing and known.failure):
                lines.append(f"           {one.problem or (known.failure and known.failure.message)}")
        left = len(ours) - len(listed)
        if not everything and left:
            lines.append(f"  and {left} complete series (--all lists them)")
    return lines or ["No series of that kind is in the store."]


def _beyond(one: SeriesStatus) -> str:
    """Say of a series whose security left the ticker what it holds of the time after."""
    if one.rename is None or one.coverage.last_bar is None or one.coverage.last_bar < one.rename.instant:
        return ""
    return f"; bars of after that are the next owner's: `data-engine remove {one.series.symbol} --start {one.rename.day}`"


def _counts(found: Sequence[SeriesStatus]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in found:
        counts[one.state] = counts.get(one.state, 0) + 1
    return counts
