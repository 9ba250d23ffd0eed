"""How the documentation is built: ``make docs``.

Owns the list of public names per part of the package, which it takes from the package itself, so that the
reference is never behind the code.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

import research_kit

project = "research-kit"
author = "The research-kit maintainers"
project_copyright = author
version = release = metadata.version("jupyter-research-kit")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxarg.ext",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_static"]
# The domain of the command line's reference answers no references from Markdown.
suppress_warnings = ["myst.domains"]

html_theme = "pydata_sphinx_theme"
html_title = "research-kit"
html_static_path = ["_static"]
html_css_files = ["extra.css"]
html_theme_options = {"navbar_align": "left", "show_toc_level": 2, "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_rtype = False

# Hooks that IPython calls by name, and the reader's namespace of coroutines, which has the frames' own names.
_NOT_CALLED = {"load_ipython_extension", "unload_ipython_extension", "aio"}
_NAMES_OF = re.compile(r"<!-- names of ([\w ]+) -->")


def _names_of(match: re.Match[str]) -> str:
    """Return the reference of the public names whose home is one of the named packages."""
    homes = match[1].split()
    lines = ["```{eval-rst}"]
    for name in research_kit.__all__:
        value = getattr(research_kit, name)
        home = getattr(value, "__module__", research_kit.__name__).split(".")
        if name in _NOT_CALLED or not callable(value) or len(home) < 2 or home[1] not in homes:
            continue
        kind = "autoclass" if isinstance(value, type) else "autofunction"
        lines += [f".. {kind}:: research_kit.{name}", *(["   :members:"] if kind == "autoclass" else []), ""]
    return "\n".join([*lines, "```"])


def _fill_reference(_app: Any, docname: str, content: list[str]) -> None:
    if docname == "reference":
        content[0] = _NAMES_OF.sub(_names_of, content[0])


def setup(app: Any) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("source-read", _fill_reference)
