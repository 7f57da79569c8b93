"""Pages of results: HTML files that need nothing beside them, on narrow and wide screens, light, dark and on paper."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light dark; --soft: #f4f4f4; --line: #ddd; }
@media (prefers-color-scheme: dark) { :root { --soft: #262626; --line: #444; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; font-size: 13px; line-height: 1.35; }
p, h1, h2, code, td { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem; }
.grid.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 12rem), 1fr)); }
table { border-collapse: collapse; }
td { border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; vertical-align: top; }
@media (prefers-color-scheme: dark) { img:not(.pixels) { filter: invert(.9) hue-rotate(180deg); } }
@media print { :root { color-scheme: light; --soft: #fff; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  h2 { break-after: avoid; } img, pre { break-inside: avoid; } img:not(.pixels) { filter: none; } }
"""


def page(title: str, *parts: str) -> str:
    """A whole page; `parts` are HTML."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def heading(text: str, level: int = 1) -> str:
    """A heading of plain text."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def block(text: object) -> str:
    """Plain text as it stands; on a narrow screen its long lines scroll."""
    return f"<pre>{html.escape(str(text))}</pre>"


def rows(pairs: Iterable[Sequence[object]]) -> str:
    """A table of plain texts."""
    lines = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in pair) for pair in pairs)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def grid(*parts: str, small: bool = False) -> str:
    """Parts beside each other, as many as the screen is wide."""
    cells = "\n".join(f"<div>{part}</div>" for part in parts)
    return f'<div class="grid{" small" if small else ""}">{cells}</div>'


def image(png: bytes, text: str, pixels: bool = False) -> str:
    """A picture, and what it shows; `pixels`: few large ones, not to be smoothed."""
    kind = ' class="pixels"' if pixels else ""
    return f'<img{kind} alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
