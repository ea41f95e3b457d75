"""The commands of the console script."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.version import __version__
from ..tools.bench.forms import NAMES as FORMS
from . import artefact, bench, networks, zoo
from . import bench_network as benching
from . import export as exporting
from . import run as videos
from .demo import Options, run
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


@app.command()
def demo(
    input: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own recording: .csv (one column, or see --column), .npy (1D) or .wav. "
            "It is the clean signal, to which noise is added.",
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
) -> None:
    """Train a small denoiser on a real ECG, convert it, verify that it streams exactly, and stream it sample by sample.

    Noise (mains hum and white noise) is added to the recording. A convolutional network that sees the past and the
    future learns on clips of the first 60 % to remove it. Then the same network runs on the whole recording, one sample at a time.
    """
    try:
        run(Options(input, out, rate, column, steps, seed))
    except BadRecording as error:
        typer.echo(f"continual demo: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


Target = Annotated[
    str,
    typer.Argument(
        show_default=False,
        help="The network, as package.module:factory or path/to/file.py:factory, where factory is an nn.Module, or a function or "
        "class that gives one. The current folder is searched first.",
    ),
]
_CLIP = typer.Option(
    "--clip",
    metavar="SIZES",
    show_default=False,
    help="Sizes of a random example clip, such as 1,3,16,112,112 (batch, channels, time, space). Repeat for each further input.",
)
Clips = Annotated[list[str], _CLIP]
ClipsOfOwn = Annotated[list[str] | None, _CLIP]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="An argument for the factory, as a Python value. May be repeated."),
]
Dtypes = Annotated[
    list[str] | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Dtype of the clip: float32, float64, int64 … (once for all, or for each clip). The network is converted to a floating-point "
        "type. Default: that of the network.",
    ),
]
High = Annotated[
    int | None,
    typer.Option(metavar="N", help="Integers are drawn from 0 to below N. Default: the size of the smallest embedding, or 2."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the example's values.")]
TimeDim = Annotated[int | None, typer.Option(metavar="N", min=0, help="The dim of time in the clips. Default: 2.")]


class Effort(StrEnum):
    """Effort of `continual verify`."""

    quick = "quick"
    full = "full"


Pooling = Annotated[
    str | None,
    typer.Option(
        metavar="window|frame",
        help="Replaces a mean over the whole clip inside the network: a window with the length of the example, or each frame alone.",
    ),
]
Weights = Annotated[
    Path | None, typer.Option("--pretrained", metavar="FILE", help="Published weights. By default weights are random.")
]


@app.command()
def explain(
    target: Target,
    clip: Clips,
    arg: Arguments = None,
    dtype: Dtypes = None,
    high: High = None,
    seed: Seed = 0,
    time_dim: TimeDim = None,
    time_pooling: Pooling = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save it too: graph.svg, page.html, table.txt, graph.dot or graph.mmd.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Show how a network streams: for each operation its rate, receptive field, delay and state, and where frames wait.

    What can't be streamed is listed with the reason and a remedy; the exit status is then 1.

    Example: `continual explain torchvision.models.video:r3d_18 --clip 1,3,16,112,112 --out graph.svg`
    """
    networks.explain(_options(target, clip, arg, dtype, high, seed, time_dim, time_pooling), out, json)


@app.command()
def verify(
    target: Target,
    clip: Clips,
    arg: Arguments = None,
    dtype: Dtypes = None,
    high: High = None,
    seed: Seed = 0,
    time_dim: TimeDim = None,
    time_pooling: Pooling = None,
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
) -> None:
    """Convert a network and check that it streams exactly. The exit status is 1 if it does not.

    Give a clip of a few receptive fields.

    Example: `continual verify my_project.models:build --arg width=64 --clip 2,40,200`
    """
    networks.verify(_options(target, clip, arg, dtype, high, seed, time_dim, time_pooling), tolerance, splits, effort.value)


@app.command()
def summary(
    target: Target,
    clip: Clips,
    arg: Arguments = None,
    dtype: Dtypes = None,
    high: High = None,
    seed: Seed = 0,
    time_dim: TimeDim = None,
    time_pooling: Pooling = None,
    rate: Annotated[
        float | None, typer.Option(metavar="FPS", help="Steps per second; delays are then given in milliseconds too.")
    ] = None,
) -> None:
    """Show the cost of every module of a network: parameters, multiply-adds per step and per clip, delay and state.

    Example: `continual summary models/denoiser.py:net --clip 1,1,16000 --rate 16000`
    """
    networks.summary(_options(target, clip, arg, dtype, high, seed, time_dim, time_pooling), rate)


@app.command()
def export(
    target: Annotated[
        str,
        typer.Argument(
            show_default=False,
            help="A network of the zoo by its name in `continual models list`, or your own as package.module:factory or "
            "path/to/file.py:factory, with --clip.",
        ),
    ],
    path: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="What to write; it is replaced.")],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="onnx|pt2|executorch|openvino", help="Default: by the ending of the file: .onnx, .pt2, .pte or .xml."
        ),
    ] = None,
    clip: ClipsOfOwn = None,
    arg: Arguments = None,
    dtype: Dtypes = None,
    high: High = None,
    seed: Seed = 0,
    time_dim: TimeDim = None,
    time_pooling: Pooling = None,
    classes: zoo.Classes = None,
    input_size: zoo.InputSize = None,
    pretrained: Weights = None,
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
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
) -> None:
    """Write a network as a file that streams in a runtime without this library: ONNX, AOTInductor, ExecuTorch or OpenVINO.

    A network that is not streaming yet is converted. With --check the exit status is 1 if the file differs from the network.

    Example: `continual export my_project.models:build denoiser.onnx --clip 1,1,400 --rate 360 --check`
    """
    own = _options(target, clip or [], arg, dtype, high, seed, time_dim, time_pooling)
    options = exporting.Options(own, path, format, chunk, batch, flush, rate, classes, input_size, pretrained, check, steps, json)
    exporting.export(options)


@app.command("bench")
def bench_network(
    target: Annotated[
        str,
        typer.Argument(
            show_default=False,
            help="A network of the zoo by its name in `continual models list`; your own as package.module:factory or "
            "path/to/file.py:factory, with --clip; or an exported file.",
        ),
    ],
    clip: ClipsOfOwn = None,
    arg: Arguments = None,
    dtype: Dtypes = None,
    high: High = None,
    seed: Seed = 0,
    time_dim: TimeDim = None,
    time_pooling: Pooling = None,
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
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Measure a step in each form that runs here, eager, fused, compiled and exported, against recomputing its window and a clip.

    Example: `continual bench kws_ds_cnn --form eager --form window --out bench.png`
    """
    own = _options(target, clip or [], arg, dtype, high, seed, time_dim, time_pooling)
    options = {"rate": rate, "forms": form, "clip_length": clip_length, "threads": number, "seconds": seconds}
    benching.bench(own, options, out, json)


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="A file of `continual export` or of `co.save_state`.")
    ],
    json: zoo.AsJson = False,
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
def run_video(
    model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="A network of the zoo that takes videos.")],
    video: Annotated[
        str,
        typer.Option(
            metavar="FILE|camera", show_default=False, help="A video file, camera, or camera: and a device (/dev/video1)."
        ),
    ],
    pretrained: Weights = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="The names of the classes, one per line.")] = None,
    classes: zoo.Classes = None,
    input_size: zoo.InputSize = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Every K-th frame is a step, regardless of its time. Default: by time, at the rate of the training.",
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON lines; - is stdout, without the table.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many steps.")] = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Number of classes to show and write.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of PyTorch.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Device of the network: cpu, cuda, cuda:1 …")] = "cpu",
) -> None:
    """Stream a video through a network of the zoo, frame by frame: the likeliest classes, live.

    Frames are taken at the rate of the training, resized, cropped to the centre and normalised. A prediction
    comes with every step once the delay has passed. Ctrl-C ends it.

    Example: `continual run cox3d_s --video clip.mp4 --pretrained X3D_S.pyth --labels kinetics.txt --out predictions.jsonl`
    """
    videos.run(videos.Options(model, video, pretrained, labels, classes, input_size, every, out, limit, top, threads, device))


def _options(target: str, clip: list[str], arg: list[str] | None, dtype: list[str] | None, *more: Any) -> networks.Options:
    return networks.Options(target, clip, arg or [], dtype or [], *more)
