"""Input that nobody wrote, through ordinary commands: ``python tests/safety/fuzz_inputs.py --minutes 10``.

Responses of Alpaca, pages for the decoders, SQL, file names and coverage files are changed at random, and the decoder in C reads
pages with the sanitizers of the compiler (`decoder_fuzz.c`). The time is shared equally. It prints the seed first, stops at the
first violation (exit 1), and prints the command that shows it again. The last line says how many passed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import duckdb
import pandas as pd

import test_hostile_servers as servers
import test_hostile_sql as sqls
import test_hostile_stores as stores
from data_engine import ParquetStorage
from data_engine.alpaca import http_client, page_decoder_native, transport
from data_engine.alpaca.bars_protocol import read_any
from data_engine.alpaca.page_decoder import read_plain
from data_engine.alpaca.page_decoder_native import library, read_compiled
from data_engine.alpaca.page_format import frame
from data_engine.alpaca.retry import RetryPolicy
from data_engine.errors import BadAnswer
from data_engine.market.bars import VALUES
from data_engine.sandbox import Sandbox, SimulatedMarket
from hostile import Hostile, Play
from running import here, rows

Fuzz = Callable[[random.Random], None]
_SECONDS = 30  # an input that takes longer hangs
_DAY = 86_400_000_000
_JUNE_3 = 19_877  # 2024-06-03 in days since 1970
_BATCH = 20_000  # pages for the decoder under sanitizers in one process

# ------------------------------------------------------------------------------------------------------------------ changes

_PIECES = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\0", b"\x1b[2J", b"\r\n", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xae"),
    *(b"null", b"true", b"1e400", b"-1", b"01", b".5", b"9" * 19, b"1" * 400, b"NaN", b"\\ud800", b"\\u0000", b"0.1e-320"),
    *(b'"t":"2024-06-03T08:00:00Z"', b'"next_page_token":"x"', b'"bars":{', b'"AAPL":[', b"9999-12-31T23:59:59Z", b"2024-02-30"),
    *(b"0001-01-01T00:00:00Z", b'{"a":1}', b'"9h":2', b'"vw":,', b"[" * 3000, b"Content-Length: 5\r\n"),
    b"HTTP/1.1 100 Continue\r\n", servers.SECRET.encode(),
)  # fmt: skip


def changed(chance: random.Random, data: bytes, most: int = 6) -> bytes:
    """Return bytes with a few changes: another byte, a piece cut out, repeated, moved or put in, or the end cut off."""
    made = bytearray(data)
    for _ in range(chance.randint(1, most)):
        at = chance.randrange(len(made) + 1)
        to = min(len(made), at + chance.choice([1, 1, 2, 5, 30]))
        match chance.randrange(7):
            case 0 if at < len(made):
                made[at] = chance.randrange(256)
            case 1 if at < len(made):
                made[at] ^= 1 << chance.randrange(8)
            case 2:
                del made[at:to]
            case 3:
                made[at:at] = made[at:to] * chance.choice([1, 1, 2, 50])
            case 4:
                there = chance.randrange(len(made) + 1)
                made[there:there] = made[at:to]
            case 5 if chance.random() < 0.1:
                del made[at:]
            case _:
                made[at : to if chance.random() < 0.5 else at] = chance.choice(_PIECES)
    return bytes(made)


def another(chance: random.Random, value: Any, depth: int = 0) -> Any:
    """Return a value of JSON with one part of it replaced."""
    if isinstance(value, dict) and value and depth < 6 and chance.random() < 0.9:
        name = chance.choice(sorted(value))
        return {**value, chance.choice([name, name, name, "odd", ""]): another(chance, value[name], depth + 1)}
    if isinstance(value, list) and value and depth < 6 and chance.random() < 0.8:
        at = chance.randrange(len(value))
        made = [*value[:at], another(chance, value[at], depth + 1), *value[at + 1 :]]
        return chance.choice([made, made, made, made + value, made[::-1], made[1:]])
    odd = [
        None,
        True,
        -1,
        0,
        2**63,
        10**400,
        1.5,
        1e308,
        float("nan"),
        "",
        "x",
        stores.ESC,
        "\ud800",
        [],
        {},
        [[]],
        [{}],
        "2024-13",
    ]
    return chance.choice(
        [*odd, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2024-06-03", "../../x", "\0", "x" * 5000, [[1, 2]]]
    )


# ------------------------------------------------------------------------------------------------------------------ answers


def answers(folder: Path) -> Fuzz:
    """Serve changed responses to `ingest`; `status` and `verify` then work."""
    policy = RetryPolicy(tries=2, base=0.001, cap=0.002, give_up_after=5.0)
    known = [play for play, _ in servers.SERVERS.values() if isinstance(play, bytes) and len(play) < 20_000]
    known += [servers.page({"AAPL": [servers.bar(f"2024-06-03T13:{minute}:00Z") for minute in range(30, 50)]})] * len(known)

    def fuzz(chance: random.Random) -> None:
        played = [rewritten(chance, chance.choice(known)) for _ in range(chance.randint(1, 3))]
        store = Path(tempfile.mkdtemp(dir=folder)) / "store"
        os.chdir(store.parent)
        with (
            patch.multiple(http_client, RetryPolicy=lambda: policy, _BAD_PAGE_TRIES=1),
            patch.multiple(transport, _RESPONSE_SECONDS=0.5),
            Hostile(*(Play(data, chance.choice(["keep", "close", "reset"])) for data in played)) as server,
        ):
            ran = here(*servers.WORDS, "--workers", 1, url=server.url)
        if ran.code:  # a good run says that it was one
            servers.check(ran)
        assert ran.code in (0, 1, 3, 6), ran.text
        assert servers.ODD.search(ran.text) is None, ran.text
        assert all(row[0] == "AAPL" and row[1] // _DAY == _JUNE_3 for row in rows(store)), rows(store)
        servers.files_are_clean(store) if ran.code else None
        for words in (("status",), ("verify",)):
            later = here(*words, "--base-path", store, env={})
            servers.check(later)
            assert later.code in ((0, 4, 5) if words == ("verify",) else (0, 4)), later.text
        shutil.rmtree(store.parent)

    return fuzz


def rewritten(chance: random.Random, response: bytes) -> bytes:
    """Change a response: usually its body, with the length that it then has, else any of its bytes."""
    head, end, body = response.partition(b"\r\n\r\n")
    if chance.random() < 0.3:
        return changed(chance, response)
    body = changed(chance, body)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + end + body


# -------------------------------------------------------------------------------------------------------------------- pages


def page_bodies() -> list[bytes]:
    """Return pages in all the forms that the quick decoders know."""
    bar = b'{"c":12.5,"h":13,"l":9,"n":7,"o":10.25,"t":"2024-06-03T13:30:00Z","v":1200,"vw":10.125}'
    later = b'{"t":"2024-06-03T13:31:00Z","o":1,"h":1.5,"l":0.5,"c":1,"v":9007199254740993,"n":1,"vw":0.30000000000000004}'
    more = bar[:-1] + b',"x":null,"y":"text","z":-1.5e3}'
    lists = [b'"AAPL":[%b]' % b",".join(row) for row in ([bar], [bar, later], [later] * 3, [more, bar])]
    lists += [b",".join([lists[1], lists[0].replace(b"AAPL", b"BRK.B"), lists[3].replace(b"AAPL", b"C")]), b""]
    tails = [b',"next_page_token":null}', b',"next_page_token":"QUFQTHxNfDE3"}', b',"currency":"USD","next_page_token":null}\n']
    return [b'{"bars":{%b}%b' % (one, tail) for one in lists for tail in tails]


def pages(folder: Path) -> Fuzz:
    """Compare the quick decoders with the general one: what they read is what it reads, and they raise nothing."""
    bodies, code = page_bodies(), library()

    def outcome(read: Callable[[bytes], Any], body: bytes) -> Any:
        page = read(body)
        if page is None:
            return None
        table = page.table.to_pydict()
        # What no double can hold is infinite for a quick decoder, and both are refused (`read_page`).
        finite = all(math.isfinite(value) for name in VALUES for value in table[name])
        return (table, page.slices, page.token, page.unknown) if finite else BadAnswer

    def fuzz(chance: random.Random) -> None:
        for _ in range(200):
            body = changed(chance, chance.choice(bodies), chance.choice([1, 1, 2, 6]))
            found = [outcome(read_plain, body)] + ([outcome(lambda it: read_compiled(it, code), body)] if code else [])
            if any(one is not None for one in found):
                try:
                    framed = frame(body)  # `read_page` compares the currency that it names with the one requested
                    general = outcome(partial(read_any, currency=framed and framed.currency), body)
                except BadAnswer:
                    general = BadAnswer
                assert all(one is None or repr(one) == repr(general) for one in found), (body, found, general)

    return fuzz


# ---------------------------------------------------------------------------------------------------------------------- SQL

_WRAPS = (
    "{}", "({})", "SELECT * FROM ({}) AS t", "WITH x AS ({}) FROM x", "SELECT ({})", "FROM (VALUES (1)) AS v, LATERAL ({}) AS t",
    "{} UNION ALL SELECT 1", "SELECT 1 WHERE EXISTS ({})", "DESCRIBE {}", "SUMMARIZE {}", "EXPLAIN {}", "EXPLAIN ANALYZE {}",
    "/* {} */ SELECT 1", "SELECT 1; {}", "{}; SELECT 1", "-- x\n{}", "SELECT list_transform([1], lambda i: ({}))",
    "CREATE TABLE t AS {}",
    "FROM query($q${}$q$)", "WITH x AS MATERIALIZED ({}) SELECT 1", "PREPARE p AS {}", "SELECT CASE WHEN true THEN ({}) END",
    "FROM json_execute_serialized_sql(json_serialize_sql($q${}$q$))", "PIVOT ({}) ON x", "COPY ({}) TO 'fuzz.csv'", "SHOW {}",
    "CALL {}",
)  # fmt: skip


def sql(folder: Path) -> Fuzz:
    """Run statements that are put together: none writes, none shows what is in files beside the store."""
    times = pd.date_range("2024-06-03T14:00", periods=5, freq="min", tz="UTC")
    index = pd.MultiIndex.from_product([["AAPL"], times], names=["symbol", "timestamp"])
    ParquetStorage(folder / "store").store(pd.DataFrame(1.0, index=index, columns=list(VALUES)), "1Min")
    for name in ("own.csv", ".env"):
        (folder / name).write_text(f"line={sqls.PRIVATE}\n")
    with duckdb.connect(folder / "own.db") as made:
        made.execute(f"CREATE TABLE t AS SELECT '{sqls.PRIVATE}' AS line")
        made.execute(f"COPY t TO '{folder}/own.parquet'")
    before = sqls.state(folder)
    texts = [*sqls.REFUSED.values(), *sqls.HARMLESS, "FROM bars_1min", "SELECT 1 AS x", "FROM coverage"]
    texts = [
        text.format(base=folder / "store", own=folder, bar=folder / "store" / sqls.BAR) for text in texts if len(text) < 2000
    ]

    def fuzz(chance: random.Random) -> None:
        os.chdir(folder)
        text = chance.choice(texts)
        for _ in range(chance.randint(0, 3)):
            text = chance.choice(_WRAPS).replace("{}", text)
        if chance.random() < 0.5:
            words, other = text.split(" "), chance.choice(texts).split(" ")
            at = chance.randrange(len(words))
            words[at : at + chance.randint(0, 2)] = chance.choice(
                [other[:3], other, [chance.choice(other)], ["--"], ["/*"], ["*/"]]
            )
            text = " ".join(words)
        options = chance.choice([(), (), (), ("--explain",), ("--json",), ("--format", "csv")])
        ran = here("query", text, "--base-path", "store", "--memory", "200MB", *options, env={"HOME": str(folder)})
        assert ran.code in (0, 2), (text, ran)
        # What the user wrote may be in the answer; what files hold may not.
        assert sqls.PRIVATE not in ran.text, (text, ran)
        assert not any(word in ran.text for word in ("Traceback", "internal error")), (text, ran)
        assert servers.ODD.search(ran.err) is None, (text, ran)
        assert sqls.state(folder) == before, text

    return fuzz


# ----------------------------------------------------------------------------------------------------------- names, coverage


def made_store(folder: Path) -> Path:
    """Return a store with two series and a list, as `ingest` makes it."""
    base = folder / "made"
    with Sandbox(SimulatedMarket()) as server:
        for words in (("AAPL", "--index", "list"), ("KO",)):
            ran = here("ingest", *words, "--start", "2024-06-03", "--end", "2024-06-04", "--base-path", base, url=server.url)
            assert ran.code == 0, ran.text
    return base


def commands_work(base: Path, ko: int, *, plan: bool) -> None:
    """Check that every command ends as it should, and that *ko* bars of KO, which nobody changed, can be read."""
    for command in (*stores.COMMANDS, *((stores.PLAN,) if plan else ())):
        ran = here(*command, "--base-path", base, url="http://127.0.0.1:9")
        stores.check(ran)
        assert command[0] != "query" or (ran.code, str(ko) in ran.out) == (0, True) or plan, ran.text


def names(folder: Path) -> Fuzz:
    """Put files, folders, pipes and links with odd names anywhere into a store."""
    made = made_store(folder)
    parts = ["equities_1min", "equities_1day", "symbol=AAPL", "symbol=B", "symbol=", "year=2024", "year=", "month=06", "month=6"]
    parts += [
        "data.parquet",
        "data_0.parquet",
        ".data.parquet",
        "metadata",
        "coverage",
        "indices",
        "wanted",
        "actions",
        "runs",
        "locks",
    ]
    parts += [
        "drafts",
        "symbol=AAPL.json",
        "symbol=%1B.json",
        "list.csv",
        "2024-06.jsonl",
        "run.lock",
        "%2F",
        "%00",
        "..%2F",
        "store.json",
    ]

    def name(chance: random.Random) -> bytes:
        part = chance.choice(parts).encode()
        if chance.random() < 0.4:
            part = changed(chance, part, 2)
        return part.replace(b"/", b"").replace(b"\0", b"")[:200].strip(b".") or b"x"

    before = [row for row in rows(made) if row[0] == "KO"]

    def fuzz(chance: random.Random) -> None:
        base = Path(tempfile.mkdtemp(dir=folder)) / "store"
        shutil.copytree(made, base)
        for _ in range(chance.randint(1, 4)):
            path = base.joinpath(*(os.fsdecode(name(chance)) for _ in range(chance.randint(1, 6))))
            if "symbol=KO" not in str(path):
                odd_file(chance, path, base)
        commands_work(base, len(before), plan=False)
        assert ko_of(base) == before
        shutil.rmtree(base.parent)

    return fuzz


def odd_file(chance: random.Random, path: Path, base: Path) -> None:
    """Make a file of some kind where nothing is."""
    try:
        if os.path.lexists(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        match chance.randrange(7):
            case 0:
                os.mkfifo(path)
            case 1:
                path.mkdir()
            case 2:
                path.symlink_to(chance.choice(["nowhere", "/dev/zero", "..", str(path), "/"]))
            case 3:
                shutil.copy(base / stores.BAR, path)
            case 4:
                shutil.copy(base / stores.COVERAGE, path)
            case _:
                path.write_bytes(changed(chance, b'{"format":1}\n'))
    except OSError:
        return  # a name that is too long, or a file where a folder is to be


def ko_of(base: Path) -> list[Any]:
    """Return the bars of KO, by its own files."""
    alone = base.parent / "alone"
    shutil.copytree(base / "equities_1min" / "symbol=KO", alone / "equities_1min" / "symbol=KO")
    return rows(alone)


def coverage(folder: Path) -> Fuzz:
    """Change what is known of AAPL: its values, or its bytes."""
    made = made_store(folder)
    metadata = [
        path.relative_to(made) for path in sorted((made / "metadata").rglob("*")) if path.suffix in (".json", ".csv", ".jsonl")
    ]
    metadata = [path for path in metadata if "KO" not in path.name]

    def fuzz(chance: random.Random) -> None:
        base = Path(tempfile.mkdtemp(dir=folder)) / "store"
        shutil.copytree(made, base)
        before = rows(base)
        path = base / chance.choice([stores.COVERAGE, stores.COVERAGE, str(chance.choice(metadata))])
        if path.suffix == ".json" and chance.random() < 0.6:
            value = json.loads(path.read_bytes())
            for _ in range(chance.randint(1, 3)):
                value = another(chance, value)
            path.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")
        else:
            path.write_bytes(changed(chance, path.read_bytes()))
        commands_work(base, sum(row[0] == "KO" for row in before), plan=True)
        assert rows(base) == before
        shutil.rmtree(base.parent)

    return fuzz


# --------------------------------------------------------------------------------------------------- the decoder in C, checked


def decoder(folder: Path) -> Fuzz:
    """Read changed pages in C with every array of exactly its size, under the address and undefined-behaviour sanitizers."""
    compiler = next(filter(shutil.which, ("clang", "gcc", "cc")), None)
    if compiler is None:
        raise LookupError("no C compiler")
    source, program = Path(page_decoder_native.__file__).with_suffix(".c"), folder / "decoder"
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSOURCE_CRC=0", f'-DDECODER="{source}"']
    built = [compiler, *flags, "-o", program, Path(__file__).with_name("decoder_fuzz.c")]
    done = subprocess.run(built, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LookupError(f"{compiler} builds nothing with sanitizers: {done.stderr.splitlines()[-1:]}")
    corpus = folder / "pages"
    corpus.mkdir()
    for number, body in enumerate(page_bodies()):
        (corpus / f"{number:02d}").write_bytes(body)
    inputs = sorted(corpus.iterdir())

    def fuzz(chance: random.Random) -> None:
        words = [program, str(chance.randrange(2**63)), str(_BATCH), *inputs]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS * 10)
        assert done.returncode == 0, f"{done.stdout[-500:]}{done.stderr[:3000]}"

    return fuzz


# ---------------------------------------------------------------------------------------------------------------------- main

KINDS: dict[str, Callable[[Path], Fuzz]] = {
    "answers": answers, "sql": sql, "names": names, "coverage": coverage, "pages": pages, "decoder": decoder,
}  # fmt: skip
_INPUTS = {"pages": 200, "decoder": _BATCH}  # of one call


def too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"hung for {_SECONDS} s")


def one_kind(kind: str, seed: int, only: int | None, seconds: float) -> tuple[int, str | None]:
    """Fuzz one kind for some time; return how many inputs passed, and the violation if there was one."""
    with tempfile.TemporaryDirectory(prefix="data-engine-fuzz-") as folder:
        try:
            fuzz = KINDS[kind](Path(folder))
        except LookupError as error:
            print(f"{kind}: skipped, {error}", flush=True)
            return 0, None
        deadline, number = time.monotonic() + seconds, only or 0
        while time.monotonic() < deadline or only is not None:
            signal.alarm(_SECONDS)
            try:
                fuzz(random.Random(f"{kind} {seed} {number}"))
            except Exception as error:  # noqa: BLE001 - the finding
                text = repr(str(error))[:3000]
                return number, f"{type(error).__name__}: {text}\nagain: {__file__} --kinds {kind} --seed {seed} --only {number}"
            finally:
                signal.alarm(0)
                os.chdir("/")
            number += 1
            if only is not None:
                return 1, None
        return number * _INPUTS.get(kind, 1), None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--only", type=int, default=None, metavar="NUMBER", help="the one that failed, again")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    for name in list(os.environ):
        if name.startswith(("ALPACA_", "APCA_", "AWS_", "DATA_ENGINE_", "XDG_")):
            del os.environ[name]
    signal.signal(signal.SIGALRM, too_long)
    passed: Counter[str] = Counter()
    failed = 0
    for kind in arguments.kinds:
        passed[kind], violation = one_kind(kind, seed, arguments.only, 60 * arguments.minutes / len(arguments.kinds))
        print(f"  {kind}: {passed[kind]:,}", flush=True)
        if violation is not None:
            print(f"VIOLATION in {kind}: {violation}", flush=True)
            failed += 1
    print(f"{passed.total()} passed, {failed} failed, seed {seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
