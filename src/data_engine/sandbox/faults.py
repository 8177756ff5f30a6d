"""Faults on purpose: what has been seen to go wrong between the vendor and a client, switchable and repeatable."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from data_engine.errors import InputError

REFUSALS = ("429", "429_reset", "429_retry_after", "500", "502", "503", "504")

TRANSPORT = ("reset", "stall", "cut_gzip", "identity")

PAGES = ("short", "empty")

KINDS = (*REFUSALS, *TRANSPORT, *PAGES)


@dataclass(slots=True)
class Faults:
    """What goes wrong, and how often.

    Each request that was let in draws at most one fault, from the seed and its number alone: the same requests in the same
    order meet the same faults. The kinds:

    * ``429`` without any header, as recorded; ``429_reset`` with the limit headers; ``429_retry_after`` with Retry-After
    * ``500`` as JSON; ``502``, ``503``, ``504`` as HTML
    * ``reset``: the connection is reset in mid-body; ``stall``: the body stops half-way
    * ``cut_gzip``: half a compressed body, of which Content-Length says it is whole; ``identity``: not compressed
    * ``short``: a third of the rows, and a token; ``empty``: no row, and a token

    Attributes:
        probabilities: a probability for each kind that may happen.
        seed: another seed, another sequence.
        retry_after: what ``429_retry_after`` says, in seconds.
        stall_seconds: how long ``stall`` waits for the client to go before it hangs up; None waits for ever.
        fail_symbols: a request that names one of them is answered 500, always.
        always: a status that answers every request (also ``reset`` and the like), or None.
    """

    probabilities: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    retry_after: int = 1
    stall_seconds: float | None = None
    fail_symbols: Collection[str] = ()
    always: str | int | None = None

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.probabilities if kind not in KINDS]
        if unknown:
            raise InputError(f"no such fault: {', '.join(unknown)}; there are {', '.join(KINDS)}, and all")
        if any(not 0 <= share <= 1 for share in self.probabilities.values()) or sum(self.probabilities.values()) > 1 + 1e-9:
            raise InputError(f"probabilities of faults lie between 0 and 1 and add up to 1 at most: {self.probabilities}")

    @classmethod
    def parse(cls, spec: str, *, seed: int = 0, retry_after: int = 1, stall_seconds: float | None = None) -> Faults:
        """Read ``429=0.05,reset=0.05,all=0.2``; the share of ``all`` is spread evenly over all kinds and added to theirs.

        Raises:
            InputError: an unknown kind, not a number, or more than 1 in all.
        """
        probabilities: dict[str, float] = {}
        for kind, share in _shares(spec):
            for one in KINDS if kind == "all" else (kind,):
                probabilities[one] = probabilities.get(one, 0.0) + (share / len(KINDS) if kind == "all" else share)
        return cls(probabilities, seed=seed, retry_after=retry_after, stall_seconds=stall_seconds)

    def draw(self, number: int, symbols: Iterable[str] = ()) -> str | None:
        """Return the fault of the request with that *number* and those *symbols*, or None."""
        if self.always is not None:
            return str(self.always)
        if not set(self.fail_symbols).isdisjoint(symbols):
            return "500"
        if not self.probabilities:
            return None
        digest = blake2b(f"{self.seed}/{number}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest, "big") / 2**64
        for kind, share in sorted(self.probabilities.items()):
            if point < share:
                return kind
            point -= share
        return None


def _shares(spec: str) -> Iterable[tuple[str, float]]:
    for item in filter(None, (part.strip() for part in spec.split(","))):
        kind, _, text = item.partition("=")
        try:
            yield kind.strip(), float(text)
        except ValueError:
            raise InputError(f"a fault is written kind=probability, such as 429=0.05; this is not: {item!r}") from None
