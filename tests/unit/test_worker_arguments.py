"""What a worker is told when it is started."""

from __future__ import annotations

import pytest

from scheduler.worker import settings_of


@pytest.mark.parametrize(("text", "seconds"), [("14m", 840.0), ("90s", 90.0), ("1h", 3_600.0), ("2.5", 2.5)])
def test_a_lifetime_is_given_in_hours_minutes_or_seconds(text: str, seconds: float) -> None:
    assert settings_of(["--max-lifetime", text]).worker_max_lifetime_s == seconds


@pytest.mark.parametrize("text", ["0", "0m", "soon", "1d", ""])
def test_a_lifetime_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings_of(["--max-lifetime", text])
    assert "no time such as 14m" in capsys.readouterr().err


def test_without_an_argument_the_setting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAILIWICK_WORKER_MAX_LIFETIME_S", "60")
    assert settings_of([]).worker_max_lifetime_s == 60.0
    assert settings_of(["--max-lifetime", "2m"]).worker_max_lifetime_s == 120.0
