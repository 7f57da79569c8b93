"""Pages of results: HTML files that need nothing beside them."""

from __future__ import annotations

import base64
import html

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto; font-size: 13px; line-height: 1.35; }
p, h1, h2, code { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
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


def image(png: bytes, text: str, pixels: bool = False) -> str:
    """A picture, and what it shows; `pixels`: few large ones, not to be smoothed."""
    kind = ' class="pixels"' if pixels else ""
    return f'<img{kind} alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
