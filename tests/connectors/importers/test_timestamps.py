from datetime import UTC, datetime

import pytest

from connectors.errors import BadMapping
from connectors.importers.date_order import DateOrderDetector
from connectors.importers.timestamps import parse_timestamp


def moment(text: str, *, month_first: bool = False) -> str:
    reading = parse_timestamp(text)
    assert reading is not None
    return datetime.fromtimestamp(reading.seconds(month_first=month_first), UTC).strftime("%F %T")


@pytest.mark.parametrize(
    "text",
    [
        "2031-02-13T15:05:00Z",
        "2031-02-13 15:05:00 UTC",
        "2031-02-13 16:05:00 +0100",
        "2031-02-13 16:05:00 CET",
        "20310213150500",
        "1928761500",
        "1928761500000",
        "1.928761500E+09",
        "47892.628482",
        "13/02/2031 15:05",
        "2/13/2031 3:05 PM",
        "2/13/2031, 3:05:00\u202fp.m.",
        "13.02.2031 15:05 Uhr",
        "13.2.31, 15.05",
        "13-Feb-2031 15:05:00",
        "February 13th, 2031 at 3:05 PM",
        "Thu, 13 Feb 2031 15:05:00 +0000",
        "Thu Feb 13 15:05:00 +0000 2031",
        "Thu Feb 13 2031 15:05:00 GMT+0000 (Coordinated Universal Time)",
        "13. Februar 2031 um 15:05",
        "jeu. 13 févr. 2031 15h05",
        "13 de febrero de 2031 15:05",
        "gio 13 feb 2031 15:05",
        "13 de fev. de 2031 15:05",
        "13 lutego 2031 15:05",
        "13 февраля 2031 \u0433., 15:05",
        "13 Şubat 2031 15:05",
        "2031年2月13日 15:05",
        "2031년 2월 13일 오후 3:05",
        "/Date(1928761500000)/",
    ],
)
def test_a_time_is_read_however_an_export_writes_it(text):
    assert moment(text)[:16] == "2031-02-13 15:05"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mar. 4 févr. 2031 10:05", "2031-02-04 10:05:00"),  # Tuesday, not March
        ("5 mar 2031 10:05", "2031-03-05 10:05:00"),
        ("12:05 AM, 5/6/2031", "2031-06-05 00:05:00"),
        ("12:05 PM, 5.6.2031", "2031-06-05 12:05:00"),
        ("05/06/31 24:00", "2031-06-06 00:00:00"),
    ],
)
def test_what_could_be_mistaken_is_not(text, expected):
    assert moment(text) == expected


def test_only_a_slash_or_a_dash_leaves_open_which_is_the_day():
    assert moment("03/04/2031", month_first=False) == "2031-04-03 00:00:00"
    assert moment("03/04/2031", month_first=True) == "2031-03-04 00:00:00"
    assert moment("3-4-31", month_first=True) == "2031-03-04 00:00:00"
    assert moment("03.04.2031", month_first=True) == "2031-04-03 00:00:00"
    assert moment("2031-04-03", month_first=True) == "2031-04-03 00:00:00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "noon",
        "yesterday 10:05",
        "5 minutes ago",
        "13/13/2031",
        "31 Feb 2031",
        "1.92884E+12",
        "Feb 3",
        "order 7 of 03/04/2031",
        "25:61",
        "mar " * 100_000,
    ],
)
def test_what_says_no_time_is_not_understood(text):
    assert parse_timestamp(text) is None


def settled(*conversations: str, told=None) -> tuple[bool, str]:
    """The order of dates in conversations of times with commas between."""
    order = DateOrderDetector()
    line = 1
    for conversation in conversations:
        readings = []
        for text in conversation.split(","):
            line += 1
            reading = parse_timestamp(text)
            assert reading is not None
            order.observe(line, text, reading)
            readings.append(reading)
        order.observe_conversation(readings)
    return order.resolve(told)


def test_a_day_over_twelve_settles_a_whole_file():
    assert settled("03/04/2031,05/04/2031", "13/04/2031") == (
        False,
        "day-first: '13/04/2031' in line 4",
    )
    assert settled("03/04/2031,05/04/2031", "04/13/2031")[0] is True


@pytest.mark.parametrize(
    ("conversations", "month_first"),
    [
        (["05/02/2031,06/02/2031,01/03/2031"], False),
        (["02/05/2031,02/06/2031,03/01/2031"], True),
        (["01/03/2031,06/02/2031,05/02/2031"], False),  # the newest first
        (["05/02/2031", "06/02/2031", "01/03/2031,02/03/2031"], False),
    ],
)
def test_what_stands_in_order_only_one_way_is_read_that_way(conversations, month_first):
    found, note = settled(*conversations)
    assert found is month_first
    assert "--dates" in note


def test_an_order_that_matters_and_cannot_be_told_is_asked_for():
    with pytest.raises(BadMapping, match=r"line 2: does '01/02/2031' .* --dates day-first"):
        settled("01/02/2031,02/01/2031")
    assert settled("01/02/2031,02/01/2031", told="month-first") == (True, "month-first, as told")


def test_an_order_on_which_nothing_depends_is_not_asked_for():
    assert "no order depends" in settled("03/02/2031 11:00,03/02/2031 10:50")[1]
    assert settled("2031-02-03,2031-02-04") == (False, "")


def test_a_file_that_mixes_both_orders_is_asked_about():
    with pytest.raises(BadMapping, match="only the other"):
        settled("13/01/2031,01/13/2031", "01/02/2031,02/01/2031")
