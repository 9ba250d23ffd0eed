"""Markdown of language models as HTML that is safe to show.

Owns the rendering and the allowlist; does not decide where the HTML is shown. Invariant: whatever the text,
the result has only the tags and attributes of the allowlist, loads nothing from a network and runs nothing.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

__all__ = ["MAX_MARKDOWN_CHARACTERS", "MAX_SHOWN_CHARACTERS", "clean_text", "render_markdown"]

MAX_MARKDOWN_CHARACTERS = 50_000
"""Longer texts are shown as they are: Markdown of that size is not prose, and parsing it takes seconds."""

MAX_SHOWN_CHARACTERS = 200_000
"""What is beyond this many characters is counted, not shown."""

_MAX_HIGHLIGHTED_CHARACTERS = 20_000
_MAX_NESTING = 20
_HIGHLIGHT_PREFIX = "rk-hl-"

# A closed list, so that a word after the fence of a model's answer decides no import.
_LEXERS = {
    name: lexer
    for lexer, names in {
        "bash": "bash sh shell zsh console",
        "c": "c h",
        "cpp": "cpp c++ cc hpp",
        "css": "css",
        "diff": "diff patch",
        "go": "go golang",
        "html": "html xml",
        "java": "java",
        "javascript": "javascript js jsx mjs",
        "json": "json jsonl",
        "julia": "julia jl",
        "python": "python py python3 ipython",
        "pycon": "pycon",
        "r": "r",
        "rust": "rust rs",
        "sql": "sql sqlite postgres postgresql",
        "toml": "toml",
        "typescript": "typescript ts tsx",
        "yaml": "yaml yml",
    }.items()
    for name in names.split()
}

_TAG_NAMES = (
    "p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code span em strong s a table thead tbody tr th td"
)
_TAGS = set(_TAG_NAMES.split())
_ATTRIBUTES = {
    "a": {"href", "title"},
    "ol": {"start"},
    "th": {"style"},
    "td": {"style"},
}
_CLASSES = {
    "span": {"rk-image", *(_HIGHLIGHT_PREFIX + name for name in STANDARD_TYPES.values() if name)},
    "p": {"rk-rest"},
}
_URL_SCHEMES = {"http", "https", "mailto"}


def render_markdown(text: str) -> str:
    """Return ``text`` as sanitised HTML.

    Raw HTML in the text is shown as text. Links lead to http, https and mailto addresses only and open apart;
    images become links, because loading one tells its server that the answer was read.

    Args:
        text: Markdown of any origin and any length.
    """
    text = clean_text(text)
    if len(text) > MAX_MARKDOWN_CHARACTERS:
        return _sanitise(_render_long_text(text))
    return _sanitise(_parser().render(text))


def clean_text(text: str) -> str:
    """Return ``text`` without the lone surrogates that no message to a browser can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _render_long_text(text: str) -> str:
    shown = f"<pre><code>{escape(text[:MAX_SHOWN_CHARACTERS])}</code></pre>"
    rest_count = len(text) - MAX_SHOWN_CHARACTERS
    if rest_count <= 0:
        return shown
    return (
        f'{shown}<p class="rk-rest">{rest_count:,} more characters are not shown; Copy has all of them.</p>'
    )


def _sanitise(html: str) -> str:
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        allowed_classes=_CLASSES,
        url_schemes=_URL_SCHEMES,
        # A relative address would lead to the Jupyter server itself.
        url_relative="deny",
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        filter_style_properties={"text-align"},
    )


@cache
def _parser() -> MarkdownIt:
    options = {"html": False, "maxNesting": _MAX_NESTING, "highlight": _highlight_code}
    parser = MarkdownIt("commonmark", options).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _render_image)
    return parser


def _highlight_code(code: str, language: str, _attributes: str) -> str:
    lexer_name = _LEXERS.get(language.lower())
    if lexer_name is None or len(code) > _MAX_HIGHLIGHTED_CHARACTERS:
        return escape(code)
    formatter = HtmlFormatter(nowrap=True, classprefix=_HIGHLIGHT_PREFIX)
    # Without these options the lexer would drop empty lines at both ends.
    lexer = get_lexer_by_name(lexer_name, stripnl=False, ensurenl=False)
    return str(highlight(code, lexer, formatter))


def _render_image(
    _renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    _options: OptionsDict,
    _env: MutableMapping[str, Any],
) -> str:
    token = tokens[index]
    caption = escape(token.content.strip() or "image")
    address = escape(str(token.attrs.get("src", "")))
    return f'<span class="rk-image"><a href="{address}">{caption}</a></span>'
