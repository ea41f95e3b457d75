"""One network: made, converted, compared with its module and timed. It runs in a process of its own, and in tests in theirs."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import continual as co

from . import compare, speed
from .network import Network, made
from .packages import missing
from .result import Result

HIDDEN = "although every operation of it is known"  # a refusal that hides an error of the library
REMEDY = "co.continual(module, clip, output=-1"  # of a refusal: the last frame of each window


def measure(network: Network, *, timed: bool = True, compiled: bool = False) -> Result:
    """Make a network, convert it, compare it and time it.

    Args:
        network: the row.
        timed: measure steps, too.
        compiled: measure compiled programs, too: a minute more for each network.

    Returns:
        What was found. Errors are results, too.
    """
    if missing(network.package):
        return Result(network.name, "skipped", f"{network.package} is not installed")
    result = Result(network.name)
    with _quiet():
        _measured(network, result, timed, compiled)
    return result


def _measured(network: Network, result: Result, timed: bool, compiled: bool) -> None:
    module = _module_of(network, result)
    net = None if module is None else _converted(network, module, result)
    if module is None or net is None:
        return
    result.outcome = "stream" if net.windows is None else "windows"
    result.delay = int(net.delay)
    if net.windows is not None:
        report = net.windows
        result.length, result.every, result.reuse, result.recomputed = (
            report.length,
            report.every,
            report.reuse,
            report.recomputed,
        )
    try:
        _compared(network, module, net, result, timed, compiled)
    except compare.Wrong as error:
        result.outcome, result.reason = "wrong", str(error)
    except Exception as error:  # whatever the converted network does when it runs is a result
        _failed(result, "crash", error)


def _module_of(network: Network, result: Result) -> nn.Module | None:
    """The module, if it can be made and takes its example."""
    try:
        module = made(network)
        with torch.no_grad():
            module(*network.inputs())
    except ModuleNotFoundError as error:
        result.outcome, result.reason = "skipped", f"{error.name} is not installed"
        return None
    except Exception as error:
        _failed(result, "row", error)
        return None
    return module


def _converted(network: Network, module: nn.Module, result: Result) -> Any | None:
    """The converted network; ``None`` with the reason in the result if it is refused."""
    start = time.process_time()
    try:
        net = _continual(network, module)
    except co.NotStreamable as error:
        _failed(result, "crash" if HIDDEN in str(error) else "refused", error)
        result.seconds = time.process_time() - start
        if REMEDY in str(error):
            _try_remedy(network, module, result, str(error))
        return None
    except Exception as error:
        _failed(result, "crash", error)
        return None
    finally:
        result.seconds = result.seconds or time.process_time() - start
    return net


def _try_remedy(network: Network, module: nn.Module, result: Result, refusal: str) -> None:
    """Do what a refusal says, and see that it helps."""
    most = re.search(r"with an example of (\d+) steps at most", refusal)
    try:
        net: Any = _continual(network, module, int(most[1]) if most else None, output=-1)
        _, _ = compare.of_windows(net, module, network, lambda x: x, output=-1)
    except Exception as error:
        result.outcome, result.reason = "remedy", f"output=-1: {type(error).__name__}: {error}"[:400]


def _continual(network: Network, module: nn.Module, frames: int | None = None, **more: Any) -> Any:
    """The conversion, as people call it; on an example of so many frames."""
    clip = network.inputs(frames)
    options = {**network.options, **more}
    return co.continual(module, clip if len(clip) > 1 else clip[0], time_dim=network.time_dim, progress=False, **options)


def _compared(network: Network, module: nn.Module, net: Any, result: Result, timed: bool, compiled: bool) -> None:
    if timed:
        result.step, result.window, result.ratio = speed.measured(net, module, network)
    if compiled:
        result.compiled = speed.compiled(net, module, network)
    dtype = torch.float32
    if not network.single and _as_double(network, module):
        net.double()
        dtype = torch.float64
    convert: Callable[[Tensor], Tensor] = lambda x: x.to(dtype) if x.is_floating_point() else x  # noqa: E731
    compare.tells(module, network, convert)
    check = compare.of_stream if net.windows is None else compare.of_windows
    result.difference, result.frames = check(net, module, network, convert)
    result.dtype = str(dtype).removeprefix("torch.")
    if not result.difference <= compare.TOLERANCE[dtype]:
        raise compare.Wrong(f"differs from the module by {result.difference:.1e} in {result.dtype}")


def _as_double(network: Network, module: nn.Module) -> bool:
    """Turn a module into one of float64, if its code runs in this dtype."""
    module.double()
    try:
        with torch.no_grad():
            module(*(x.double() if x.is_floating_point() else x for x in network.inputs()))
    except RuntimeError:
        module.float()
        return False
    return True


def _failed(result: Result, outcome: str, error: BaseException) -> None:
    name = "" if outcome == "refused" else f"{type(error).__name__}: "
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    first = _first_reason(error) or lines[0]
    result.outcome, result.reason, result.message = outcome, f"{name}{first}"[:400], f"{name}{error}"[:8000]


def _first_reason(error: BaseException) -> str:
    """The first refusal of an error that lists some."""
    refusals = getattr(error, "refusals", ())
    return str(getattr(refusals[0], "reason", "")) if refusals else ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what other packages print, log and warn of: it is not about this library."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
