"""Markdown of language models as HTML that is safe to show.

Owns the rendering and the allowlist; does not decide where the HTML is shown. Invariant: whatever the text,
the result has only the tags and attributes of the allowlist, loads nothing from a network and runs nothing.
Formulas become MathML, which browsers show without any script.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from functools import cache
from html import escape
from typing import Any

import nh3
from latex2mathml import exceptions as formula_exceptions
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

from research_kit.plain_text import plain_characters

__all__ = [
    "MAX_MARKDOWN_CHARACTERS",
    "MAX_SHOWN_CHARACTERS",
    "GrowingMarkdown",
    "clean_text",
    "defuse_markdown",
    "highlight_apart",
    "render_markdown",
]

MAX_MARKDOWN_CHARACTERS = 50_000
"""Longer texts are shown as they are: Markdown of that size is not prose, and parsing it takes seconds."""

MAX_SHOWN_CHARACTERS = 200_000
"""What is beyond this many characters is counted, not shown."""

_MAX_HIGHLIGHTED_CHARACTERS = 20_000
_MAX_FORMULA_CHARACTERS = 1_000
_MAX_NESTING = 20
_HIGHLIGHT_PREFIX = "rk-hl-"
# markdown-it writes the word after the fence behind it.
_LANGUAGE_PREFIX = "language-"

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
_FORMULA_TAG_NAMES = (
    "math mrow mi mo mn mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr "
    "mtd mpadded mphantom"
)
_TAGS = {*_TAG_NAMES.split(), *_FORMULA_TAG_NAMES.split(), "img"}
_ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt"},
    "math": {"display"},
    "mi": {"mathvariant"},
    "mo": {"stretchy"},
    "ol": {"start"},
    "th": {"style"},
    "td": {"style"},
}
_CLASSES = {
    "code": {_LANGUAGE_PREFIX + name for name in _LEXERS},
    "span": {"rk-image", *(_HIGHLIGHT_PREFIX + name for name in STANDARD_TYPES.values() if name)},
    "p": {"rk-rest"},
}
_URL_SCHEMES = {"http", "https", "mailto"}
# Pixels inside the text itself. SVG is left out: it is a document, not pixels.
_PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")
# Fenced blocks and code spans, in which signs are only signs; else what can begin HTML or an image.
_CODE_OR_SIGN = re.compile(
    r"(?P<code>^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n(?:.*?^ {0,3}(?P=fence)[`~]*[ \t]*$|.*\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))|<|!(?=\[)",
    re.MULTILINE | re.DOTALL,
)
_SIGNS = {"<": "&lt;", "!": "\\!", "[": "\\["}
_SAFE_ADDRESS = re.compile(r"https?:|mailto:", re.IGNORECASE)
# The library's own errors have no common base, and odd formulas also end in errors of the language.
_FORMULA_FAULTS: tuple[type[Exception], ...] = (
    *(fault for fault in vars(formula_exceptions).values() if isinstance(fault, type)),
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)


def is_picture(address: str) -> bool:
    """Return True for an address that is itself the pixels of a picture, and nothing else."""
    return _PICTURE.fullmatch(address) is not None


def render_markdown(text: str) -> str:
    """Return ``text`` as sanitised HTML.

    Raw HTML in the text is shown as text, and so are characters that hide or turn what stands beside them, so
    that code reads as it runs. Links lead to http, https and mailto addresses only and open apart; images
    become links, because loading one tells its server that the answer was read, unless their pixels are in
    the text itself.

    Args:
        text: Markdown of any origin and any length.
    """
    if len(text) > MAX_MARKDOWN_CHARACTERS:
        return _sanitise(_render_long_text(text))
    return _sanitise(_parser().render(plain_characters(text)))


def defuse_markdown(text: str) -> str:
    """Return ``text`` as Markdown in which HTML is text and images are links, as `render_markdown` shows it.

    For a reader that is not ours. Code stays as it is. Where something only seems to be code, or a link leads
    to no web address, all links become text too.
    """
    text = plain_characters(text)
    if len(text) <= MAX_MARKDOWN_CHARACTERS:
        defused = _CODE_OR_SIGN.sub(lambda match: match["code"] or _SIGNS[match[0]], text)
        if not _has_live_parts(defused):
            return defused
    return re.sub(r"[<\[]|!(?=\[)", lambda match: _SIGNS[match[0]], text)


def highlight_apart(html: str) -> str:
    """Return HTML of `render_markdown` with Jupyter's own classes on its code, for places without ours."""
    # A quotation mark of the text itself is escaped, so that only attributes match.
    return html.replace(f'class="{_HIGHLIGHT_PREFIX}', 'class="').replace("<pre>", '<pre class="highlight">')


class GrowingMarkdown:
    """The HTML of a text that is still being written, block by block.

    Attributes:
        html: HTML of the blocks that are whole.
        length: How many characters of the text those are.
    """

    def __init__(self) -> None:
        self.html = ""
        self.length = 0

    def grow(self, text: str) -> str:
        """Return the HTML of the blocks that have become whole with ``text``; empty when none has."""
        rest = text[self.length :]
        whole_length = _length_of_whole_blocks(rest)
        added = render_markdown(rest[:whole_length]) if whole_length else ""
        self.length += whole_length
        self.html += added
        return added

    def finish(self, text: str) -> tuple[int, str]:
        """Return how many characters are shown as they stay, and the HTML of the rest."""
        whole = render_markdown(text)
        rest = render_markdown(text[self.length :])
        # A definition further down can change a link further up; then all of it is sent again.
        return (self.length, rest) if self.html + rest == whole else (0, whole)


def clean_text(text: str) -> str:
    """Return ``text`` without the lone surrogates that no message to a browser can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _length_of_whole_blocks(text: str) -> int:
    """Return how long all blocks of ``text`` but the last are: what follows cannot change them."""
    if len(text) > MAX_MARKDOWN_CHARACTERS or "\r" in text or "\n" not in text:
        return 0
    starts = [token.map[0] for token in _parser().parse(text) if token.level == 0 and token.map]
    return sum(len(line) + 1 for line in text.split("\n")[: starts[-1]]) if starts else 0


def _render_long_text(text: str) -> str:
    shown = f"<pre><code>{escape(plain_characters(text[:MAX_SHOWN_CHARACTERS]))}</code></pre>"
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
        attribute_filter=_filter_address,
        allowed_classes=_CLASSES,
        url_schemes=_URL_SCHEMES | {"data"},
        # A relative address would lead to the Jupyter server itself.
        url_relative="deny",
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        filter_style_properties={"text-align"},
    )


def _filter_address(tag: str, attribute: str, value: str) -> str | None:
    if (tag, attribute) == ("img", "src"):
        return value if _PICTURE.fullmatch(value) else None
    if (tag, attribute) == ("a", "href") and value.strip().lower().startswith("data:"):
        return None
    return value


def _has_live_parts(text: str) -> bool:
    return any(
        token.type in ("html_block", "html_inline", "image")
        or (token.type == "link_open" and not _SAFE_ADDRESS.match(str(token.attrs["href"])))
        for block in _careless_parser().parse(text)
        for token in (block, *(block.children or ()))
    )


class _CarelessParser(MarkdownIt):
    """Lets every address through, as the parser of another reader might."""

    def validateLink(self, url: str) -> bool:
        """Refuse nothing."""
        return True


@cache
def _careless_parser() -> MarkdownIt:
    return _CarelessParser("commonmark", {"html": True}).enable(["table", "strikethrough"])


@cache
def _parser() -> MarkdownIt:
    options = {"html": False, "maxNesting": _MAX_NESTING, "highlight": _highlight_code}
    parser = MarkdownIt("commonmark", options).enable(["table", "strikethrough"])
    parser.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True)
    parser.add_render_rule("image", _render_image)
    for name in ("math_inline", "math_inline_double", "math_block"):
        parser.add_render_rule(name, _render_formula)
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
    if is_picture(address):
        return f'<img src="{address}" alt="{caption}">'
    return f'<span class="rk-image"><a href="{address}">{caption}</a></span>'


def _render_formula(
    _renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    _options: OptionsDict,
    _env: MutableMapping[str, Any],
) -> str:
    token = tokens[index]
    is_block = token.type != "math_inline"
    formula = _mathml(token.content.strip(), is_block=is_block)
    return f"<p>{formula}</p>\n" if token.type == "math_block" else formula


def _mathml(formula: str, *, is_block: bool) -> str:
    if len(formula) <= _MAX_FORMULA_CHARACTERS:
        try:
            return convert(formula, display="block" if is_block else "inline")
        except _FORMULA_FAULTS:
            pass  # shown as it was written
    return f"<code>{escape(formula)}</code>"
