"""The services' append-only memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.demo.services.journal import Journal, KeyReusedError

ANSWER = {"verified": True}


def question(reference: str) -> dict[str, str]:
    return {"reference": reference}


def test_a_key_called_again_gets_the_stored_answer_and_no_second_effect(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "effects.jsonl")
    assert journal.carry_out("identity", "k1", question("run_1"), ANSWER) == ANSWER
    assert journal.carry_out("identity", "k1", question("run_1"), {"verified": False}) == ANSWER
    assert journal.effects()["identity"] == {
        "calls": 2,
        "effects": 1,
        "repeated": 1,
        "duplicated_effects": 0,
        "duplicated": {},
    }


def test_one_logical_effect_under_two_keys_counts_as_duplicated(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "effects.jsonl")
    for key in ("k1", "k2", "k3"):
        journal.carry_out("identity", key, question("run_1"), ANSWER)
    journal.carry_out("credit-bureau", "k1", question("run_1"), ANSWER)
    effects = journal.effects()
    assert (effects["identity"]["duplicated_effects"], effects["identity"]["duplicated"]) == (2, {"run_1": 2})
    assert effects["credit-bureau"]["duplicated_effects"] == 0


def test_a_key_of_another_question_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "effects.jsonl")
    journal.carry_out("identity", "k1", question("run_1"), ANSWER)
    before = journal.effects()
    with pytest.raises(KeyReusedError):
        journal.carry_out("identity", "k1", question("run_2"), ANSWER)
    assert journal.effects() == before


def test_a_restart_forgets_nothing_but_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "effects.jsonl"
    journal = Journal.open(path)
    journal.carry_out("identity", "k1", question("run_1"), ANSWER)
    journal.carry_out("identity", "k1", question("run_1"), ANSWER)
    before = journal.effects()
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"service":"identity","kind":"eff')

    again = Journal.open(path)
    assert again.effects() == before
    assert again.carry_out("identity", "k1", question("run_1"), {}) == ANSWER
    again.carry_out("identity", "k2", question("run_2"), ANSWER)
    again.close()
    assert Journal.open(path).effects()["identity"]["effects"] == 2
