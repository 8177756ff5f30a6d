"""Define the errors, grouped by what the caller can do about them.

    DataEngineError
    ├── InputError                 input cannot be used; nothing was sent or written                (exit 2)
    │   ├── ConfigError            settings.ini, an environment variable or an option cannot be used
    │   │   └── ClockError         this machine's clock is ahead of Alpaca's
    │   ├── SymbolListError        a list of symbols cannot be used
    │   ├── MissingFileError       a named file does not exist (also a FileNotFoundError)
    │   └── UnknownIndexError      no index of that name is stored (also a KeyError)
    ├── SourceError                Alpaca refused, or sent no usable response
    │   ├── CredentialsRefused     Alpaca refuses every request of these keys                       (exit 3)
    │   ├── SourceUnavailable      one request got no usable response, after bounded retries        (exit 6)
    │   │   └── ServiceDown        no request got a usable response for ten minutes; the run stops
    │   ├── RequestRefused         a 4xx response; a retry would not help
    │   │   ├── InvalidSymbol      one symbol is malformed; the others can be requested again
    │   │   ├── RecentDataRefused  the plan refuses the latest 15 minutes
    │   │   └── UriTooLong         the request must be split
    │   └── BadAnswer              a response that is not what was requested
    │       └── OutOfOrder         a page whose bars come before those of an earlier one
    ├── StoreError                 the store cannot be found, read or written                       (exit 4)
    │   ├── StoreBusy              another process has locked it                                    (exit 7)
    │   ├── FileInUse              a reader keeps one file open (Windows); its series fails
    │   ├── ForeignFiles           files of the legacy pipeline are where bars would be written or read
    │   └── DamagedFile            one file of the store cannot be read
    │       └── HistoryEnds        what one file was at an earlier instant is not known
    └── Interrupted                Ctrl-C or SIGTERM (also a KeyboardInterrupt)                     (exit 130)

Every class has a ``code``, an identifier for programs, and an ``exit_code``, that of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_engine.ingest.outcome import IngestionReport
    from data_engine.ingest.recheck import RecheckReport


class DataEngineError(Exception):
    """The root of every error that this package raises on purpose.

    Attributes:
        code: An identifier for programs; it does not change within a minor version.
        exit_code: The exit code of the command line.
        report: The result until then, if a whole ingestion failed; else None.
        recheck: The result until then, if a recheck or an audit failed as a whole; else None.
    """

    code = "error"
    exit_code = 1
    report: IngestionReport | None = None
    recheck: RecheckReport | None = None


class InputError(DataEngineError, ValueError):
    """Input cannot be used. The message names the value and the remedy."""

    code = "bad_input"
    exit_code = 2


class ConfigError(InputError):
    """A setting cannot be used: a file, an environment variable or an option."""

    code = "bad_configuration"


class ClockError(ConfigError):
    """This machine's clock is ahead of Alpaca's, so that future ranges would be recorded as final without bars."""

    code = "clock_ahead"


class SymbolListError(InputError):
    """A list of symbols cannot be used. One message has all its problems."""

    code = "bad_symbol_list"


class MissingFileError(InputError, FileNotFoundError):
    """A named file does not exist."""

    code = "missing_file"

    def __reduce__(self) -> tuple[object, ...]:
        # OSError's own way to pickle does not know that this is a ValueError, too.
        return type(self), self.args, vars(self)

    def __str__(self) -> str:
        # OSError would print its (empty) errno form.
        return str(self.args[0])


class UnknownIndexError(InputError, KeyError):
    """No index of that name is stored. The message lists those that exist."""

    code = "unknown_index"

    def __str__(self) -> str:
        # KeyError prints the repr of its argument: quotes and escapes around the message.
        return str(self.args[0])


class SourceError(DataEngineError):
    """Alpaca refused a request, or sent no usable response.

    Attributes:
        isolated: Whether another request of the run got a usable response since this one failed for the first time. If not,
            the service may be down for all.
    """

    code = "source_error"
    isolated = False


class CredentialsRefused(SourceError):
    """Alpaca refused the keys. The run stops: no other request could succeed."""

    code = "credentials_refused"
    exit_code = 3


class SourceUnavailable(SourceError):
    """No usable response after bounded retries: connection refused, time-outs, repeated 429 or 5xx."""

    code = "unavailable"
    exit_code = 6


class ServiceDown(SourceUnavailable):
    """No request got a usable response for ten minutes, and the run stops."""


class RequestRefused(SourceError):
    """Alpaca refused this request permanently (4xx).

    Attributes:
        status: The HTTP status.
        concerns_symbols: Whether the refusal is about the symbols, so that fewer of them may be accepted.
    """

    code = "refused"

    def __init__(self, message: str, *, status: int = 400, concerns_symbols: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.concerns_symbols = concerns_symbols


class InvalidSymbol(RequestRefused):
    """One symbol of the request is malformed.

    Attributes:
        symbol: The symbol, as Alpaca printed it.
    """

    code = "invalid_symbol"

    def __init__(self, symbol: str, *, status: int = 400) -> None:
        super().__init__(f"invalid symbol: {symbol}", status=status)
        self.symbol = symbol

    def __reduce__(self) -> tuple[type[InvalidSymbol], tuple[str], dict[str, object]]:
        # An exception is unpickled from its arguments, here the message and not the symbol.
        return type(self), (self.symbol,), self.__dict__


class RecentDataRefused(RequestRefused):
    """The plan refuses the latest 15 minutes of the consolidated tape."""

    code = "recent_data_refused"


class UriTooLong(RequestRefused):
    """The request has more symbols than fit into a request line (414)."""

    code = "uri_too_long"


class BadAnswer(SourceError):
    """A response that is not what was requested. None of it is stored."""

    code = "bad_answer"


class OutOfOrder(BadAnswer):
    """A page whose bars come before those of an earlier one: that a symbol is finished, the earlier pages do not tell either."""


class StoreError(DataEngineError):
    """The store cannot be found, read or written. The message names the path."""

    code = "store_error"
    exit_code = 4


class StoreBusy(StoreError):
    """Another process kept the store, or a file of it, locked for the whole waiting time."""

    code = "store_busy"
    exit_code = 7


class FileInUse(StoreError):
    """A reader kept one file open until the attempts to replace it ended. Other files are not affected."""

    code = "file_in_use"


class ForeignFiles(StoreError):
    """Files of the legacy pipeline are in the folder of a series, or make up the whole folder. Nothing was written."""

    code = "foreign_files"


class DamagedFile(StoreError):
    """A file of the store cannot be read. Other files are not affected."""

    code = "damaged_file"


class HistoryEnds(DamagedFile):
    """What a file was at an earlier instant is not known: no record of the history explains it. Other files are not affected."""

    code = "history_ends"


OF_ONE_FILE = (DamagedFile, FileInUse, StoreBusy)
"""Errors that concern one file: its series fails, and the others go on."""


class Interrupted(DataEngineError, KeyboardInterrupt):
    """The run was interrupted (Ctrl-C, SIGTERM). What had arrived is stored."""

    code = "interrupted"
    exit_code = 130


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a series could not be completed, as data: one series' failure never stops the others.

    Attributes:
        code: An identifier for programs: that of an error above, or one of its own such as ``no_data``.
        message: The reason, for people.
    """

    code: str
    message: str

    @classmethod
    def of(cls, error: DataEngineError) -> Failure:
        """Return the failure that an error is for the series that it concerns."""
        return cls(error.code, str(error))
