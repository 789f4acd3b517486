"""Bar charts as SVG: small, without a script or a font of their own.

Each has a ground of its own and a second set of colours for dark screens,
so that it can be read whatever page it stands on.
"""

import statistics
from xml.sax.saxutils import escape

STYLE = """\
.ground{fill:#fff;stroke:#d0d7de}
text{font:12px sans-serif;fill:#1f2328}
.title{font-weight:bold}.note{fill:#59636e}
.bar{fill:#9aa4ae}.own{fill:#0969da}.line{stroke:#59636e}
@media(prefers-color-scheme:dark){
.ground{fill:#0d1117;stroke:#3d444d}
text{fill:#f0f6fc}.note{fill:#a5adb7}
.bar{fill:#6e7781}.own{fill:#4493f8}.line{stroke:#a5adb7}}
"""
WIDE, LABELS, FIGURES = 640, 200, 60
ROW, HEAD = 20, 44
CUT = 5		# times the median: what is longer would hide the rest


def _panel(top, title, note, bars, own, mark):
    """One panel's lines; `mark` is where a line is drawn, or None."""
    room = WIDE - LABELS - FIGURES - 20
    values = [value for _, value, _ in bars]
    most = min(max(values + [mark or 0]), CUT * statistics.median(values))
    if max(values) > most:
        note += "; longer bars are cut"
    out = [f'<text class="title" x="12" y="{top + 20}">{escape(title)}'
           '</text>',
           f'<text class="note" x="12" y="{top + 36}">{escape(note)}</text>']
    at = top + HEAD
    for name, value, shown in bars:
        kind = "own" if name.split(" ")[0] == own else "bar"
        long = max(1.0, room * min(1.0, value / most))
        out += [f'<text x="{LABELS - 8}" y="{at + 14}" text-anchor="end">'
                f'{escape(name)}</text>',
                f'<rect class="{kind}" x="{LABELS}" y="{at + 3}" '
                f'width="{long:.1f}" height="{ROW - 6}"/>',
                f'<text x="{WIDE - 12}" y="{at + 14}" text-anchor="end">'
                f'{escape(shown)}</text>']
        at += ROW
    if mark:
        x = LABELS + room * mark / most
        out.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" '
                   f'y1="{top + HEAD}" y2="{at}" stroke-dasharray="3 3"/>')
    return out


def height(panels):
    return sum(HEAD + ROW * len(p[2]) + 12 for p in panels) + 4


def bars(panels, own):
    """An SVG of panels (title, note, bars, mark).

    A bar is (name, value, text behind it); those of `own` stand out.
    """
    high = height(panels)
    body, top = [], 0
    for title, note, found, mark in panels:
        body += _panel(top, title, note, found, own, mark)
        top += HEAD + ROW * len(found) + 12
    spoken = escape("; ".join(p[0] for p in panels), {'"': "&quot;"})
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" '
         f'height="{high}" viewBox="0 0 {WIDE} {high}" role="img" '
         f'aria-label="{spoken}">',
         f"<style>{STYLE}</style>",
         f'<rect class="ground" x="0.5" y="0.5" width="{WIDE - 1}" '
         f'height="{high - 1}" rx="6"/>'] + body + ["</svg>", ""])
