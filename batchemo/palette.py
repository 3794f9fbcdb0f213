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
"""RGB by Okabe and Ito, "Color Universal Design" (2008), and the grey that stays clearest of them: seen with protanopia, deuteranopia or
tritanopia (Machado et al. 2009) the closest two differ by 10.9 of CIEDE2000, by 21 with full sight. On white the paler ones have
less contrast than text needs, so nothing is written in them."""

_SPARE: Colour = (240, 228, 66)
"""Yellow, Okabe and Ito's seventh."""


_ANSI = dict(
    zip(
        (*_OF_EMOTIONS.values(), _SPARE),
        ("red", "green", "magenta", "yellow", "blue", "cyan", "bright_black", "bright_yellow"),
        strict=True,
    )
)


def colours(labels: Sequence[str]) -> tuple[Colour, ...]:
    """RGB of each of `labels`: emotions that the shipped weights know have their own, others get those that are left, in their order.

    Where there are more labels than colours, colours repeat.
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


def as_hex(colour: Colour) -> str:
    """`#rrggbb`, as style sheets and matplotlib read it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def as_ansi(colour: Colour) -> str:
    """For terminals of 16 colours, where the nearest ones would be the same for several emotions."""
    return _ANSI[colour]
