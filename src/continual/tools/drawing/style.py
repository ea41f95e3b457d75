"""Colours and fonts, for light and dark pages."""

from __future__ import annotations

SANS = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# what is drawn: fill and stroke on light pages, and on dark ones
COLOURS = {
    "temporal": ("#e0f0ff", "#5a9fdc", "#12304f", "#4a90d0"),
    "local": ("#f5f6f8", "#c6ccd4", "#1b2027", "#454d57"),
    "join": ("#f0eafd", "#a48be0", "#2a2144", "#8a70cc"),
    "queue": ("#fff5d1", "#d3a326", "#3a2d0a", "#c19522"),
    "refused": ("#ffe9e7", "#e0564c", "#4a1513", "#f0695f"),
    "input": ("#ffffff", "#6b7480", "#11151a", "#8b949e"),
    "output": ("#ffffff", "#6b7480", "#11151a", "#8b949e"),
}
_LIGHT = {"page": "#ffffff", "ink": "#1c2128", "dim": "#5b6570", "line": "#8d96a0"}
_DARK = {"page": "#11151a", "ink": "#e4e9ee", "dim": "#9aa4af", "line": "#6d7681"}


def _rules(shades: dict[str, str], dark: bool) -> str:
    at = 2 if dark else 0
    rules = [
        f".co-graph .page{{fill:{shades['page']}}}",
        f".co-graph .ink{{fill:{shades['ink']}}}",
        f".co-graph .dim{{fill:{shades['dim']}}}",
        f".co-graph .line{{stroke:{shades['line']};fill:none;stroke-width:1.4}}",
        f".co-graph .head{{fill:{shades['line']}}}",
        f".co-graph .late{{stroke:{COLOURS['queue'][at + 1]}}}",
        f".co-graph .late-head{{fill:{COLOURS['queue'][at + 1]}}}",
        f".co-graph .cell{{fill:{COLOURS['queue'][at + 1]}}}",
    ]
    for kind, colours in COLOURS.items():
        rules.append(f".co-graph .{kind}{{fill:{colours[at]};stroke:{colours[at + 1]};stroke-width:1.2}}")
        rules.append(f".co-graph .{kind}-rule{{stroke:{colours[at + 1]};stroke-opacity:.45}}")
    return "".join(rules)


FONTS = (
    f".co-graph text{{font:12px {SANS}}}"
    ".co-graph .op{font-weight:600}"
    f".co-graph .mono{{font:10.5px {MONO}}}"
    ".co-graph .small{font-size:11px}"
    ".co-graph .title{font-size:17px;font-weight:700}"
)

GRAPH_CSS = FONTS + _rules(_LIGHT, False) + "@media (prefers-color-scheme:dark){" + _rules(_DARK, True) + "}"

_SHADES = "--co-page:{page};--co-ink:{ink};--co-dim:{dim};--co-line:{line}"
PAGE_CSS = f"""
.co-page{{color-scheme:light dark;{_SHADES.format(**_LIGHT)};--co-soft:#f5f6f8;--co-bad:#c2352b;
  background:var(--co-page);color:var(--co-ink);font:14px/1.5 {SANS};padding:20px;box-sizing:border-box}}
@media (prefers-color-scheme:dark){{.co-page{{{_SHADES.format(**_DARK)};--co-soft:#1b2027;--co-bad:#ff8077}}}}
.co-page h1{{font-size:22px;margin:0 0 4px}} .co-page h2{{font-size:16px;margin:28px 0 8px}}
.co-page .facts{{color:var(--co-dim);margin:0}} .co-page .wide{{overflow-x:auto}}
.co-page table{{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;color:inherit}}
.co-page th,.co-page td{{padding:3px 10px;text-align:right;border-bottom:1px solid color-mix(in srgb,var(--co-line) 30%,transparent);
  white-space:nowrap;vertical-align:top;background:none;color:inherit}}
.co-page th{{color:var(--co-dim);font:600 13px {SANS}}} .co-page .word{{text-align:left}}
.co-page .mono,.co-page code{{font-family:{MONO};font-size:12px}} .co-page tbody tr:hover{{background:var(--co-soft)}}
.co-page tfoot td{{font-weight:600;border-bottom:0}} .co-page tr.bad td{{color:var(--co-bad)}}
.co-page .refusals li{{margin:0 0 14px;border-left:3px solid var(--co-bad);padding:2px 12px;list-style:none;white-space:pre-line}}
.co-page .refusals,.co-page .notes{{padding:0;margin:0}} .co-page .notes li{{margin-left:18px}}
.co-page .refusals p{{margin:2px 0}} .co-page svg{{max-width:none;height:auto}}
"""
