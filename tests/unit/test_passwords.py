"""Passwords: what is kept of them, and that a guess costs the same whoever is guessed at."""

from __future__ import annotations

import pytest
from pwdlib.hashers.argon2 import Argon2Hasher

from core.tenants import passwords
from core.tenants.passwords import HASHER

SECRET = "correct horse battery staple"


def test_what_is_kept_is_argon2id_at_the_cost_that_rfc_9106_names() -> None:
    assert HASHER.hash(SECRET).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_password_matches_what_was_kept_of_it_and_nothing_else() -> None:
    kept = [passwords.hashed(one) for one in (SECRET, SECRET, SECRET + " ", "half a pair \ud800", "nul\x00l")]
    assert len(set(kept)) == 5
    assert passwords.matches(SECRET, kept) == [True, True, False, False, False]
    assert passwords.matches("half a pair \ud800", kept) == [False, False, False, True, False]
    assert passwords.matches("", kept) == [False] * 5


def test_what_is_too_long_to_be_a_password_costs_no_more_than_one() -> None:
    kept = passwords.hashed("x" * passwords.LONGEST)
    assert passwords.matches("x" * 10_000_000, [kept]) == [True]


@pytest.mark.parametrize("candidates", [0, 1, 3])
def test_a_guess_costs_as_many_computations_as_there_are_candidates_and_at_least_one(
    candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [passwords.hashed(SECRET)] * candidates
    computed = []
    for name in ("hash", "verify"):
        computation = getattr(Argon2Hasher, name)

        def counting(self: Argon2Hasher, *given: object, of: object = computation) -> object:
            computed.append(self)
            return of(self, *given)  # type: ignore[operator]

        monkeypatch.setattr(Argon2Hasher, name, counting)
    assert passwords.matches("a guess", kept) == [False] * candidates
    assert len(computed) == max(1, candidates)
