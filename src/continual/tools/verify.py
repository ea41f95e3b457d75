"""`verify`: checks the contract of streaming on any module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from ..core.progress import Progress
from ..core.step_spec import Inputs
from ..errors import StreamMismatch
from .report import Check, Report

__all__ = ["Check", "Report", "verify"]


def verify(
    net: Any,
    clip: Inputs,
    reference: nn.Module | Callable[[Any], Any] | None = None,
    *,
    effort: Literal["quick", "full"] = "full",
    splits: int | None = None,
    tolerance: float | None = None,
    raise_on_fail: bool = True,
    seed: int = 0,
    progress: bool | Callable[[int, int, str], None] = False,
) -> Report:
    """Check the whole contract of this library on a module, as a black box, through its public methods.

    It checks the clip computation, and equal outputs for every chunking, for single steps and for a flush at any time. No output is late
    or early. ``update_state=False`` and ``pad_end=True`` have no side effects. Snapshots, independent rows, constant memory and gradients
    follow; then weights, copies and pickles, and calls that raise.

    The module runs in eval mode. Afterwards its stream, training flags, parameters, gradients and random numbers are as before, also
    after Ctrl-C.

    Time: the work of about 80 clips, some of it in single steps; ``effort="quick"`` takes about 50. Long clips are tested in some places.
    Memory: a process grows by at most twice the memory of one ``forward`` of the clip and 1 GiB. The memory is measured; to keep the
    limit, rows, steps and chunks become fewer or smaller, gradients go through fewer steps, and checks that copy weights are omitted.
    The notes of the report and the checks say so. A flush can't be divided: one that takes more than ``forward`` exceeds the limit.

    Lengths: a clip that is shorter than the delay is lengthened by its own content. Other lengths near that of the clip are tried, of all
    residues of the strides; lengths that the reference refuses prove nothing. Where the reference can't run (a longer clip, another
    dtype), a check is not applicable, with the reason.

    Args:
        net: a :class:`~continual.CoModule`, or any object with ``forward_step``, ``forward_steps``, ``get_state``, ``set_state``
            and ``clean_state``, and with ``forward`` if no reference is given. An object that is not a module may state a fixed number of
            rows (``batch``), that it collects steps (``chunk``), and that it gives no gradients (``inference_only``).
        clip: ``(B, C, T, *S)``, or a list of such for a module that takes several streams; for a converted module in its own
            layout, a tuple for several inputs. It should have a few receptive fields, and values that tell right from wrong. A batch
            of 1 becomes 2 rows: the row itself, and the row reversed in time and rolled by ``T // 3``.
        reference: the trained module, or a function of the clip (of the tuple, for several inputs), which ``net.forward`` must equal.
        effort: ``"full"``, or ``"quick"`` for large networks. Quick takes 2 random splits instead of 8, 3 phases of a stream instead of
            6, 8 lengths of clips instead of up to 24, and 4 other lengths instead of 16. Its gradients go through single steps alone, 8
            steps past the first output instead of 32. It searches for early outputs with two contents instead of three. Every check runs.
        splits: the number of random splits into chunks; ``None`` for that of the effort.
        tolerance: largest ``|a - b| / max(1, max|b|)``; ``None`` for 1e-12 in float64, 1e-5 in float32 and 1e-2 in half types.
        raise_on_fail: raise if a check fails.
        seed: for all random choices.
        progress: ``True`` for a bar on standard error after some seconds; without a terminal, a line now and then. Or a function that is
            called with the number of finished checks, the number of all checks, and the name of the next one.

    Returns:
        All checks with their measurements; ``print`` shows a table.

    Raises:
        StreamMismatch: a check failed. The message names the first broken point with numbers; ``.report`` holds the rest.
        ShapeMismatch: ``forward`` refuses the clip.
        ValueError: ``effort`` is neither of the two.

    Example:
        >>> model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 2, 3, stride=2))
        >>> net = co.continual(model)
        >>> co.verify(net, torch.randn(2, 2, 20), reference=model).passed
        True

        A module that is declared local in time and is not:

        >>> report = co.verify(co.forward_stepping(nn.Conv1d(2, 2, 3, padding=1)), torch.randn(2, 2, 20), raise_on_fail=False)
        >>> print(report.failures[0])
        contract point 2 (any chunking), chunks and steps = forward: split [20 steps, 0 with pad_end] differs from forward: ...
    """
    from .checks.effort import EFFORTS
    from .checks.runner import run_checks  # here: it is not needed at import

    if effort not in EFFORTS:
        raise ValueError(f"co.verify: effort is one of {', '.join(map(repr, EFFORTS))}, got {effort!r}")
    wire: Any = clip
    with Progress(f"verifying {type(net).__name__}", progress is True) as doing:
        say = progress if callable(progress) else doing.part
        report = run_checks(net, wire, reference, EFFORTS[effort], splits, tolerance, seed, say)
    if raise_on_fail and not report.passed:
        subject = report.subject.split(", tolerance")[0]
        more = f"\n\n{report}" if len(report.failures) > 1 else ""
        raise StreamMismatch(f"{subject} breaks {report.failures[0]}{more}", report)
    return report
