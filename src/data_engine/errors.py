"""What can go wrong, grouped by what the caller can do about it.

    DataEngineError
    ├── InputError                 the caller's words cannot be used; nothing was sent or written     (exit 2)
    │   ├── ConfigError            settings.ini, an environment variable or an option
    │   │   └── ClockError         this machine's clock is ahead of the vendor's
    │   ├── SymbolListError        a list of symbols cannot be read as one
    │   ├── MissingFileError       a file that was named is not there (also a FileNotFoundError)
    │   └── UnknownIndexError      no list of that name is stored (also a KeyError)
    ├── SourceError                the vendor said no, or nothing that can be used
    │   ├── CredentialsRefused     every further request would be refused too                          (exit 3)
    │   ├── SourceUnavailable      one request got no usable answer, after bounded retries                (exit 6)
    │   │   └── ServiceDown        no request did, for minutes: the whole run stops
    │   ├── RequestRefused         a 4xx answer: asking again would not help
    │   │   ├── InvalidSymbol      one symbol spoils the request; the others can be asked again
    │   │   ├── RecentDataRefused  the plan does not permit the latest 15 minutes
    │   │   └── UriTooLong         the request must be split
    │   └── BadAnswer              an answer that cannot be trusted to be bars
    ├── StoreError                 the store cannot be found, read or written                          (exit 4)
    │   ├── StoreBusy              another process holds it                                            (exit 7)
    │   ├── FileInUse              a reader holds one file open (Windows); its series fails
    │   └── DamagedFile            one file of the store is not what it should be
    └── Interrupted                the user, or the system, asked us to stop (also a KeyboardInterrupt)     (exit 130)

Every class carries ``code``, a stable word for machines, and ``exit_code``, what the command line ends with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_engine.ingest.outcome import IngestionReport


class DataEngineError(Exception):
    """The root of every error that this package raises on purpose.

    Attributes:
        code: a stable word, for machines.
        exit_code: what the command line ends with.
        report: of what was done until then, where an ingestion failed as a whole; else None.
    """

    code = "error"
    exit_code = 1
    report: IngestionReport | None = None
    told = False  # whether the command line has printed it as JSON


class InputError(DataEngineError, ValueError):
    """The caller's words cannot be used. The message names the value and the remedy."""

    code = "bad_input"
    exit_code = 2


class ConfigError(InputError):
    """A setting cannot be used: a file, an environment variable or an option."""

    code = "bad_configuration"


class ClockError(ConfigError):
    """This machine's clock is ahead of the vendor's: what has not happened yet would count as final, and empty."""

    code = "clock_ahead"


class SymbolListError(InputError):
    """A list of symbols cannot be read. All problems of the list are in one message."""

    code = "bad_symbol_list"


class MissingFileError(InputError, FileNotFoundError):
    """A file that the caller named does not exist."""

    code = "missing_file"

    def __reduce__(self) -> tuple[object, ...]:
        # OSError's own way between processes does not know that this is a ValueError, too.
        return type(self), self.args, vars(self)

    def __str__(self) -> str:
        # OSError would print its (empty) errno form.
        return str(self.args[0])


class UnknownIndexError(InputError, KeyError):
    """No index of that name is stored. The message lists those that are."""

    code = "unknown_index"

    def __str__(self) -> str:
        # KeyError prints the repr of its argument: quotes and escapes around a sentence.
        return str(self.args[0])


class SourceError(DataEngineError):
    """The vendor refused, or did not give an answer that can be used."""

    code = "source_error"


class CredentialsRefused(SourceError):
    """The keys were not accepted. The whole run stops: nothing else could succeed."""

    code = "credentials_refused"
    exit_code = 3


class SourceUnavailable(SourceError):
    """No usable answer after bounded retries: connection refused, time-outs, 429 or 5xx without end."""

    code = "unavailable"
    exit_code = 6


class ServiceDown(SourceUnavailable):
    """Nobody got a usable answer for so long that the whole run stops."""


class RequestRefused(SourceError):
    """The vendor refused this request for good (4xx).

    Attributes:
        status: the HTTP status.
        concerns_symbols: whether the refusal is about the symbols, so that fewer of them may be accepted.
    """

    code = "refused"

    def __init__(self, message: str, *, status: int = 400, concerns_symbols: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.concerns_symbols = concerns_symbols


class InvalidSymbol(RequestRefused):
    """The vendor named one symbol of the request as malformed.

    Attributes:
        symbol: the symbol, as the vendor printed it.
    """

    code = "invalid_symbol"

    def __init__(self, symbol: str, *, status: int = 400) -> None:
        super().__init__(f"invalid symbol: {symbol}", status=status)
        self.symbol = symbol

    def __reduce__(self) -> tuple[type[InvalidSymbol], tuple[str], dict[str, object]]:
        # An exception is made anew from its arguments, which here is the sentence, not the symbol.
        return type(self), (self.symbol,), self.__dict__


class RecentDataRefused(RequestRefused):
    """The subscription does not permit the latest 15 minutes of the consolidated tape."""

    code = "recent_data_refused"


class UriTooLong(RequestRefused):
    """The request named more symbols than a request line may hold (414)."""

    code = "uri_too_long"


class BadAnswer(SourceError):
    """An answer that is not what was asked for. Nothing of it is kept."""

    code = "bad_answer"


class StoreError(DataEngineError):
    """The store cannot be found, read or written. The message names the path."""

    code = "store_error"
    exit_code = 4


class StoreBusy(StoreError):
    """Another process holds the store, or a file of it, and did not let go in time."""

    code = "store_busy"
    exit_code = 7


class FileInUse(StoreError):
    """A reader kept one file open for so long that it could not be replaced. The others are not affected."""

    code = "file_in_use"


class DamagedFile(StoreError):
    """A file of the store cannot be read as what it should be. The others are not affected."""

    code = "damaged_file"


class Interrupted(DataEngineError, KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C, SIGTERM). What had arrived is stored."""

    code = "interrupted"
    exit_code = 130


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a series could not be completed, as data: one series' failure never stops the others.

    Attributes:
        code: A stable word, for machines; that of an error above, or a word of its own such as ``no_data``.
        message: The reason, for people.
    """

    code: str
    message: str

    @classmethod
    def of(cls, error: DataEngineError) -> Failure:
        """Return the failure that an error is for the series that it concerns."""
        return cls(error.code, str(error))
