"""The page itself: one HTML file with its style, its script and its data inside, under a strict Content-Security-Policy.

The charts come from a script of our own: three kinds of them, drawn on canvases, in a tenth of what a library of charts weighs
(plotly 5.3 MB, Vega 2.3 MB and in need of `eval`, which the policy forbids), and with what no library brings: bands of episodes,
a cursor that is one with the video's, the keyboard, and words for screen readers. Nothing renders on the server's side, so that
there is one place that handles untrusted text, and it only ever makes text nodes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from collections.abc import Iterable
from importlib import resources
from string import Template

_SCRIPTS = ("elements", "data", "filters", "chart", "overview", "medium", "page")


def render(*, title: str, index: str, timelines: Iterable[str]) -> str:
    """HTML with the packed `index`, and the packed timelines of its media in their order, or none where they stand in files.

    `title` is any text.
    """
    style, script, template = _assets()
    inside = list(timelines)
    # Timelines in files are scripts that our own script loads, which is all that 'strict-dynamic' lets in.
    sources = f"'{_digest(script)}'" if inside else f"'{_digest(script)}' 'strict-dynamic'"
    blocks = [_block("index", index), *(_block(f"timeline-{number}", text) for number, text in enumerate(inside))]
    policy = (
        f"default-src 'none'; script-src {sources}; style-src '{_digest(style)}'; img-src 'self' file: blob:; media-src 'self' file:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types batchemo"
    )
    return Template(template).substitute(title=html.escape(title), policy=policy, style=style, script=script, data="\n".join(blocks))


def as_script(timeline: str) -> str:
    """A packed timeline as a file that the page loads when its medium is opened."""
    return f'batchemoTimeline("{timeline}");\n'


def readable_name(name: str) -> str:
    """A name as people can read it on one line: what is not printable, such as line breaks and turns of direction, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _block(name: str, text: str) -> str:
    return f'<script type="text/plain" id="{name}">{text}</script>'


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


@functools.cache
def _assets() -> tuple[str, str, str]:
    """Style, script and template."""
    folder = resources.files("batchemo.report").joinpath("assets")
    parts = [folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS]
    script = '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"
    return folder.joinpath("page.css").read_text(encoding="utf-8"), script, folder.joinpath("page.html").read_text(encoding="utf-8")
