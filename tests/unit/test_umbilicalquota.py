"""Quotas and turns, on a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bay0.umbilical.quota import Account, Bucket, Quota, Turns


def test_a_bucket_gives_what_it_has_at_once_and_then_so_many_a_second() -> None:
    bucket = Bucket(rate=0.5, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [0, 0, 0, 2.0]
    assert bucket.take(101.0) == 1.0
    assert bucket.take(102.0) == 0
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, 2.0], "it never holds more than its burst"


@given(st.lists(st.floats(0, 5), max_size=60))
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(gaps: list[float]) -> None:
    bucket, now, given_out = Bucket(rate=1.0, burst=4), 0.0, 0
    for gap in gaps:
        now += gap
        given_out += bucket.take(now) == 0
        assert given_out <= 4 + now + 1e-6


def test_times_grow_with_patience_and_unknown_words_change_nothing() -> None:
    quota = Quota().changed({"connections": 3, "head_s": 2, "nonsense": 1}, 5.0)
    assert (quota.connections, quota.head_s, quota.seconds, quota.tokens) == (3, 10.0, 1500.0, 512)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 3), st.integers(1, 2))
def test_turns_go_round_over_doors_and_nobody_is_forgotten(names: list[str], at_once: int, each: int) -> None:
    turns, quota = Turns(), Quota(flights_all=at_once, flights=each)
    accounts = {name: Account() for name in "abc"}
    for number, name in enumerate(names):
        turns.wait(name, (name, number))
    left, served = {name: names.count(name) for name in "abc"}, []
    while (who := turns.next(accounts, quota)) is not None:
        served.append(who)
        left[who[0]] -= 1
        last = served[-2][0] if len(served) > 1 else ""
        assert who[0] != last or not any(count for name, count in left.items() if name != last), "others wait, and it is not their turn"
    assert sorted(served, key=lambda w: w[1]) == list(zip(names, range(len(names)), strict=True))
    for name in "abc":
        mine = [number for who, number in served if who == name]
        assert mine == sorted(mine), "first come, first served"
    turns.wait("a", 1)
    turns.flying = at_once
    assert turns.next(accounts, quota) is None, "the server has as many as it may"
    turns.flying, accounts["a"].flying = 0, each
    assert turns.next(accounts, quota) is None, "and so has the door"
    turns.leave("a", 1)
    turns.leave("a", 1)
    assert turns.everybody() == []
