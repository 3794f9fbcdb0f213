"""Renders the page: one HTML file with its style, script and data inline, under a strict Content-Security-Policy.

- Charts are drawn by our own script: chart libraries are large (see docs/benchmarks.md) or need `eval`, which the policy forbids, and
  lack bands of episodes, a cursor that follows the video, and keyboard and screen reader support.
- Only the script handles untrusted text, and it only creates text nodes.
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
    """HTML with the packed `index` and, unless they are in files, the packed timelines of its media in the same order."""
    style, script, template = _assets()
    inline = list(timelines)
    # Timelines in files are scripts that our own script loads; 'strict-dynamic' allows only these.
    sources = f"'{_digest(script)}'" if inline else f"'{_digest(script)}' 'strict-dynamic'"
    blocks = [_block("index", index), *(_block(f"timeline-{number}", text) for number, text in enumerate(inline))]
    policy = (
        f"default-src 'none'; script-src {sources}; style-src '{_digest(style)}'; img-src 'self' file: blob:; media-src 'self' file:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types batchemo"
    )
    return Template(template).substitute(title=html.escape(title), policy=policy, style=style, script=script, data="\n".join(blocks))


def as_script(timeline: str) -> str:
    """A packed timeline as a script file, which the page loads when the medium is opened."""
    return f'batchemoTimeline("{timeline}");\n'


def readable_name(name: str) -> str:
    """A name on one readable line: unprintable characters, such as line breaks and direction overrides, are escaped."""
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
