"""Seeds that were violated, as the steps that were left of them: each failed before it was mended."""

from __future__ import annotations

from datetime import date

import pytest

from data_engine.market.exchange_calendar import sessions

from .market import Action, Security, at
from .seeds import run
from .state import common
from .test_rows import names, world
from .vendor import Faults
from .world import Step

STEPS = {
    50000121: [  # what came without a bar and was not compared is claimed by the next run
        Step(
            "ingest",
            symbols=("NOPE",),
            start="2024-03-23",
            refetch=True,
            hours=420.95833333333337,
            skew=240.0,
            faults=Faults(dated=False, page_bars=120),
            workers=2,
            salt=14,
        ),
        Step(
            "ingest",
            symbols=("DDD", "ZZZ"),
            start="2024-03-27",
            adjustment="all",
            hours=295.9666666666667,
            full_at=12,
            workers=2,
            salt=22,
        ),
        Step("update", start="2024-03-31", hours=1.2166666666666666, salt=23),
        Step(
            "ingest",
            symbols=("FFF", "HHH", "AAA", "EEE"),
            start="2024-03-31T09:30:00-04:00",
            adjustment="all",
            index="ours",
            repeat=True,
            hours=0.8083333333333333,
            faults=Faults(dated=False, page_bars=30),
            workers=1,
            salt=25,
        ),
        Step(
            "ingest",
            symbols=("EEE", "AAA", "ZZZ", "FBB", "BBB"),
            start="2024-03-24",
            adjustment="all",
            index="ours",
            hours=21.091666666666665,
            fails=0.02,
            salt=26,
        ),
        Step("update", start="2024-03-27", end="2024-03-30", hours=4.35, workers=1, salt=29),
        Step(
            "update",
            start="2024-04-04",
            end="2024-04-16",
            adjustment="all",
            index="ours",
            faults=Faults(dated=False, page_bars=120),
            page_limit=40,
            salt=30,
        ),
        Step(
            "ingest",
            symbols=("BBB", "FBB", "ZZZ", "FFF"),
            start="2024-03-25",
            end="2024-04-01",
            adjustment="all",
            hours=7.025,
            workers=4,
            salt=31,
        ),
    ],
    60000043: [  # what is requested of a series whose files cannot be read is written down
        Step(
            "ingest",
            symbols=("HHH", "EEE", "BBB", "CCC", "ZZZ", "NOPE"),
            start="2024-08-22",
            end="2024-08-24",
            timeframe="30Min",
            workers=4,
            salt=1,
        ),
        Step(
            "remove",
            symbols=("HHH",),
            start="2024-08-25",
            end="2024-08-29",
            timeframe="30Min",
            suspend_at=130,
            suspend_for=600.0,
            workers=4,
            salt=2,
        ),
        Step("store", symbols=("NOPE", "AAA"), start="2024-08-27", timeframe="30Min", hours=97.11666666666666, workers=2, salt=5),
        Step(
            "ingest",
            symbols=("FFF", "HHH", "ZZZ", "FBB", "AAA", "NOPE"),
            start="2024-08-25",
            end="2024-09-01T10:30:00-04:00",
            timeframe="30Min",
            index="ours",
            refetch=True,
            accept=True,
            hours=18.683333333333334,
            workers=1,
            salt=6,
        ),
        Step(
            "ingest",
            symbols=("GGG", "DDD", "EEE"),
            start="2024-09-01T09:00:00-04:00",
            timeframe="30Min",
            refetch=True,
            workers=1,
            salt=7,
        ),
        Step("ingest", symbols=("BBB",), start="2024-08-25T09:17:00-04:00", timeframe="30Min", index="ours", hours=4.8, salt=8),
        Step(
            "remove",
            symbols=("AAA", "CCC", "GGG", "ZZZ"),
            start="2024-09-01T09:30:00-04:00",
            timeframe="30Min",
            hours=3.216666666666667,
            workers=4,
            salt=9,
        ),
        Step(
            "update",
            start="2024-08-28",
            end="2024-09-19",
            timeframe="30Min",
            hours=24.0,
            kill_before=29,
            power=True,
            faults=Faults(page_bars=1000),
            page_limit=200,
            salt=10,
        ),
        Step(
            "ingest",
            symbols=("ZZZ",),
            start="2024-09-04",
            end="2024-09-05",
            timeframe="30Min",
            hours=26.15,
            interrupt_at=17,
            fails=0.003,
            workers=1,
            salt=12,
        ),
        Step(
            "update",
            start="2024-09-02",
            end="2024-09-04",
            timeframe="30Min",
            hours=48.0,
            kill_at=60,
            power=True,
            workers=2,
            salt=13,
        ),
        Step("repair", start="2024-09-07T09:30:00-04:00", end="2024-09-07", timeframe="30Min", workers=2, salt=14),
        Step(
            "ingest",
            symbols=("FFF", "BBB", "FBB", "EEE"),
            start="2024-08-27T09:30:00-04:00",
            timeframe="30Min",
            hours=24.0,
            full_at=21,
            fails=0.02,
            faults=Faults(page_bars=30),
            workers=4,
            salt=16,
        ),
    ],
    50000334: [  # a session that was asked for in part is compared in that part
        Step(
            "ingest",
            symbols=("FFF", "DDD", "EEE", "HHH", "GGG"),
            start="2024-10-10T09:17:00-04:00",
            end="2024-10-28",
            adjustment="split",
            index="ours",
            hours=962.8500000000001,
            kill_before=14,
            power=True,
            workers=2,
            salt=32,
        ),
        Step("update", start="2024-10-04", end="2024-10-11", repeat=True, hours=4.408333333333333, workers=2, salt=33),
    ],
    200000130: [  # `status` counts a file that a run has written to a provisional range before it was killed
        Step(
            "ingest",
            symbols=("AAA",),
            start="2024-02-28",
            end="2024-03-25",
            timeframe="1Day",
            hours=25.483333333333334,
            workers=1,
            salt=4,
        ),
        Step(
            "ingest",
            symbols=("FBB", "BBB", "EEE", "AAA"),
            start="2024-04-23T09:17:00-04:00",
            end="2024-04-26",
            index="ours",
            refetch=True,
            accept=True,
            hours=56.36666666666667,
            full_at=22,
            workers=2,
            salt=11,
        ),
        Step("update", start="2024-04-28", index="ours", hours=8.708333333333332, full_at=11, workers=2, salt=13),
        Step(
            "ingest",
            symbols=("FBB", "AAA"),
            start="2024-04-19",
            end="2024-04-29T10:30:00-04:00",
            index="ours",
            refetch=True,
            accept=True,
            hours=21.25,
            salt=16,
        ),
        Step(
            "update",
            start="2024-02-07T09:17:00-05:00",
            timeframe="1Day",
            index="ours",
            hours=2.966666666666667,
            kill_before=17,
            suspend_at=57,
            suspend_for=90.0,
            workers=2,
            salt=17,
        ),
        Step(
            "ingest",
            symbols=("FFF", "BBB", "CCC", "DDD", "NOPE"),
            start="2024-02-27",
            timeframe="1Day",
            index="ours",
            hours=20.975,
            workers=1,
            salt=18,
        ),
    ],
    300000008: [  # the last bar of a session is final later than those before it, and these are judged
        Step(
            "ingest",
            symbols=("NOPE", "FBB", "CCC"),
            start="2024-06-05T09:30:00-04:00",
            end="2024-07-09",
            timeframe="8Hour",
            index="ours",
            hours=300.5083333333333,
            salt=16,
        ),
        Step(
            "update",
            start="2024-05-12",
            timeframe="8Hour",
            hours=11.433333333333334,
            suspend_at=149,
            suspend_for=86400.0,
            workers=4,
            salt=18,
        ),
    ],
    300000030: [  # `status` counts what a user's killed process has written after another one had counted
        Step(
            "ingest",
            symbols=("AAA",),
            start="2024-06-25",
            end="2024-07-08",
            timeframe="1Hour",
            adjustment="split",
            refetch=True,
            hours=261.77500000000003,
            workers=1,
            salt=21,
        ),
        Step(
            "store",
            symbols=("BBB", "AAA"),
            start="2024-07-02",
            end="2024-07-29T20:30:00-04:00",
            timeframe="8Hour",
            hours=3.3833333333333333,
            kill_before=11,
            workers=1,
            salt=22,
            beside=Step("store", symbols=("BBB", "AAA"), start="2024-07-02", end="2024-07-29T20:30:00-04:00", timeframe="8Hour"),
        ),
    ],
    720000712: [  # no member of an index is stored, and of former ones nothing is left to fetch: said of each member, as before
        Step(
            "ingest", symbols=("NOPE",), start="2023-12-03", end="2023-12-21", timeframe="1Day", hours=816.1250000000001, salt=14
        ),
        Step(
            "ingest",
            symbols=("FFF", "GGG"),
            start="2024-01-15",
            end="2024-03-20",
            timeframe="1Day",
            index="ours",
            hours=33.225,
            salt=18,
        ),
        Step(
            "ingest",
            symbols=("NOPE",),
            start="2024-01-09T09:00:00-05:00",
            timeframe="1Day",
            index="ours",
            hours=0.6166666666666667,
            fails=0.02,
            workers=4,
            salt=19,
        ),
        Step(
            "remove",
            symbols=("AAA", "CCC", "NOPE", "HHH", "FFF"),
            start="2023-11-25",
            timeframe="1Day",
            hours=73.48333333333333,
            workers=4,
            salt=21,
        ),
        Step(
            "update",
            start="2024-01-30",
            timeframe="1Day",
            index="ours",
            repeat=True,
            hours=12.733333333333333,
            workers=1,
            salt=24,
        ),
    ],
    750000065: [  # a user who counts what he stored takes back the mark of another who is at work in the same file
        Step(
            "ingest",
            symbols=("HHH", "GGG", "AAA", "CCC"),
            start="2024-11-23",
            timeframe="1Hour",
            hours=360.47499999999997,
            workers=2,
            salt=20,
        ),
        Step(
            "store",
            symbols=("GGG",),
            start="2024-10-23",
            timeframe="1Hour",
            hours=24.0,
            full_at=8,
            salt=21,
            beside=Step("store", symbols=("GGG", "DDD"), start="2024-10-23", timeframe="1Hour"),
        ),
    ],
    780000030: [  # the same, of a removal that is killed
        Step(
            "ingest",
            symbols=("DDD", "ZZZ", "AAA", "EEE", "NOPE", "BBB"),
            start="2024-01-14",
            timeframe="1Hour",
            hours=544.375,
            workers=1,
            salt=12,
        ),
        Step(
            "ingest",
            symbols=("ZZZ",),
            start="2024-03-31",
            timeframe="1Hour",
            adjustment="dividend",
            hours=809.4666666666667,
            full_at=19,
            workers=1,
            salt=29,
            beside=Step(
                "remove",
                symbols=("ZZZ", "EEE"),
                start="2024-03-31",
                timeframe="1Hour",
                adjustment="dividend",
                kill_at=107,
                beside=Step(
                    "remove", symbols=("ZZZ", "EEE"), start="2024-03-31", timeframe="1Hour", adjustment="dividend", kill_at=125
                ),
            ),
        ),
        Step(
            "store",
            symbols=("DDD", "EEE"),
            start="2024-03-08T09:00:00-05:00",
            end="2024-05-13",
            timeframe="1Hour",
            hours=15.533333333333333,
            workers=2,
            salt=31,
            beside=Step(
                "remove",
                symbols=("DDD", "EEE"),
                start="2024-03-08T09:00:00-05:00",
                end="2024-05-13",
                timeframe="1Hour",
                adjustment="dividend",
                kill_at=118,
            ),
        ),
    ],
    780000014: [  # an 8 hour bar that contains the start of a range is not compared: it was never asked for
        Step(
            "ingest",
            symbols=("FFF", "EEE", "DDD", "ZZZ", "HHH", "AAA"),
            start="2024-09-19T09:17:00-04:00",
            timeframe="8Hour",
            adjustment="all",
            hours=120.26666666666667,
            salt=7,
        ),
        Step(
            "update",
            start="2024-08-31",
            timeframe="8Hour",
            adjustment="all",
            repeat=True,
            hours=85.56666666666666,
            workers=2,
            salt=16,
        ),
    ],
    810000102: [  # what a killed process had packed was removed before the name of the pack was flushed, and the power failed
        Step(
            "ingest",
            symbols=("FFF", "CCC"),
            start="2024-05-09T09:30:00-04:00",
            end="2024-05-16",
            hours=2.9166666666666665,
            salt=1,
        ),
        Step(
            "ingest",
            symbols=("NOPE", "GGG"),
            start="2024-05-17",
            end="2024-05-19",
            index="ours",
            hours=3.35,
            kill_at=131,
            workers=4,
            salt=2,
        ),
        Step("update", start="2024-05-12", hours=17.208333333333332, workers=1, salt=3),
        Step(
            "ingest",
            symbols=("FFF", "AAA", "CCC"),
            start="2024-05-16",
            timeframe="1Week",
            refetch=True,
            hours=360.0,
            kill_at=59,
            faults=Faults(page_bars=1000),
            workers=2,
            salt=4,
        ),
        Step(
            "update",
            start="2024-03-28",
            timeframe="1Week",
            repeat=True,
            hours=5.533333333333333,
            faults=Faults(free_plan=True, page_bars=1000),
            workers=2,
            salt=5,
        ),
        Step("store", symbols=("FFF", "AAA"), start="2024-06-03", end="2024-06-04", hours=4.2, salt=7),
        Step("ingest", symbols=("HHH",), start="2024-06-04T09:30:00-04:00", end="2024-06-04", refetch=True, hours=19.8, salt=8),
        Step("update", start="2024-05-28", hours=34.0, salt=10),
        Step("ingest", symbols=("FBB",), start="2024-05-28", index="ours", hours=46.025, kill_before=3, workers=1, salt=14),
        Step(
            "ingest",
            symbols=("HHH",),
            start="2024-06-07",
            end="2024-06-14",
            timeframe="1Week",
            kill_before=2,
            power=True,
            workers=4,
            salt=15,
        ),
    ],
    910000689: [  # a task counted a file that another task of the series was changing, and took back its mark
        Step(
            "ingest",
            symbols=("FBB", "AAA"),
            start="2024-02-27T09:17:00-05:00",
            end="2024-02-27T10:00:00-05:00",
            timeframe="30Min",
            adjustment="dividend",
            index="ours",
            repeat=True,
            hours=31.599999999999998,
            workers=1,
            salt=8,
        ),
        Step(
            "update",
            start="2024-03-08",
            timeframe="30Min",
            hours=478.05,
            faults=Faults(dated=False, page_bars=30),
            workers=1,
            page_limit=40,
            salt=16,
        ),
        Step(
            "ingest",
            symbols=("CCC", "DDD", "ZZZ", "AAA"),
            start="2024-03-18T09:30:00-04:00",
            timeframe="30Min",
            hours=11.675,
            workers=1,
            salt=19,
        ),
        Step(
            "ingest", symbols=("DDD",), start="2024-03-16", end="2024-03-18", timeframe="30Min", hours=2.8833333333333333, salt=20
        ),
        Step(
            "ingest",
            symbols=("NOPE", "GGG", "AAA", "ZZZ", "FFF", "EEE"),
            start="2024-03-28",
            timeframe="30Min",
            index="ours",
            hours=273.44166666666666,
            kill_before=13,
            workers=4,
            salt=32,
            beside=Step("ingest", symbols=("NOPE", "GGG"), start="2024-03-28", timeframe="30Min"),
        ),
        Step(
            "ingest",
            symbols=("AAA", "FBB"),
            start="2024-04-03",
            end="2024-04-21",
            timeframe="30Min",
            adjustment="dividend",
            index="ours",
            refetch=True,
            accept=True,
            hours=96.0,
            full_at=12,
            faults=Faults(page_bars=1000),
            workers=4,
            salt=33,
        ),
    ],
    940000207: [  # a bar that starts inside a claim was left out, since it was the newest of a response without a time
        Step(
            "ingest",
            symbols=("GGG", "FBB", "CCC", "FFF", "AAA", "NOPE"),
            start="2024-09-25T09:30:00-04:00",
            end="2024-09-30",
            timeframe="1Week",
            full_at=21,
            workers=1,
            salt=1,
        ),
        Step(
            "ingest",
            symbols=("BBB", "CCC", "FFF", "EEE", "HHH", "NOPE"),
            start="2024-10-02",
            end="2024-10-06",
            timeframe="1Week",
            hours=0.6,
            workers=2,
            salt=2,
        ),
        Step(
            "update",
            start="2024-09-20",
            timeframe="1Week",
            hours=288.0,
            faults=Faults(dated=False, page_bars=30),
            workers=1,
            salt=6,
        ),
    ],
    940000681: [  # of an emptiness from before a rename, the rest was claimed when a chain broke off after its first bars
        Step(
            "ingest",
            symbols=("CCC", "FBB", "DDD", "FFF", "AAA"),
            start="2024-04-09",
            timeframe="7Hour",
            hours=28.891666666666666,
            workers=4,
            salt=3,
        ),
        Step(
            "update",
            start="2024-04-14",
            timeframe="7Hour",
            hours=72.0,
            faults=Faults(down_at=3, page_bars=120),
            workers=2,
            salt=4,
        ),
        Step(
            "update",
            start="2024-03-14",
            end="2024-05-01",
            timeframe="7Hour",
            adjustment="split",
            hours=219.27499999999998,
            workers=1,
            salt=9,
            beside=Step("remove", symbols=("FFF", "FBB"), start="2024-03-14", end="2024-05-01", timeframe="7Hour"),
        ),
    ],
    970000645: [  # bars of a user made an emptiness final that was to be asked for again
        Step("ingest", symbols=("FFF",), start="2024-04-16", timeframe="1Hour", hours=0.7333333333333333, workers=2, salt=1),
        Step("store", symbols=("NOPE", "FFF"), start="2024-04-08", timeframe="1Hour", hours=381.1916666666666, workers=2, salt=9),
        Step(
            "update",
            start="2024-03-31",
            end="2024-04-11",
            timeframe="1Hour",
            adjustment="dividend",
            hours=345.64166666666665,
            suspend_at=26,
            suspend_for=86400.0,
            workers=1,
            salt=20,
            beside=Step("remove", symbols=("FFF",), start="2024-03-31", end="2024-04-11", timeframe="30Min", interrupt_at=35),
        ),
    ],
    970000778: [  # a user counted a file while a removal changed it and the coverage read as before
        Step(
            "ingest",
            symbols=("FBB", "CCC", "HHH"),
            start="2024-09-04",
            end="2024-09-06",
            timeframe="30Min",
            hours=23.9,
            faults=Faults(free_plan=True, dated=False, lands_at=2, page_bars=1000),
            salt=1,
        ),
        Step(
            "update",
            symbols=("HHH",),
            start="2024-09-13",
            end="2024-09-14",
            timeframe="30Min",
            adjustment="split",
            hours=7.633333333333333,
            workers=2,
            salt=3,
        ),
        Step(
            "update",
            start="2024-09-11",
            end="2024-09-15",
            timeframe="30Min",
            adjustment="split",
            workers=2,
            page_limit=200,
            salt=4,
        ),
        Step("update", start="2024-09-07", end="2024-09-07", timeframe="30Min", hours=24.0, workers=2, salt=6),
        Step("update", start="2024-09-18", timeframe="30Min", hours=54.733333333333334, fails=0.003, workers=2, salt=11),
        Step(
            "store",
            symbols=("BBB",),
            start="2024-10-03",
            end="2024-10-04",
            timeframe="30Min",
            hours=383.14166666666665,
            kill_before=11,
            power=True,
            salt=13,
            beside=Step("store", symbols=("AAA", "GGG", "ZZZ"), start="2024-10-03", end="2024-10-04", timeframe="30Min"),
        ),
        Step(
            "remove",
            symbols=("FBB", "DDD", "BBB", "CCC", "FFF", "HHH"),
            start="2024-09-30",
            end="2024-10-02T10:00:00-04:00",
            timeframe="30Min",
            adjustment="split",
            hours=2.033333333333333,
            workers=1,
            salt=14,
        ),
        Step(
            "ingest",
            symbols=("FFF", "ZZZ", "AAA", "HHH"),
            start="2024-09-25",
            timeframe="30Min",
            adjustment="split",
            fails=0.1,
            workers=4,
            salt=15,
        ),
        Step(
            "ingest",
            symbols=("BBB", "HHH", "ZZZ", "FBB"),
            start="2024-09-28",
            end="2024-10-02",
            timeframe="30Min",
            adjustment="split",
            index="ours",
            hours=71.99166666666667,
            workers=4,
            salt=23,
        ),
        Step(
            "remove",
            symbols=("FBB", "AAA", "BBB"),
            start="2024-10-06",
            timeframe="30Min",
            adjustment="split",
            hours=96.0,
            salt=25,
            beside=Step("store", symbols=("FBB", "AAA"), start="2024-10-06", timeframe="30Min"),
        ),
    ],
}


@pytest.mark.parametrize("seed", STEPS)
def test_what_a_seed_has_found_stays_mended(seed: int) -> None:
    assert run(seed, STEPS[seed]) is None


@pytest.mark.parametrize("adjustment", ["raw", "split"])
def test_files_that_several_tasks_of_a_series_have_changed_are_counted_in_the_end(adjustment: str) -> None:
    """Seed 910000689: what a task leaves to the others, the run counts; nothing is left marked."""
    made = world("2024-06-10T15:00", Security("AAA", (20, 30)))
    how = {"timeframe": "30Min", "adjustment": adjustment, "workers": 4, "page_limit": 40}
    made.take(Step("ingest", ("AAA",), "2024-02-14", None, salt=1, **how))
    made.take(Step("ingest", ("AAA",), "2024-02-14", None, refetch=True, accept=True, hours=48, salt=2, **how))

    key = ("equities_30min" if adjustment == "raw" else "equities_30min_split", "AAA")
    assert made.state.claims_of(key).bars == len(made.state.rows_of(key)) > 200
    assert not made.state.claims_of(key).changing


def test_a_session_that_the_last_update_calls_missing_is_still_owed() -> None:
    """Seed 62000156 was none of the program's: `finish` asked that no session is provisional, and section 6 that this one is."""
    days, lacking = list(sessions(date(2024, 5, 13), date(2024, 6, 12))), date(2024, 6, 10)
    some = [
        Security(name, only=[at(day, 10) for day in days if number > 1 or day != lacking])
        for number, name in enumerate(names(20))
    ]
    made = world("2024-06-03T15:00", *some)
    made.take(Step("ingest", names(20), "2024-05-14", None, "1Day", salt=1))
    made.finish()

    missing = [(at(lacking, 0), at(date(2024, 6, 11), 0))]
    for name in names(20):
        assert common(made.state.claims_of(("equities_1day", name)).provisional, missing) == missing


def test_bars_of_a_user_do_not_make_the_emptiness_before_them_final() -> None:
    """Seed 74000072: a week of no bar, then `store` and `remove`; the renamed symbol's earlier bars were never fetched."""
    made = world("2024-06-03T15:00", Security("NEW", (2, 3), renamed=date(2024, 6, 11)), Security("AAA", (2, 3)))
    made.take(Step("ingest", ("NEW", "AAA"), "2024-05-01", "2024-06-05", "1Day", salt=1))
    made.take(Step("update", hours=24 * 8, salt=2))
    made.take(Step("store", ("NEW",), "2024-06-10", None, "1Day", hours=24 * 3, salt=3))
    assert made.state.rows_of(("equities_1day", "NEW"))
    made.take(Step("remove", ("NEW",), "2024-06-06", None, "1Day", salt=4))
    made.take(Step("update", hours=24, salt=5))
    made.finish()
    assert min(made.state.rows_of(("equities_1day", "NEW"))) == at(date(2024, 5, 1), 0)


def test_a_split_and_its_reverse_are_the_price_base_without_them() -> None:
    """Seed 210000061 was none of the program's: prices that both splits leave alone are of either base."""
    both = [
        Action("split", date(2024, 6, 11), 0.5, at(date(2024, 6, 11), 0)),
        Action("split", date(2024, 6, 14), 2.0, at(date(2024, 6, 14), 0)),
    ]
    made = world("2024-06-07T15:00", Security("HHH", (2, 3), actions=both))
    made.take(Step("ingest", ("HHH",), "2024-05-01", None, "1Day", adjustment="split", salt=1))
    made.take(Step("update", hours=24 * 14, salt=2))
    made.finish()
    assert len(made.state.rows_of(("equities_1day_split", "HHH"))) > 20
