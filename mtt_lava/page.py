"""Pages of results: HTML files that need nothing beside them."""

from __future__ import annotations

import base64
import html

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #f4f4f4; padding: 1rem; white-space: pre-wrap; font-size: 13px; line-height: 1.35; }
img { max-width: 100%; image-rendering: pixelated; }
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


def block(text: object) -> str:
    """Plain text as it stands."""
    return f"<pre>{html.escape(str(text))}</pre>"


def image(png: bytes, text: str) -> str:
    """A picture, and what it shows."""
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
