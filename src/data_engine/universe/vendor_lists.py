"""Keep Alpaca's list of securities as dated indices: `us_active`, `us_inactive` and, apart, those that trade over the counter.

An index has tickers. A ticker with an active and an inactive security is that of the active one, so it is in the list of active
ones only; its former owner is ``S@DATE``. A list is dated by the day on which it was fetched: Alpaca has no dates of listings and
delistings, so nothing is known of the days before the first one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_engine.alpaca.assets_protocol import OTC, STATUSES, Asset, AssetsPage
from data_engine.errors import BadAnswer, InputError, UnknownIndexError
from data_engine.market.series import Feed
from data_engine.market.wording import and_more
from data_engine.universe.index_changes import IndexChange
from data_engine.universe.membership import Members

if TYPE_CHECKING:
    from data_engine.alpaca.assets_client import AssetsClient
    from data_engine.universe.index_store import MetadataStore

UNIVERSE = ("us_active", "us_inactive")
"""The indices of securities that trade, or traded, on exchanges: those of which the consolidated tape has bars."""

OTC_UNIVERSE = ("us_active_otc", "us_inactive_otc")
"""The indices of securities that trade, or traded, over the counter."""

_TOLERATED = 5  # one member in this many may be in neither list; more are missing from a response that is not whole


@dataclass(frozen=True, slots=True)
class VendorLists:
    """Alpaca's lists of securities, as tickers.

    Attributes:
        active: The tickers of active securities, sorted.
        inactive: The tickers that only inactive securities have, sorted.
        reassigned: The tickers of active securities that an inactive one has too, sorted.
        unusable: Why rows of the responses cannot be used.
        unfetchable: The tickers that are in no list, since requests for bars refuse them, sorted.
        everywhere: All tickers of the responses, whatever the status and the exchange.
    """

    active: tuple[str, ...]
    inactive: tuple[str, ...]
    reassigned: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    unfetchable: tuple[str, ...] = ()
    everywhere: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UniverseReport:
    """The result of an update.

    Attributes:
        changes: What changed in each index.
        lists: The lists that were fetched.
        requests: The number of requests.
        stored: Whether the lists were stored.
    """

    changes: tuple[IndexChange, ...]
    lists: VendorLists
    requests: int
    stored: bool

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the JSON object of the command."""
        return {
            "indices": [
                {"index": one.name, "members": one.members, "added": list(one.added), "removed": list(one.removed)}
                for one in self.changes
            ],
            "reassigned": list(self.lists.reassigned),
            "unfetchable": list(self.lists.unfetchable),
            "unusable_rows": list(self.lists.unusable),
            "requests": self.requests,
            "stored": self.stored,
        }


def names_of(feed: object = None) -> tuple[str, str]:
    """Return the names of the indices of active and inactive securities that a feed has bars of.

    Raises:
        InputError: If there is no such feed, or it has no universe of its own.
    """
    chosen = Feed.parse(feed)
    if chosen in (Feed.SIP, Feed.DELAYED_SIP, Feed.ACCOUNT, Feed.IEX):
        return UNIVERSE
    if chosen is Feed.OTC:
        return OTC_UNIVERSE
    raise InputError(f"cannot list the securities of feed {chosen.value}; use sip or otc")


def vendor_lists(active: AssetsPage, inactive: AssetsPage, *, otc: bool) -> VendorLists:
    """Return the tickers of two responses.

    Args:
        active: The response with the active securities.
        inactive: The response with the inactive ones.
        otc: Whether those that trade over the counter are meant, or all others.

    Raises:
        BadAnswer: If there is no active security at all.
    """
    if not active.assets:
        raise BadAnswer("cannot use the list of active securities: it is empty")
    # Of a ticker that an active security has on an exchange or over the counter, the inactive one is a former owner.
    every = (*active.assets, *inactive.assets)
    owned = {asset.symbol for asset in active.assets}
    left = _tickers(inactive.assets, otc=otc)
    return VendorLists(
        active=tuple(sorted(_tickers(active.assets, otc=otc))),
        inactive=tuple(sorted(left - owned)),
        reassigned=tuple(sorted(left & owned)),
        unusable=(*active.unusable, *inactive.unusable),
        unfetchable=tuple(sorted({one.symbol for one in every if (one.exchange == OTC) is otc and not one.is_fetchable})),
        everywhere=frozenset(asset.symbol for asset in every),
    )


def _tickers(assets: Iterable[Asset], *, otc: bool) -> set[str]:
    return {asset.symbol for asset in assets if (asset.exchange == OTC) is otc and asset.is_fetchable}


def update_universe(
    lists: MetadataStore, client: AssetsClient, *, feed: object = None, force: bool = False, dry_run: bool = False
) -> UniverseReport:
    """Fetch Alpaca's list of securities, and store it as indices with the date of today in New York.

    Both lists are fetched and checked before the first is stored. The same lists again change nothing. As long as a row cannot be
    used, members that are in neither list stay.

    Args:
        lists: The indices of the store.
        client: The client of the trading API.
        feed: The feed whose securities are meant: ``otc`` for those that trade over the counter. If None, the others.
        force: Whether to accept lists in which more than 20 % of the members are missing.
        dry_run: Whether to store nothing.

    Raises:
        InputError: If more than 20 % of the members are in neither list, or a list became empty; nothing was stored.
        BadAnswer: If a response cannot be trusted; nothing was stored.
        SourceError: If Alpaca refuses, or gives no usable response; nothing was stored.
        StoreError: If the store cannot be read or written.
    """
    names = names_of(feed)
    sent = client.requests
    fetched = vendor_lists(*map(client.assets, STATUSES), otc=names == OTC_UNIVERSE)
    there = lists.names()
    before = {name: lists.members(name) if name in there else {} for name in names}
    symbols = dict(zip(names, (fetched.active, fetched.inactive), strict=True))
    _refuse_loss(before, symbols, fetched.everywhere, force=force)
    if fetched.unusable:  # the row of a member that is in neither list may be one that cannot be used
        symbols = {name: _with_absent(before[name], listed, fetched.everywhere) for name, listed in symbols.items()}
    changes = tuple(_change(name, before[name], symbols[name]) for name in names)
    for name in names:
        if symbols[name] and not dry_run:
            lists.store(name, symbols[name])
    return UniverseReport(changes, fetched, client.requests - sent, not dry_run)


def _with_absent(members: Members, symbols: Sequence[str], everywhere: Collection[str]) -> tuple[str, ...]:
    """Return a list with the members that are in no list."""
    return tuple(sorted({*symbols, *(symbol for symbol in members if symbol not in everywhere)}))


def _refuse_loss(
    before: Mapping[str, Members], symbols: Mapping[str, Sequence[str]], everywhere: Collection[str], *, force: bool
) -> None:
    """Refuse lists that are not whole. What moves from one list to the other, or to another exchange, is not lost."""
    for name, members in before.items():
        if members and not symbols[name]:
            raise InputError(f"cannot store an empty list as index {name!r}, which has {len(members):,} members")
        lost = [symbol for symbol in members if symbol not in everywhere]
        if not force and _TOLERATED * len(lost) > len(members):
            raise InputError(
                f"cannot store the list of securities: {len(lost):,} of the {len(members):,} members of index {name!r} are in "
                f"neither list of Alpaca, more than 20 % ({and_more(lost, 3)}); run `data-engine universe update` later, or pass "
                "--force (force=True)"
            )


def _change(name: str, before: Members, symbols: Sequence[str]) -> IndexChange:
    now = set(symbols)
    added = tuple(symbol for symbol in symbols if symbol not in before)
    return IndexChange(name, len(symbols), added, tuple(symbol for symbol in before if symbol not in now))


def stored_universe(lists: MetadataStore) -> list[str]:
    """Return the names of the stored indices of the universe.

    Raises:
        UnknownIndexError: If there is none.
    """
    there = lists.names()
    found = [name for name in (*UNIVERSE, *OTC_UNIVERSE) if name in there]
    if not found:
        raise UnknownIndexError("no list of securities is stored; run `data-engine universe update`")
    return found
