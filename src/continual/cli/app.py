"""The commands of the console script."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..core.version import __version__
from ..tools.bench.forms import NAMES as FORMS
from . import artefact, bench, networks, sinks, sources, zoo
from . import bench_network as benching
from . import export as exporting
from . import run as running
from .demo import Options, run
from .network import Options as Network
from .network_options import takes_network
from .recording import BadRecording
from .serve import serve

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
def _callback(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command()
def demo(
    input: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own recording: .csv (one column, or see --column), .npy (1D) or .wav. "
            "It is the clean signal, to which noise is added; the first 20,000 samples are used.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to save the figure: a .png, .pdf or .svg file, or a folder.")
    ] = Path("ecg_stream.png"),
    rate: Annotated[
        float | None,
        typer.Option(min=1e-6, max=1e9, help="Samples per second. Default: 360 for the ECG, the header's for .wav, else 100."),
    ] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME|NUMBER", help="The column of a .csv file with several.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 500,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the noise, the weights and the training.")] = 0,
    json: AsJson = False,
) -> None:
    """Train a small denoiser on a real ECG, convert it, verify that it streams exactly, and stream it sample by sample.

    Noise (mains hum and white noise) is added to the recording. A convolutional network that sees the past and the
    future learns on clips of the first 60 % to remove it. Then the same network runs on the whole recording, one sample at a time.
    """
    try:
        run(Options(input, out, rate, column, steps, seed, json))
    except BadRecording as error:
        typer.echo(f"continual demo: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


class Effort(StrEnum):
    """Effort of `continual verify`."""

    quick = "quick"
    full = "full"


@app.command()
@takes_network
def explain(
    network: Network,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save it too: graph.svg, page.html, table.txt, graph.dot or graph.mmd.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show how a network streams: for each operation its rate, receptive field, delay and state, and where frames wait.

    What can't be streamed is listed with the reason and a remedy; the exit status is then 1.

    Example: `continual explain torchvision.models.video:r3d_18 --clip 1,3,16,112,112 --out graph.svg`
    """
    networks.explain(network, out, json)


@app.command()
@takes_network
def verify(
    network: Network,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest allowed difference, relative to the largest output. Default: 1e-5 for float32, 1e-12 for float64.",
        ),
    ] = None,
    splits: Annotated[
        int | None,
        typer.Option(min=1, help="Number of random splits of the clip into chunks. Default: 8, and 2 with --effort quick."),
    ] = None,
    effort: Annotated[Effort, typer.Option(help="quick omits most phases, lengths and splits.")] = Effort.full,
    json: AsJson = False,
) -> None:
    """Convert a network and check that it streams exactly. The exit status is 1 if it does not.

    Give a clip of a few receptive fields.

    Example: `continual verify my_project.models:build --arg width=64 --clip 2,40,200`
    """
    networks.verify(network, tolerance, splits, effort.value, json)


@app.command()
@takes_network
def summary(
    network: Network,
    rate: Annotated[
        float | None, typer.Option(metavar="FPS", help="Steps per second; delays are then given in milliseconds too.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show the cost of every module of a network: parameters, multiply-adds per step and per clip, delay and state.

    Example: `continual summary models/denoiser.py:net --clip 1,1,16000 --rate 16000`
    """
    networks.summary(network, rate, json)


@app.command()
@takes_network
def export(
    network: Network,
    path: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="What to write; it is replaced.")],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="onnx|pt2|executorch|openvino", help="Default: by the ending of the file: .onnx, .pt2, .pte or .xml."
        ),
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Steps per call. Default: the fewest that the strides allow.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Streams per call. Default: any number; for ExecuTorch those of the example."),
    ] = None,
    flush: Annotated[bool, typer.Option("--flush/--no-flush", help="Whether streams may end.")] = True,
    rate: Annotated[
        float | None,
        typer.Option(metavar="FPS", help="Steps per second, for the metadata of the file. Default: that of the zoo."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Load the file, verify the contract on it, and stream through it and the network.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"For --check: number of steps to stream. Default: {exporting.STEPS}.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a network as a file that streams in a runtime without this library: ONNX, AOTInductor, ExecuTorch or OpenVINO.

    A network that is not streaming yet is converted. With --check the exit status is 1 if the file differs from the network.

    Example: `continual export my_project.models:build denoiser.onnx --clip 1,1,400 --rate 360 --check`
    """
    options = exporting.Options(network, path, format, chunk, batch, flush, rate, check, steps, json)
    exporting.export(options)


@app.command("bench")
@takes_network
def bench_network(
    network: Network,
    rate: Annotated[
        float | None,
        typer.Option(metavar="FPS", help="Steps per second: adds the real-time factor. Default: that of the zoo or of the file."),
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Only this form; may be repeated: {', '.join(FORMS)}. Default: all that run here."),
    ] = None,
    clip_length: Annotated[int | None, typer.Option(min=1, metavar="N", help="Steps of the recomputed clip.")] = None,
    number: Annotated[int, typer.Option("--threads", min=1, metavar="N", help="Of PyTorch.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.01, metavar="S", help="To measure, all forms together, about.")] = 4.0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Save a picture: .png, .pdf or .svg.")] = None,
    json: AsJson = False,
) -> None:
    """Measure a step in each form that runs here, eager, fused, compiled and exported, against recomputing its window and a clip.

    Example: `continual bench kws_ds_cnn --form eager --form window --out bench.png`
    """
    options = {"rate": rate, "forms": form, "clip_length": clip_length, "threads": number, "seconds": seconds}
    benching.bench(network, options, out, json)


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="A file of `continual export` or of `co.save_state`.")
    ],
    json: AsJson = False,
    allow_changed: Annotated[bool, typer.Option("--allow-changed", help="Accept a file that another tool has changed.")] = False,
) -> None:
    """Show what an exported file is: inputs, outputs, states, delay; or what the file of a state is. Shows the digests of both.

    The runtime of an exported file's format must be installed.

    Files ending in .pt2 and .pte are programs: open only files that you would run.

    Example: `continual inspect denoiser.onnx`
    """
    artefact.inspect(path, json, allow_changed)


app.command()(serve)
zoo.models.command()(bench.bench)
app.add_typer(zoo.models, name="models")


@app.command("run")
@takes_network
def run_source(
    network: Network,
    source: Annotated[
        str,
        typer.Option(
            "--source", "--video", metavar="SOURCE", show_default=False, help=f"Where frames come from: {sources.GRAMMAR}."
        ),
    ],
    sink: Annotated[
        list[str] | None,
        typer.Option(
            "--sink", "--out", metavar="SINK", help=f"Where outputs go; may be repeated: {sinks.GRAMMAR}. Default: the screen."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Channels of a signal, by name or by number from 1, or mean. Default: all of them."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="FPS", help="Steps per second of the network. Default: that of the zoo or of the file, or the source's."
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="K", help="Of a video: every K-th frame is a step, regardless of its time. Default: by time."
        ),
    ] = None,
    gaps: Annotated[
        str | None,
        typer.Option(
            metavar="hold|zero|interpolate|reset|error",
            help="Place the frames of a signal by their stamps, as co.Stream does: what stands for those that are missing or not "
            "finite. Frames between steps are interpolated. Default: frames follow each other.",
        ),
    ] = None,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Read a file as fast as it was recorded, and drop what the network is too slow for."),
    ] = False,
    mean: Annotated[
        float | None, typer.Option(metavar="X", help="Pixels are between 0 and 1, less this. Default: 0, or that of the zoo.")
    ] = None,
    std: Annotated[float | None, typer.Option(metavar="X", help="… divided by this. Default: 1, or that of the zoo.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="The names of the classes, one per line.")] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Outputs are scores of classes: show and write the K likeliest. Of the zoo: 5."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many steps.")] = None,
    end: Annotated[
        bool, typer.Option("--end/--no-end", help="Whether the end of a file brings the outputs that see the padding after it.")
    ] = True,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of PyTorch.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Device of the network: cpu, cuda, cuda:1 …")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of the table.")] = False,
) -> None:
    """Stream a source through a network, frame by frame: outputs come as soon as they are known.

    Frames of a video are taken at the rate of the network, resized, cropped to the centre and normalised; those of a signal as they are.
    Files run as fast as they go, and over their whole length the outputs equal those of the clip network. Ctrl-C ends with a summary.

    Example: `continual run cox3d_s --source clip.mp4 --weights X3D_S.pyth --labels kinetics.txt --sink predictions.jsonl`

    Example: `continual run my_project.models:denoiser --clip 1,1,16000 --source noisy.wav --sink clean.wav --sink picture.png`
    """
    options = running.Options(
        network,
        source,
        sink or [],
        columns=columns,
        rate=rate,
        every=every,
        gaps=gaps,
        realtime=realtime,
        mean=mean,
        std=std,
        labels=labels,
        top=top,
        limit=limit,
        end=end,
        threads=threads,
        device=device,
        json=json,
    )
    running.run(options)
