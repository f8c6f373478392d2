"""Colours that are told apart by everybody: seen as people see who lack one kind of cone."""

from __future__ import annotations

from itertools import combinations
from math import dist

import pytest

from ops_dashboard.theme import CAUSE_COLORS, NEUTRAL, PALETTE, STATE_COLORS, colours_of

ALIKE = 17.0
"""Distance in CIE L*a*b* below which two patches that do not touch may be taken for one colour."""

# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as it is seen.
EYES = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
WHITE = (0.95047, 1.0, 1.08883)
XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def seen(colour: str, eye: str) -> tuple[float, float, float]:
    """L*a*b* of a colour as somebody sees it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    shown = [min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in EYES[eye]]
    tones = [sum(a * b for a, b in zip(row, shown, strict=True)) / white for row, white in zip(XYZ, WHITE, strict=True)]
    x, y, z = (tone ** (1 / 3) if tone > 0.008856 else 7.787 * tone + 16 / 116 for tone in tones)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize(
    "colours", [(*PALETTE, NEUTRAL), tuple(STATE_COLORS.values()), tuple(CAUSE_COLORS.values())], ids=len
)
def test_no_two_colours_of_a_plot_look_alike(colours: tuple[str, ...], eye: str) -> None:
    alike = [pair for pair in combinations(colours, 2) if dist(seen(pair[0], eye), seen(pair[1], eye)) < ALIKE]
    assert alike == []


def test_each_of_as_many_tenants_as_there_are_colours_has_its_own_and_keeps_it_when_a_smaller_one_comes() -> None:
    tenants = [f"tenant-{number}" for number in range(len(PALETTE))]
    assert sorted(colours_of(tenants).values()) == sorted(PALETTE)
    for number in range(1, len(PALETTE)):
        fewer = colours_of(tenants[:number])
        assert fewer.items() <= colours_of(tenants).items()
    assert len(colours_of([*tenants, *tenants, "one-more"])) == len(PALETTE) + 1
