"""The arithmetic of limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.limits.sliding_window import DAY, MINUTE, Account, Bucket, Rate, duration


def rate(limit: int, before: int, current: int, elapsed: float, period: int = MINUTE) -> Rate:
    return Rate("tokens", "tokens", limit, before, current, elapsed, period)


@pytest.mark.parametrize(
    ("before", "current", "elapsed", "used"),
    [(0, 0, 30, 0), (100, 0, 0, 100), (100, 0, 30, 50), (100, 20, 45, 45), (0, 20, 45, 20)],
)
def test_the_minute_before_counts_for_the_part_of_it_that_is_within_the_last_sixty_seconds(
    before, current, elapsed, used
):
    assert rate(100, before, current, elapsed).used == used
    assert rate(100, before, current, elapsed).remaining == 100 - used


def test_what_does_not_fit_now_fits_when_enough_has_slid_out():
    assert rate(100, 100, 0, 30).wait(50) == 0
    assert rate(100, 100, 0, 30).wait(60) == pytest.approx(6)
    assert rate(100, 0, 100, 30).wait(50) == pytest.approx(30 + 30)


def test_what_is_larger_than_the_limit_never_fits():
    assert math.isinf(rate(100, 0, 0, 30).wait(101))
    assert rate(100, 0, 0, 30).wait(100) == 0


def test_a_day_begins_anew_at_midnight():
    nearly = rate(100, 0, 90, DAY - 600, DAY)
    assert nearly.remaining == 10
    assert nearly.wait(10) == 0
    assert nearly.wait(11) == 600
    assert nearly.reset() == 600
    assert rate(100, 0, 0, 5, DAY).reset() == 0


def test_nothing_counts_any_more_when_the_minute_after_this_one_has_passed():
    assert rate(100, 0, 0, 40).reset() == 0
    assert rate(100, 5, 0, 40).reset() == 20
    assert rate(100, 5, 1, 40).reset() == 80


@given(
    st.integers(1, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.floats(0, 59.9),
    st.floats(0.001, 1),
)
def test_after_the_wait_it_fits_and_not_before(limit, before, current, elapsed, part):
    need = max(1, int(limit * part))
    now = rate(limit, min(before, limit), min(current, limit), elapsed)

    def later(seconds: float) -> float:
        """What is used then, if nothing else comes."""
        at = elapsed + seconds
        if at < MINUTE:
            return rate(limit, now.before, now.current, at).used
        return rate(limit, now.current, 0, min(at - MINUTE, MINUTE)).used

    wait = now.wait(need)
    assert later(wait) + need <= limit + 1e-3
    if wait > 0.01:
        assert later(wait - 0.01) + need > limit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.0004, "59.001s"),
        (59.9999, "1m0s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600 * 7 + 61.2, "7h1m2s"),
        (86_400, "24h0m0s"),
    ],
)
def test_times_are_written_as_openai_does(seconds, text):
    assert duration(seconds) == text


def test_what_came_while_counts_were_written_is_not_lost():
    bucket = Bucket()
    bucket.add(1, 10)
    taken = bucket.take()
    bucket.add(1, 5)
    bucket.reconcile(7, 70)  # ours that was taken, and others'
    assert (taken, bucket.requests, bucket.tokens) == ((1, 10), 8, 75)
    assert bucket.take() == (1, 5)
    bucket.put_back((1, 5))
    assert bucket.take() == (1, 5)


def test_an_account_forgets_what_no_limit_looks_at():
    account = Account()
    for number in range(5):
        account.minute(number).add(1, 1)
        account.day(number).add(1, 1)
    account.forget_before(3, 4)
    assert (set(account.minutes), set(account.days)) == ({3, 4}, {4})
