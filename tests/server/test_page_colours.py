"""The page's colours, read from its style sheet: contrast (WCAG AA) in both schemes, and distance for every eye."""

import math
import re
from itertools import pairwise

import pytest

from .scripted_server import PAGE

Colour = tuple[float, float, float]

TEXT_ON = [
    ("ink", "paper"),
    ("ink", "raised"),
    ("ink", "draft-tint"),
    ("ink", "target-tint"),
    ("ink", "good-tint"),
    ("ink", "bad-tint"),
    ("quiet", "paper"),
    ("quiet", "raised"),
    ("quiet", "draft-tint"),
    ("quiet", "target-tint"),
    ("accent", "paper"),
    ("on-accent", "accent"),
    ("good", "good-tint"),
    ("bad", "bad-tint"),
    ("bad", "raised"),
    ("paper", "ink"),
]
SHAPE_ON = [("draft", "paper"), ("draft", "raised"), ("draft", "line"), ("target", "paper"), ("edge", "raised")]
SHAPE_ON += [("edge", "paper"), ("accent", "paper"), ("draft", "draft-tint")]

# Machado, Oliveira, Fernandes 2009, severity 1.0, on linear RGB
EYES: dict[str, tuple[Colour, Colour, Colour]] = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


def schemes() -> dict[str, dict[str, Colour]]:
    """Linear RGB of every colour by its name."""
    blocks = re.findall(r":root \{(.*?)\}", (PAGE / "page.css").read_text(), re.DOTALL)
    light, dark = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    assert light.keys() == dark.keys()
    return {
        name: {key: linear(value) for key, value in colours.items()}
        for name, colours in (("light", light), ("dark", dark))
    }


def linear(code: str) -> Colour:
    """sRGB to linear RGB."""
    red, green, blue = [int(code[a:b], 16) / 255 for a, b in pairwise((1, 3, 5, 7))]
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue))  # type: ignore[return-value]


def contrast(one: Colour, other: Colour) -> float:
    """Ratio of WCAG 2."""
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: Colour) -> Colour:
    """CIE Lab under D65."""
    red, green, blue = colour
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = [c ** (1 / 3) if c > 0.008856 else 7.787 * c + 16 / 116 for c in (x, y, z)]
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def seen_by(eye: str, colour: Colour) -> Colour:
    """The colour after blending."""
    return tuple(max(0.0, sum(m * c for m, c in zip(row, colour, strict=True))) for row in EYES[eye])  # type: ignore[return-value]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_meets_aa(scheme: str) -> None:
    colours = schemes()[scheme]
    for front, back in TEXT_ON:
        assert contrast(colours[front], colours[back]) >= 4.5, (scheme, front, back)
    for front, back in SHAPE_ON:
        assert contrast(colours[front], colours[back]) >= 3, (scheme, front, back)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_drafts_and_target_are_told_apart_by_every_eye(scheme: str, eye: str) -> None:
    colours = schemes()[scheme]
    for suffix, least in (("", 40), ("-tint", 12)):
        draft, target = [lab(seen_by(eye, colours[name + suffix])) for name in ("draft", "target")]
        assert math.dist(draft, target) >= least, (scheme, eye, suffix, math.dist(draft, target))
