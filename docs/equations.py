"""Build hook: equations become MathML, which browsers show without a script or a network."""

import re

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the fenced blocks of the language ``math``, which GitHub shows as equations too."""
    return _BLOCK.sub(_equation, markdown)


def _equation(block: re.Match[str]) -> str:
    # The element around it scrolls where an equation is wider than a phone.
    return f'<div class="equation">{convert(block[1].strip(), display="block")}</div>'
