"""Build hook: what GitHub shows as it is, and a site needs help with: equations, large pictures."""

import re

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the fenced blocks of the language ``math`` by MathML.

    Browsers show it without a script or a network.
    """
    return _BLOCK.sub(_equation, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Let a picture load only when it is near the part of the page that is seen."""
    return html.replace("<img ", '<img loading="lazy" ')


def _equation(block: re.Match[str]) -> str:
    # The element around it scrolls where an equation is wider than a phone.
    return f'<div class="equation">{convert(block[1].strip(), display="block")}</div>'
