"""``export --to parquet``: the files of a store as they are or were, byte for byte, against copies that the test keeps itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import duckdb
import pandas as pd
import pytest

from data_engine import MetadataStore, ParquetStorage
from data_engine.errors import StoreBusy
from data_engine.export import state_export
from data_engine.store.bar_store import BarStore
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from running import COLUMNS, Ran, here

KEPT = ("equities_", "metadata/coverage/", "metadata/wanted/", "metadata/actions/", "metadata/indices/")


def bars(symbol: str, first: str, count: int, price: float, freq: str = "1min") -> pd.DataFrame:
    times = pd.date_range(first, periods=count, freq=freq, tz="UTC")
    index = pd.MultiIndex.from_arrays([[symbol] * count, times], names=["symbol", "timestamp"])
    return pd.DataFrame(price, index=index, columns=list(COLUMNS))


def export(base: Path, out: Path, *words: str) -> Ran:
    return here("export", "--to", "parquet", "--base-path", str(base), *words, str(out))


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of a store that a state has, found without the program."""
    files = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return {name: path.read_bytes() for name, path in files if name.startswith(KEPT)}


def instant_of(base: Path) -> str:
    return StoreHistory(ParquetStorage(base).files).records[-1].instant.isoformat()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, dict[str, bytes]]]]:
    """A store after many changes, and what its files were after each of them."""
    base, rng, states = tmp_path_factory.mktemp("made") / "store", Random(7), list[tuple[str, dict[str, bytes]]]()
    storage = ParquetStorage(base)
    for number in range(12):
        symbol = rng.choice(["A", "BRK.B", "CON"])
        if number % 5 == 4:
            MetadataStore(base).store("ours", ["A", f"S{number}"])
        elif number == 7:
            known = sorted(storage.bars.symbols(next(iter(storage.bars.coverage.datasets()))))
            assert here("remove", known[0], "--base-path", str(base)).code == 0
        elif number % 3 == 2:
            storage.store(bars(symbol, "2024-01-02 05:00", rng.randint(1, 60), float(number), "1D"), "1Day")
        else:
            storage.store(bars(symbol, f"2024-0{rng.randint(1, 3)}-28 13:30", rng.randint(1, 6000), float(number)), "1Min")
        states.append((instant_of(base), content(base)))
    return base, states


@pytest.fixture
def base(made: tuple[Path, object], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "store")
    return tmp_path / "store"


def test_each_past_state_is_exported_byte_for_byte(made, tmp_path):
    base, states = made
    for number, (instant, expected) in enumerate(states):
        out = tmp_path / str(number)
        result = export(base, out, "--as-stored-on", instant, "--json")
        assert result.code == 0, result.text
        assert content(out) == expected
        assert (result.json["files"], result.json["bytes"]) == (len(expected), sum(map(len, expected.values())))
    assert len({frozenset(state.items()) for _, state in states}) > 8
    assert export(base, tmp_path / "now").code == 0
    assert content(tmp_path / "now") == content(base)


def test_an_export_is_a_store_that_says_of_itself_what_the_store_says_of_then(made, tmp_path):
    base, states = made
    instant, out = states[6][0], tmp_path / "out"
    export(base, out, "--as-stored-on", instant)
    digest = here("status", "--digest", "--base-path", str(base), "--as-stored-on", instant).out
    columns = f"symbol, epoch_us(timestamp), {', '.join(COLUMNS)}"
    glob = f"read_parquet('{out}/equities_1min/**/*.parquet', hive_partitioning = true, hive_types = {{'symbol': VARCHAR}})"
    then = ParquetStorage(base).load(["A", "BRK.B", "CON"], "2024-01-01", "2024-12-31", incomplete="ignore", as_stored_on=instant)
    stamps = then.index.get_level_values("timestamp").as_unit("us").asi8

    assert here("status", "--digest", "--base-path", str(out)).out == digest
    assert duckdb.sql(f"SELECT {columns} FROM {glob} ORDER BY 1, 2").fetchall() == [
        (symbol, stamp, *values)
        for symbol, stamp, values in zip(
            then.index.get_level_values("symbol"), stamps.tolist(), then.to_numpy().tolist(), strict=True
        )
    ]
    assert here("verify", "--base-path", str(out)).code == 0


def test_a_second_export_writes_only_what_differs(base, tmp_path):
    out, storage = tmp_path / "out", ParquetStorage(base)
    assert export(base, out, "--dry-run", "--json").json["written_files"] == len(content(base))
    assert not out.exists()
    export(base, out)
    old = content(out)
    times = {name: (out / name).stat().st_mtime_ns for name in old}
    storage.store(bars("A", "2024-01-28 13:30", 2, 99.0), "1Min")
    again = export(base, out, "--json").json
    new = content(out)

    assert new == content(base)
    changed = {name for name in new if new[name] != old.get(name)}
    assert (again["written_files"], again["written_bytes"]) == (len(changed), sum(len(new[name]) for name in changed))
    assert {name for name in old if (out / name).stat().st_mtime_ns != times[name]} == changed & old.keys()


def test_two_states_do_not_mix_and_nothing_of_the_user_is_removed(base, made, tmp_path):
    out = tmp_path / "out"
    export(base, out)
    (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for words in (["--as-stored-on", made[1][0][0]], [], ["--symbols", "A"]):
        refused = export(base, out, *words, "--json")
        assert (refused.code, refused.json["error"]["code"]) == (2, "bad_input")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "notes.txt").unlink()
    (out / "metadata/.left.json.part").write_text("of an export that was killed")
    assert export(base, out).code == 0
    assert not (out / "metadata/.left.json.part").exists()


def test_a_folder_in_the_store_or_around_it_is_refused(base, tmp_path):
    for folder in (base, base / "metadata", tmp_path):
        assert export(base, folder, "--as-stored-on", instant_of(base)).code == 2
    (tmp_path / "file").write_text("")
    assert export(base, tmp_path / "file").code == 2


@pytest.mark.parametrize("words", [["--session", "regular"], ["--resample", "1Day"], ["--venue", "X"], ["--lossy"], ["--strict"]])
def test_what_would_change_the_files_is_refused(base, tmp_path, words):
    assert export(base, tmp_path / "out", *words).code == 2
    assert not (tmp_path / "out").exists()


def chosen(state: dict[str, bytes], *parts: str) -> set[str]:
    return {name for name in state if all(part in name for part in parts)}


def test_symbols_datasets_and_ranges_choose_whole_files(base, tmp_path):
    state = content(base)
    lists = chosen(state, "metadata/indices")

    def exported(*words: str) -> set[str]:
        out = tmp_path / f"out {words}"
        assert export(base, out, *words).code == 0
        found = content(out)
        assert found == {name: state[name] for name in found}
        return found.keys() - lists

    assert exported("--symbols", "brk.b") == chosen(state, "/symbol=BRK.B")
    assert exported("--timeframe", "1Day") == chosen(state, "equities_1day")
    assert exported("--index", "ours") == chosen(state, "/symbol=A/") | chosen(state, "/symbol=A.json")
    month = exported("--start", "2024-03-01", "--end", "2024-03-31", "--timeframe", "1Min")
    assert month == chosen(state, "equities_1min/", "month=03/")
    assert export(base, tmp_path / "none", "--symbols", "ZZZ").code == 2


@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_export_that_broke_off_claims_no_bar_that_is_not_there(base, tmp_path, monkeypatch, after):
    storage, out = ParquetStorage(base), tmp_path / "out"
    export(base, out)
    old = content(base)
    for symbol in ("A", "BRK.B", "CON"):
        storage.store(bars(symbol, "2024-01-25 13:30", 6000, 50.0), "1Min")
    new, written, write = content(base), list[Path](), state_export.write_whole

    def failing(path: Path, body: bytes) -> bool:
        if len(written) == after:
            raise OSError(28, "No space left on device", str(path))
        if write(path, body):
            written.append(path)
        return True

    monkeypatch.setattr(state_export, "write_whole", failing)
    broke = export(base, out, "--json")
    assert (broke.code, broke.json["error"]["code"], len(written)) == (4, "store_error", after)
    left = content(out)
    for name in chosen(left, "metadata/coverage/"):
        folder = f"{name.removeprefix('metadata/coverage/').removesuffix('.json')}/"
        assert any(
            {key: state.get(key) for key in (name, *chosen(state, folder))}.items() <= left.items() for state in (old, new)
        )
    monkeypatch.undo()
    assert export(base, out).code == 0
    assert content(out) == new


class Changing(LocalFiles):
    """The files of a store in which somebody stores bars whenever the export has read some."""

    times = 1

    def get(self, key: str) -> bytes | None:
        content = super().get(key)
        if self.times and key.startswith("equities_1min/"):
            self.times -= 1
            symbol = key.split("=")[1].split("/")[0]
            ParquetStorage(self.base).store(bars(symbol, "2024-05-28 13:30", 3 + self.times, 7.0 + self.times), "1Min")
        return content


def test_what_a_run_changes_while_it_is_exported_is_exported_whole_or_not_at_all(base, tmp_path):
    files, call = Changing(base), state_export.StateCall(tmp_path / "out", None, DatasetFilter(), None)
    before = content(base)
    state_export.StateExport(BarStore(files), call, folder=base).run()
    assert content(tmp_path / "out") == content(base) != before

    files.times = 1000
    call = state_export.StateCall(tmp_path / "other", None, DatasetFilter.parse("1Min"), None)
    with pytest.raises(StoreBusy):
        state_export.StateExport(BarStore(files), call, folder=base).run()
    assert chosen(content(tmp_path / "other"), "metadata/coverage/equities_1min/") == set()


def test_engines_get_the_bars_of_then(base, made, tmp_path):
    instant = made[1][8][0]
    then, _ = tmp_path / "then", export(base, tmp_path / "state", "--as-stored-on", instant)
    words = ["export", "--to", "qlib", "--symbols", "BRK.B", "--lossy", "--base-path"]
    assert here(*words, str(base), "--as-stored-on", instant, str(then)).code == 0
    assert here(*words, str(tmp_path / "state"), str(tmp_path / "same")).code == 0
    assert here(*words, str(base), str(tmp_path / "now")).code == 0

    def features(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.bin")}

    assert features(then) == features(tmp_path / "same")
    assert features(then) != features(tmp_path / "now")
    assert here(*words, str(base), "--as-stored-on", instant, str(base / "in")).code == 2
