"""Admin passwords that are made for servers."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kilonova.compute.servers.boot import new_password
from kilonova.settings import ComputeSettings

DIGITS, CAPITALS, SMALL = "23456789", "ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz"


def made(length: int) -> str:
    return new_password(cast(Any, SimpleNamespace(settings=ComputeSettings(password_length=length))))


@pytest.mark.parametrize(("length", "signs"), [(0, 3), (3, 3), (12, 12), (40, 40)])
def test_a_password_has_its_length_and_a_sign_of_each_kind(length: int, signs: int) -> None:
    for _ in range(50):
        password = made(length)
        assert len(password) == signs
        assert all(set(password) & set(kind) for kind in (DIGITS, CAPITALS, SMALL))
        assert set(password) <= set(DIGITS + CAPITALS + SMALL)


def test_every_sign_stands_everywhere_and_no_password_comes_twice() -> None:
    passwords = [made(12) for _ in range(5000)]
    assert len(set(passwords)) == 5000
    places = [Counter(column) for column in zip(*passwords, strict=True)]
    for place in places:
        assert set(place) == set(DIGITS + CAPITALS + SMALL)
        # One of the twelve is a digit for certain, nine are with 8 chances in 57: 2.3 in a password.
        assert 0.15 < sum(place[digit] for digit in DIGITS) / 5000 < 0.23
