"""HTML pages in one file that need nothing else: no script, no network. They follow the reader's choice of light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ddd; --quiet: #777; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181818; --line: #3a3a3a; --quiet: #999; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 900px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, .name { text-align: left; }
h3 { margin: 1.2em 0 .3em; font-size: 1em; }
svg { max-width: 100%; height: auto; }
.label { font-size: 12px; fill: var(--ink); } .quiet { font-size: 12px; fill: var(--quiet); color: var(--quiet); }
.grid { stroke: var(--line); } .roof { stroke: var(--ink); stroke-width: 1.5; } .dashed { stroke-dasharray: 4 3; }
.whisker { stroke: var(--ink); stroke-width: 1.2; } .curve { stroke-width: 1.8; }
.dots { stroke-width: 4; stroke-linecap: round; stroke-opacity: .6; }
.key { margin-right: 1em; } .key i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; }
.wide { overflow-x: auto; } code { font-size: .85em; overflow-wrap: anywhere; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The page, as well-formed XML, of pieces of HTML."""
    return (
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en">\n<head><meta charset="utf-8"/>'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], names: Iterable[str] = ()) -> str:
    """A table of cells in HTML; the first column and those headed by one of ``names`` hold words, the others figures."""
    words = set(names)
    kinds = ["name" if heading in words else "figure" for heading in headings]
    head = "".join(f'<th class="{kind}">{escape(heading)}</th>' for kind, heading in zip(kinds, headings, strict=True))
    lines = []
    for row in rows:
        cells = (f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(lines)}\n</tbody></table></div>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names and their colours."""
    return " ".join(f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in entries)
