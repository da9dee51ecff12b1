"""The parts a report is made of: page, tile, picture, chart; all text is escaped by `text`."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from ingest.disk.durable import write_whole
from ingest.store.output import writing
from online.reports.charts import Curve
from online.reports.figures import to_png

_JPEG_QUALITIES = (90, 80, 65, 50)

# Nothing may be loaded and no script may run, whatever a name in a report contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #5c6470; --text: #16191f;
  --line: #dfe3e8; --grid: #e4e7ec;
  --trained: #1769e0; --second: #d9730d; --third: #8440c9; --fourth: #12805c;
  --untrained: #7d8694; --chance: #9aa2ae;
  --shade: #0f121733; --tint: #eaf2fe; --alarm: #b42318; --alarm-tint: #fef1f0; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0f1217; --card: #171b22; --ink: #9aa4b2; --text: #e8ebf0;
  --line: #2a303a; --grid: #272d37;
  --trained: #5ea8ff; --second: #ffa657; --third: #c497ff; --fourth: #56d3a3;
  --untrained: #8b95a5; --chance: #6f7988;
  --shade: #000000aa; --tint: #16263d; --alarm: #ff8f85; --alarm-tint: #37191a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 48px 0 4px; }
h3 { font-size: .95rem; margin: 0; }
p { margin: 6px 0; } sub { line-height: 0; }
.quiet, figcaption, .card p, caption { color: var(--ink); font-size: .875rem; }
.names { color: var(--ink); overflow-wrap: anywhere; }
.verdict { font-size: 1.2rem; line-height: 1.45; margin: 22px 0; max-width: 50em;
  padding-left: 16px; border-left: 4px solid var(--trained); }
.alarm { background: var(--alarm-tint); color: var(--alarm); border-radius: 8px; padding: 10px 16px;
  overflow-wrap: anywhere; }
.tiles { display: grid; gap: 14px; margin: 22px 0;
  grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; min-width: 0; }
.card strong { display: block; font-size: 1.75rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 14px; margin-top: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
.charts .card { display: flex; flex-direction: column; }
.card svg { display: block; width: 100%; height: auto; margin-top: auto; padding-top: 8px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin-top: 4px; font-size: .8125rem; }
.legend span::before { content: ""; display: inline-block; width: 20px; height: 0;
  margin-right: 7px; vertical-align: middle; border-top: 2.5px solid var(--tone); }
.legend .dashed::before { border-top-style: dashed; }
.legend .dotted::before { border-top-style: dotted; }
.wide { overflow-x: auto; scrollbar-width: thin; scrollbar-color: var(--chance) var(--grid); }
.wide:focus-visible { outline: 3px solid var(--trained); outline-offset: 2px; }
/* shades at the sides that hide content; they scroll away with what covers them at the ends */
.scores { background: linear-gradient(90deg, var(--card) 40%, transparent) 0 / 48px 100%,
  linear-gradient(270deg, var(--card) 40%, transparent) 100% / 48px 100%,
  linear-gradient(90deg, var(--shade), transparent) 0 / 16px 100%,
  linear-gradient(270deg, var(--shade), transparent) 100% / 16px 100%, var(--card);
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll, scroll; }
/* a wide figure leaves the column, shrinks by a quarter at most, and then scrolls */
figure { margin: 14px 0; --room: min(100vw - 64px, var(--natural)); }
figure .wide { border-radius: 10px; width: var(--room);
  margin-left: min(0px, 50% - var(--room) / 2); }
figure img { display: block; width: clamp(.75 * var(--natural), 100%, var(--natural));
  height: auto; }
figcaption { margin-top: 8px; max-width: 60em; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
.scores { border: 1px solid var(--line); border-radius: 10px; margin: 14px 0; }
th, td { padding: 7px 9px; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
thead th { color: var(--ink); font-weight: 600; font-size: .8125rem; }
thead tr:first-child th[colspan] { text-align: center; border-bottom: 1px solid var(--line); }
tbody tr { border-top: 1px solid var(--line); }
tr:not(.columns) > th:first-child, .meaning { text-align: left; }
td.meaning { white-space: normal; min-width: 22em; color: var(--ink); font-size: .8125rem; }
.columns th { white-space: normal; vertical-align: bottom; }
.meanings { display: grid; gap: 8px 28px; margin: 0; color: var(--ink); font-size: .8125rem;
  grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
.meanings dt { display: inline; font-weight: 650; color: var(--text); }
.meanings dt::after { content: ": "; } .meanings dd { display: inline; margin: 0; }
.compared thead th:not(.meaning) { text-align: right; white-space: normal; min-width: 10em;
  overflow-wrap: break-word; }
td.ours { background: color-mix(in srgb, var(--trained) 10%, transparent); font-weight: 650; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; overflow-x: auto; font: .85rem/1.5 ui-monospace, Menlo, monospace; }
details { margin-top: 48px; } summary { cursor: pointer; font-size: 1.2rem; font-weight: 700; }
ol.events { list-style: none; padding: 0; margin: 12px 0; font-size: .9rem; }
ol.events li { display: grid; grid-template-columns: 15em 1fr; gap: 16px; padding: 6px 0;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
ol.events .hot { color: var(--alarm); }
@media (max-width: 640px) { main { padding: 24px 14px 48px; } h1 { font-size: 1.5rem; }
  figure { --room: min(100vw - 28px, var(--natural)); }
  svg { overflow: visible; } svg text { font-size: 13px; }
  .wide + figcaption::before { content: "↔ Scrolls sideways. "; font-weight: 650; }
  .scores tr:not(.columns) > th:first-child { position: sticky; left: 0; max-width: 8em;
    background: var(--card); white-space: normal; }
  ol.events li { grid-template-columns: 1fr; gap: 0; } }
@media print { .wide { overflow: visible; } .card, figure { break-inside: avoid; } }
"""


SCROLLS = 'tabindex="0" role="group" aria-label="Scrolls sideways where it is too wide"'
"""Attributes of what may be wider than the page, so that keys scroll it too."""


def text(content: str) -> str:
    """`content` as it should be read, whatever characters it holds."""
    return escape(content.encode("utf-8", "replace").decode("utf-8"))


def with_subscripts(markup: str) -> str:
    """`s_t` and `p_t` as they are printed in the paper."""
    return re.sub(r"\b([sp])_t\b", r"\1<sub>t</sub>", markup)


def page(title: str, sections: Sequence[str]) -> str:
    """A whole document around `sections` of markup."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def write_page(html: str, target: Path) -> None:
    """Replace a page by a newer one; after a StoreError the old one is intact."""
    with writing(target):
        write_whole(target, html.encode(), durable=False)


def heading(title: str, note: str = "") -> str:
    """A section's title and what one should know before reading it."""
    return f"<h2>{text(title)}</h2>" + (f'<p class="quiet">{text(note)}</p>' if note else "")


def tile(title: str, value: str, note: str) -> str:
    """One large number."""
    return (
        f'<div class="card"><h3>{text(title)}</h3><strong>{text(value)}</strong>'
        f"<p>{text(note)}</p></div>"
    )


def chart_card(title: str, note: str, curves: Sequence[Curve], svg: str) -> str:
    """A chart with its title, its legend and a line on how to read it."""
    kinds = {"untrained": "dashed", "chance": "dotted"}
    legend = "".join(
        f'<span class="{kinds.get(curve.tone, "solid")}" style="--tone: var(--{curve.tone})">'
        f"{with_subscripts(text(curve.label))}</span>"
        for curve in curves
    )
    return (
        f'<div class="card"><h3>{text(title)}</h3><p>{with_subscripts(text(note))}</p>'
        f'<div class="legend">{legend}</div>{svg}</div>'
    )


def picture(image: Image.Image, *, label: str, caption: str, crisp: bool, limit_bytes: int) -> str:
    """An inlined image that scrolls on narrow screens, with its `caption` under it.

    A screen reader says `label`. Every pixel is kept if it is to be `crisp` and fits into
    `limit_bytes`, the size of the image file; photographs do as well as JPEG.
    """
    data = to_png(image) if crisp else b""
    kind = "png"
    if not crisp or len(data) > limit_bytes:
        data, kind = _jpeg(image, limit_bytes), "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure style="--natural: {image.width}px"><div class="wide" {SCROLLS}>'
        f'<img src="{source}" width="{image.width}" height="{image.height}" alt="{text(label)}">'
        "</div>"
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def command_block(lines: Sequence[str]) -> str:
    """Lines to copy into a shell."""
    return "<pre>" + "\n".join(text(line) for line in lines) + "</pre>"


def folded(title: str, content: str) -> str:
    """Text that unfolds when asked for."""
    return f"<details><summary>{text(title)}</summary><pre>{text(content)}</pre></details>"


def _jpeg(image: Image.Image, limit_bytes: int) -> bytes:
    """As good as `limit_bytes` allow; half the size where no quality is small enough."""
    for quality in _JPEG_QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality, subsampling=0)
        if buffer.tell() <= limit_bytes:
            return buffer.getvalue()
    return _jpeg(image.reduce(2), limit_bytes)
