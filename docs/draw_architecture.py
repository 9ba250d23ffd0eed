"""Draws ``images/architecture.svg`` from the imports of the package: ``python docs/draw_architecture.py``.

Owns the drawing only; a part of the package is a box, and the parts it imports are below it. Invariant: the
picture says what the code does, so a test draws it again and compares.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "research_kit"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 210, 58, 26, 52, 16
_STYLE = """
  text { font-family: system-ui, sans-serif; fill: #1b1f24; text-anchor: middle; }
  .name { font-size: 15px; font-weight: 600; }
  .what { font-size: 11px; fill: #57606a; }
  rect { fill: #f6f8fa; stroke: #8c959f; }
  line { stroke: #8c959f; stroke-width: 1.2; marker-end: url(#tip); }
  #tip path { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .what { fill: #9198a1; } rect { fill: #161b22; stroke: #656c76; }
  }
"""
# What a part is for, in the words of a newcomer.
_PURPOSES = {
    "agent": "model, tools, assistant",
    "chat": "conversation and panel",
    "cli": "commands",
    "config": "settings",
    "counting": "what counts, once",
    "errors": "what can go wrong",
    "instrumentation": "libraries into observations",
    "ipython": "extension and magics",
    "masking": "no secrets in texts",
    "plain_stream": "what libraries print",
    "plain_text": "foreign text, made plain",
    "private": "own files and folders",
    "regression": "notebooks as tests",
    "session": "identity, stamping, delivery",
    "sources": "where values come from",
    "store": "embedded server",
    "traces": "API into frames",
    "transfer": "push and pull",
    "trust": "what the user has trusted",
    "views": "reports and export",
    "wire": "one way to a server",
}


def rooms() -> dict[str, list[Path]]:
    """Return the parts of the package, each with its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if not name.startswith("_"):
            found.setdefault(name, []).append(path)
    return found


def imports_of(paths: list[Path], names: set[str]) -> set[str]:
    """Return the parts that files import, also inside functions."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            found |= {module.split(".")[1] for module in modules if module.startswith("research_kit.")}
    return found & names


def depths_of(imports: dict[str, set[str]]) -> dict[str, int]:
    """Return how far below the top each part stands: right below the lowest one that imports it."""
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            above = [other for other, imported in imports.items() if name in imported]
            depths[name] = 1 + max(map(depth, above), default=-1)
        return depths[name]

    for name in imports:
        depth(name)
    return depths


def without_detours(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that are needed: not one that others lead along already."""

    def reached(name: str) -> set[str]:
        return imports[name].union(*(reached(other) for other in imports[name]))

    return [
        (name, other)
        for name, others in sorted(imports.items())
        for other in sorted(others)
        if not any(other in reached(between) for between in others - {other})
    ]


def draw() -> str:
    """Return the picture as SVG."""
    found = rooms()
    imports = {name: imports_of(paths, set(found)) - {name} for name, paths in found.items()}
    depths = depths_of(imports)
    rows = [sorted(name for name in found if depths[name] == row) for row in range(max(depths.values()) + 1)]
    width = max(len(row) for row in rows) * (_BOX_WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN
    height = len(rows) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    corners: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        left = (width - len(row) * (_BOX_WIDTH + _GAP_X) + _GAP_X) // 2
        for place, name in enumerate(row):
            corners[name] = (
                left + place * (_BOX_WIDTH + _GAP_X),
                _MARGIN + number * (_BOX_HEIGHT + _GAP_Y),
            )
    parts = [_arrow(corners[above], corners[below]) for above, below in without_detours(imports)]
    parts += [_box(name, *corner) for name, corner in corners.items()]
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z"/></marker>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    title = "<title>The parts of research_kit and what they import</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", f"<defs>{tip}</defs>", *parts, "</svg>", ""])


def _arrow(above: tuple[int, int], below: tuple[int, int]) -> str:
    x1, y1, x2 = above[0] + _BOX_WIDTH // 2, above[1] + _BOX_HEIGHT, below[0] + _BOX_WIDTH // 2
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{below[1] - 2}"/>'


def _box(name: str, x: int, y: int) -> str:
    middle = x + _BOX_WIDTH // 2
    return (
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="7"/>'
        f'<text class="name" x="{middle}" y="{y + 24}">{name}</text>'
        f'<text class="what" x="{middle}" y="{y + 43}">{_PURPOSES[name]}</text>'
    )


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw())
