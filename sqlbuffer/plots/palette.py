"""Colours of pictures: one for one thing, in files, pages and benchmarks.

The hues are those of Okabe and Ito, which people with any kind of colour blindness tell apart. The
variants for a dark page are lighter, so that each has a contrast of at least 3 to its background.

Source:
    Okabe and Ito 2008, Color Universal Design.
"""

from __future__ import annotations

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
    "text": "#1f2328",
    "muted": "#5f6770",
    "grid": "#dfe3e8",
    "background": "#ffffff",
    "waiting": "#0072b2",
    "claimed": "#b07c00",
    "measured": "#00805e",
    "failed": "#c04a00",
    "out": "#7d848c",
    "drawn": "#a8528a",
    "best": "#00805e",
    "top": "#0072b2",
    "older": "#9aa1a9",
    "newest": "#0072b2",
}
"""The colour of each thing on a light page."""

DARK: Mapping[str, str] = {
    "text": "#e6e9ed",
    "muted": "#a3abb5",
    "grid": "#3a4149",
    "background": "#16191d",
    "waiting": "#56b4e9",
    "claimed": "#e69f00",
    "measured": "#2fc79a",
    "failed": "#ff7f3f",
    "out": "#707880",
    "drawn": "#dd93c2",
    "best": "#2fc79a",
    "top": "#56b4e9",
    "older": "#767e87",
    "newest": "#56b4e9",
}
"""The colour of each thing on a dark page."""

THEMES = {"light": LIGHT, "dark": DARK}

_SERIES = {
    "light": ("#0072b2", "#c04a00", "#00805e", "#a8528a", "#b07c00", "#2f8fce", "#5f6770"),
    "dark": ("#56b4e9", "#ff7f3f", "#2fc79a", "#dd93c2", "#e69f00", "#a9d7f5", "#a3abb5"),
}


def color(role: str, theme: str = "light") -> str:
    """Return the colour of a thing, or of the nth of several buffers, "series-n".

    Args:
        role: A key of `LIGHT`, or "series-0", "series-1" and so on, which repeat after seven.
        theme: "light" or "dark".
    """
    if role.startswith("series-"):
        colors = _SERIES[theme]
        return colors[int(role.removeprefix("series-")) % len(colors)]
    return THEMES[theme][role]


def faded(value: str, opacity: float) -> str:
    """Return a colour "#rrggbb" with an opacity, as CSS."""
    red, green, blue = (int(value[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def dark_of() -> dict[str, str]:
    """Return the dark colour of each light one, for pages that follow the theme of the system."""
    roles = [*LIGHT, *(f"series-{n}" for n in range(len(_SERIES["light"])))]
    return {color(role, "light"): color(role, "dark") for role in roles}
