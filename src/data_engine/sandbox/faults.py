"""Choose faults to make on purpose: what has been seen to go wrong between Alpaca and a client, repeatable."""

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
    """The faults that requests meet, and how often.

    Each admitted request draws at most one fault, from only the seed and its number: the same requests in the same order meet
    the same faults. The kinds:

    * ``429`` without any header, as recorded; ``429_reset`` with the limit headers; ``429_retry_after`` with Retry-After
    * ``500`` as JSON; ``502``, ``503``, ``504`` as HTML
    * ``reset``: the connection is reset in mid-body; ``stall``: the body stops half-way
    * ``cut_gzip``: half a compressed body, of which Content-Length says it is whole; ``identity``: not compressed
    * ``short``: a third of the rows, and a token; ``empty``: no row, and a token

    Attributes:
        probabilities: The probability of each kind that may happen.
        seed: The seed of the sequence of faults.
        retry_after: The seconds that ``429_retry_after`` states.
        stall_seconds: The seconds that ``stall`` waits for the client to go before it closes the connection. If None, for ever.
        fail_symbols: The symbols whose requests are always answered 500.
        always: A status, or a kind of fault, for every request. If None, faults are drawn.
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
            raise InputError(f"cannot make faults: there is no fault {', '.join(unknown)}; use {', '.join(KINDS)} or all")
        if any(not 0 <= share <= 1 for share in self.probabilities.values()) or sum(self.probabilities.values()) > 1 + 1e-9:
            raise InputError(
                f"cannot make faults: probabilities must be between 0 and 1, and at most 1 in all, with {self.probabilities}"
            )

    @classmethod
    def parse(cls, spec: str, *, seed: int = 0, retry_after: int = 1, stall_seconds: float | None = None) -> Faults:
        """Return the faults of a text such as ``429=0.05,reset=0.05,all=0.2``; ``all`` is spread evenly over all kinds.

        Raises:
            InputError: If a kind is unknown, a probability is no number, or the sum is more than 1.
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
            raise InputError(f"cannot read the fault {item!r}; write kind=probability, such as 429=0.05") from None
