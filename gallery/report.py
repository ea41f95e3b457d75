"""The page of the gallery, and what is said on the terminal."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .network import Network
from .result import GOOD, SAID, Result

LONG = 30.0  # seconds of a conversion that are too many
COLUMNS = ("network", "result", "windows", "seconds", "delay", "difference", "step", "compiled", "source")
NUMBERS = ("seconds", "delay", "difference", "step", "compiled")
STEPS = """
- **step**: how many times faster a call with the next `net.step_size` frames is than the module on its window (its
  receptive field; the example, for windows and for recurrent networks), once for each such call. Eager, float32, one
  row, one thread; *compiled*: the same of the compiled program and the compiled module. Most networks are small, so
  that they convert in seconds: what a call costs by itself counts much in them. [Performance](performance.md) has
  networks of usual sizes. Rows without a figure were not timed."""
PAGE = """\
# Gallery

Networks that people own, each converted as it is and compared with its module. `python -m gallery --markdown
docs/gallery.md` writes this page; `python -m gallery --help` says how to run a part of it. Networks that need a package
are skipped where it is not installed.

{summary}

- **result**: *converts*: a stream, with outputs as soon as their frames are there. *exact windows*: the module's own
  output of the last frames, as many as the example has ([windows](windows.md)). *refused*: with the reason below.
- **windows**: their length, the steps from one to the next, and the share of a window's multiply-adds that windows can
  take over from each other. *recomputed*: computing each window as a whole is faster here.
- **seconds**: CPU time of `co.continual(module, clip)`, its check against the module included. The first
  conversion of a process takes about 1.5 seconds more.
- **delay**: steps before the first output.
- **difference**: the largest from the module's outputs, relative to the largest of these, in random chunks and single
  steps. A stream runs on a clip twice as long as the example; windows are compared with the module on each of them. In
  float64, where the module runs in it; *f32* marks the others.{steps}

{tables}

## Refused

Why no stream, and no window, gives these outputs; or what the library can't do yet.

{refused}
"""


def page(networks: Sequence[Network], found: Mapping[str, Result], machine: str) -> str:
    """The page, of all networks that have a result."""
    rows = [(n, found[n.name]) for n in networks if n.name in found]
    timed = {name for _, r in rows for name, ratio in (("step", r.ratio), ("compiled", r.compiled)) if ratio is not None}
    columns = [c for c in COLUMNS if c in timed or c not in ("step", "compiled")]  # where it was measured
    groups: dict[str, list[str]] = {}
    for network, result in rows:
        groups.setdefault(network.name.partition("/")[0], []).append(line(network, result, columns))
    head = _row(columns), _row(["--:" if c in NUMBERS else "---" for c in columns])
    tables = "\n\n".join("\n".join((f"## {name}", "", *head, *lines)) for name, lines in groups.items())
    refused = "\n".join(
        textwrap.fill(
            f"- {n.name}: {n.why or 'not yet: ' + (n.gap or r.reason)}", 118, subsequent_indent="  ", break_on_hyphens=False
        )
        for n, r in rows
        if r.outcome == "refused"
    )
    summary = textwrap.fill(f"{totals(networks, found)} Measured on {machine}.", 118, break_on_hyphens=False)
    return PAGE.format(summary=summary, steps=STEPS if timed else "", tables=tables, refused=refused or "None.")


def line(network: Network, result: Result, columns: Sequence[str] = COLUMNS) -> str:
    """A row of the table."""
    said = SAID[result.outcome]
    if result.changed(network):
        said = f"**{said}** instead of {SAID[network.expected]}: {result.reason}"
    elif result.outcome == "skipped":
        said = f"skipped: {result.reason}"
    cells = (
        network.name.partition("/")[2],
        said,
        _windows(result),
        "" if result.seconds is None else f"{result.seconds:.1f}",
        "" if result.delay is None else str(result.delay),
        "" if result.difference is None else f"{result.difference:.0e}" + (" f32" if result.dtype == "float32" else ""),
        _times(result.ratio),
        _times(result.compiled),
        network.source,
    )
    return _row([cell for name, cell in zip(COLUMNS, cells, strict=True) if name in columns])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _windows(result: Result) -> str:
    if result.length is None or result.reuse is None:
        return ""
    return f"{result.length}, every {result.every}, {result.reuse:.0%}" + (", recomputed" if result.recomputed else "")


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2g}×" if ratio < 100 else f"{ratio:.0f}×"


def totals(networks: Sequence[Network], found: Mapping[str, Result]) -> str:
    """How many of each kind, and how long conversions take."""
    results = [found[n.name] for n in networks if n.name in found]
    counts = Counter(r.outcome for r in results)
    ran = len(results) - counts["skipped"]
    exact = counts["stream"] + counts["windows"]
    share = f" ({exact / ran:.0%})" if ran else ""
    parts = [f"{ran} networks: {exact} are exact{share}, {counts['stream']} as streams and {counts['windows']} as exact windows"]
    parts += [f"{counts[k]} {SAID[k]}" for k in SAID if counts[k] and k not in ("stream", "windows")]
    owed = sum(bool(n.gap) and found[n.name].outcome == "refused" for n in networks if n.name in found)
    parts += [f"{owed} of these are gaps of the library, the others have no stream"] if owed else []
    seconds = [r.seconds for r in results if r.seconds is not None and r.outcome in GOOD]
    text = "; ".join(parts) + "."
    if seconds:
        text += f" A conversion takes {statistics.median(seconds):.1f} CPU seconds (median), {max(seconds):.0f} at most;"
        text += f" {sum(s > LONG for s in seconds)} take more than {LONG:.0f}."
    return text


def failures(networks: Iterable[Network], found: Mapping[str, Result]) -> list[str]:
    """What is another result than the table expects."""
    return [
        f"{n.name}: {SAID[found[n.name].outcome]} instead of {SAID[n.expected]}: {found[n.name].reason or 'no reason'}"
        for n in networks
        if n.name in found and found[n.name].changed(n)
    ]


def write(path: Path, text: str) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
