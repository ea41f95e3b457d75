"""The commands of the console script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from .demo import Options, run
from .recording import BadRecording

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run trained PyTorch networks on endless streams, one step at a time, exactly.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"continual {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def demo(
    input: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own recording: .csv (one column, or see --column), .npy (1D) or .wav. "
            "It is taken as the clean signal, to which noise is added.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to save the figure: a .png, .pdf or .svg file, or a folder.")
    ] = Path("ecg_stream.png"),
    rate: Annotated[
        float | None,
        typer.Option(min=1e-6, max=1e9, help="Samples per second. Default: 360 for the ECG, the header's for .wav, else 100."),
    ] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME|NUMBER", help="Which column of a .csv file with several.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 500,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the noise, the weights and the training.")] = 0,
) -> None:
    """Train a small denoiser on a real ECG, convert it, prove that it streams exactly, and stream it sample by sample.

    Noise (mains hum and white noise) is added to the recording. A convolution network that looks into the past and the
    future learns on clips of the first 60 % to remove it. Then the same network runs on the whole recording, one sample at a time.
    """
    try:
        run(Options(input, out, rate, column, steps, seed))
    except BadRecording as error:
        typer.echo(f"continual demo: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
