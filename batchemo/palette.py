"""The colours of emotions, the same on the page, in plots and in annotated media."""

from __future__ import annotations

from collections.abc import Sequence

Colour = tuple[int, int, int]

_OF_EMOTIONS: dict[str, Colour] = {
    "angry": (213, 94, 0),  # vermillion
    "disgust": (0, 158, 115),  # bluish green
    "fear": (204, 121, 167),  # reddish purple
    "happy": (230, 159, 0),  # orange
    "sad": (0, 114, 178),  # blue
    "surprise": (86, 180, 233),  # sky blue
    "neutral": (112, 112, 112),
}
"""RGB by Okabe and Ito, "Color Universal Design" (2008), and the grey that is farthest from them, also for people with protanopia,
deuteranopia or tritanopia (Machado et al. 2009); see docs/benchmarks.md. On white the paler ones have less contrast than text needs, so
text never has these colours."""

_SPARE: Colour = (240, 228, 66)
"""Yellow, Okabe and Ito's seventh."""

WHITE: Colour = (255, 255, 255)
QUIET: Colour = (214, 214, 214)
PANEL: Colour = (18, 20, 24)
TROUGH: Colour = (44, 46, 50)
"""Of charts in annotated media: text, panels, and the empty part of bars."""


_ANSI = dict(
    zip(
        (*_OF_EMOTIONS.values(), _SPARE),
        ("red", "green", "magenta", "yellow", "blue", "cyan", "bright_black", "bright_yellow"),
        strict=True,
    )
)


def colours(labels: Sequence[str]) -> tuple[Colour, ...]:
    """RGB of each of `labels`. The emotions of the shipped weights have fixed colours; other labels get the remaining ones in order.

    With more labels than colours, colours repeat.
    """
    free = [colour for name, colour in _OF_EMOTIONS.items() if name not in labels] + [_SPARE]
    found: list[Colour] = []
    given = 0
    for label in labels:
        if label in _OF_EMOTIONS:
            found.append(_OF_EMOTIONS[label])
        else:
            found.append(free[given % len(free)])
            given += 1
    return tuple(found)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has the higher contrast ratio by WCAG 2.2."""
    linear = [(value / 255 / 12.92) if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else WHITE


def as_hex(colour: Colour) -> str:
    """`#rrggbb`, as CSS and matplotlib read it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def as_ansi(colour: Colour) -> str:
    """A terminal colour of its own for each emotion: the nearest of 16 would be the same for several."""
    return _ANSI[colour]
