"""The comments of a configuration: how a client sends steps and reads outputs."""

from __future__ import annotations

import textwrap

from ..export.metadata import Metadata, Port
from .settings import Settings

WIDTH = 118
REQUIREMENTS = """\
# For the Python version of the stub of Triton's Python backend.
# The stubs of Triton 24.10 and earlier need numpy 1 (with numpy 2 their outputs are empty, without an error).
numpy<2
onnxruntime>=1.20
"""


def notes(metadata: Metadata, settings: Settings) -> str:
    """The comments at the head of ``config.pbtxt``."""
    paragraphs = [
        f"Written by continual {metadata.package_version}: {metadata.network}, receptive field {metadata.receptive_field} steps, delay "
        f"{metadata.delay} steps, stride {metadata.stride}." + (f" {metadata.rate:g} steps per second." if metadata.rate else ""),
        "Each sequence is a stream. Its first request says sequence_start=True, its last one sequence_end=True, and all have its "
        "sequence_id (a number above 0) and a batch of 1.",
        _inputs(metadata),
        *_chunks(metadata, settings),
        _outputs(metadata),
        _end(metadata, settings),
        _slots(settings),
    ]
    if settings.backend == "python":
        paragraphs.append("The server's Python needs the packages of requirements.txt.")
    return "#\n".join(map(_comment, paragraphs)) + "\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def _inputs(metadata: Metadata) -> str:
    if metadata.chunk == 1:
        return f"A request is one step: {_ports(metadata.inputs)}."
    return f"A request is a chunk of {metadata.chunk} steps: {_ports(metadata.inputs)}. The client gathers them."


def _ports(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{p.name} {p.dtype} ({', '.join('1' if n is None else str(n) for n in p.shape)})" for p in ports)


def _chunks(metadata: Metadata, settings: Settings) -> list[str]:
    found = []
    if metadata.start < 0:
        found.append(
            f"The first {-metadata.start} of the {metadata.chunk} steps in the first request of a sequence are from before the stream: "
            f"they may hold anything (zeros), and the stream begins after them."
        )
    if metadata.chunk > 1 and settings.backend == "python":
        found.append("The last request of a sequence may have fewer steps, if the stream ends within a chunk.")
    return found


def _outputs(metadata: Metadata) -> str:
    outputs = "output" if metadata.per_call == 1 else f"{metadata.per_call} outputs"
    return (
        f"A response has the {outputs} of its steps: {_ports(metadata.outputs)}. `valid` says which of them exist; the others hold nothing "
        f"of use. Output 0 of a stream is the first one that is valid."
    )


def _end(metadata: Metadata, settings: Settings) -> str:
    if settings.backend == "python":
        return "The last response of a sequence has all outputs that the end of the stream brings, behind those of its own steps."
    return (
        f"A sequence just ends: the outputs that only the end of a stream brings (the network is {metadata.delay} steps behind) are not "
        f'given. With backend="python" they are.'
    )


def _slots(settings: Settings) -> str:
    if settings.backend == "python" and settings.batcher == "oldest":
        return f"{settings.max_streams} sequences at a time; a further one gets an error."
    return f"{settings.max_streams} sequences at a time; a further one waits until another ends."
