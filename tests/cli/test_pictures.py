"""`continual run` on pictures: videos, folders of images, pipes, connections; and videos with what the network says of them."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from continual.cli.fitting import prepared
from continual.cli.sources.video import Video
from tests.cli.streamed import equal, invoke, lines, network
from tests.cli.test_video import Turned
from tests.videos import av, decoded, reference, write

IMAGES = ("nets.py:images", "--clip", "1,3,8,24,24")


pytestmark = pytest.mark.usefixtures("nets_folder")


@torch.no_grad()
def wanted(pixels: list[np.ndarray], mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    clip = torch.stack([reference(p, 24, mean, std) for p in pixels], 1).unsqueeze(0)
    return np.asarray(network("images")(clip)[0].T)


def film(name: str = "a.mkv", frames: int = 19) -> tuple[str, list[np.ndarray]]:
    path = write(Path(name), frames, codec="ffv1")
    return str(path), decoded(path)


def test_every_frame_is_a_step_of_a_network_without_a_rate():
    path, pixels = film()
    options = ("--mean", 0.4, "--std", 0.3, "--sink", "o.jsonl", "--json")
    result = invoke("run", *IMAGES, "--source", path, *options)
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(pixels, 0.4, 0.3), 2e-4)
    assert [one["time"] for one in lines()] == pytest.approx([i / 30 for i in range(19)], abs=1e-3)
    assert json.loads(result.stdout)["delay_ms"] == pytest.approx(1000 / 30)


def test_a_rate_takes_frames_by_time():
    path, pixels = film()
    assert invoke("run", *IMAGES, "--source", path, "--rate", 10, "--sink", "o.jsonl").exit_code == 0
    equal([one["output"] for one in lines()], wanted(pixels[::3]), 2e-4)


def test_a_folder_of_images_in_the_order_of_their_numbers():
    _, pixels = film()
    Path("images").mkdir()
    for i, image in enumerate(pixels):
        with av.open(f"images/frame{i}.png", "w", format="image2") as file:  # frame10 comes after frame9
            stream = file.add_stream("png", rate=1)
            stream.height, stream.width = image.shape[:2]
            stream.pix_fmt = "rgb24"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode(None))
    Path("images/notes.txt").write_text("no image")
    result = invoke("run", *IMAGES, "--source", "images", "--sink", "o.jsonl", "--json")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(pixels), 2e-4)
    assert {one["time"] for one in lines()} == {None}
    assert "--gaps is for signals" in invoke("run", *IMAGES, "--source", "images", "--gaps", "hold").stderr
    assert json.loads(result.stdout)["frames"] == 19
    invoke("run", *IMAGES, "--source", "images", "--rate", 5, "--sink", "o.jsonl")
    assert lines()[4]["time"] == pytest.approx(0.8)
    Path("images/frame3.png").write_bytes(b"broken")
    assert "'images/frame3.png' can't be read as an image" in invoke("run", *IMAGES, "--source", "images").stderr


def test_a_pipe(monkeypatch: pytest.MonkeyPatch):
    path, pixels = film()
    with open(path, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": pipe})())
        video = Video("-")
        assert [
            np.array_equal(p.frame.to_ndarray(format="rgb24"), want) for p, want in zip(video.pictures(), pixels, strict=True)
        ]
        assert video.facts.name == "standard input"
        video.close()


def test_a_stream_over_a_network():
    """As cameras of a network send it, here by plain TCP: what rtsp:// adds is the library's."""
    path, pixels = film()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(Path(path).read_bytes())

        threading.Thread(target=send, daemon=True).start()
        source = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        result = invoke("run", *IMAGES, "--source", source, "--sink", "o.jsonl")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(pixels), 2e-4)


@pytest.mark.parametrize("scheme, live", [("rtsp", True), ("udp", True), ("http", False)])
def test_addresses_are_opened_as_such(scheme: str, live: bool, monkeypatch: pytest.MonkeyPatch):
    path, _ = film()
    opened = av.open
    asked = []
    monkeypatch.setattr(av, "open", lambda name, **options: (asked.append((name, options)), opened(path))[1])
    video = Video(f"{scheme}://camera/1")
    assert asked == [(f"{scheme}://camera/1", {"timeout": 10.0})]
    assert (video.facts.live, video.facts.frames) == (live, None if live else 19)
    video.close()


def test_a_film_of_what_the_network_says():
    path, pixels = film()
    result = invoke("run", *IMAGES, "--source", path, "--top", 3, "--sink", "o.mp4", "--sink", "o.png")
    assert result.exit_code == 0, result.output
    with av.open("o.mp4") as file:
        assert file.streams.video[0].average_rate == 30
        shown = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    assert len(shown) == 19
    height, width = shown[0].shape[:2]
    assert (height, width) == (240, 320)  # grown, so that text can be read
    bottom = np.stack([s[200:].mean((0, 1)) for s in shown[:-1]])  # the output of the end comes with the last picture
    plain = np.stack([p[40:].mean((0, 1)) for p in pixels[1:]])
    assert np.abs(bottom - plain).max() < 8  # below the text the picture of the newest frame
    assert shown[0][:60].std() > 10
    assert Path("o.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (31, 97)])
def test_pictures_are_fitted_to_steps_that_are_not_square(size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    got = prepared(Turned(pixels, 0), size, 0.5, 0.25)
    assert got.shape == (1, 3, *size)
    scale = max(size[0] / 50, size[1] / 70)  # the smallest picture that covers the step
    middle = got[0].mean().item() * 0.25 + 0.5
    high, wide = round(size[0] / scale), round(size[1] / scale)
    top, left = (50 - high) // 2, (70 - wide) // 2
    assert middle == pytest.approx(pixels[top : top + high, left : left + wide].mean() / 255, abs=0.02)


def test_grey_pictures():
    path, pixels = film()
    net = ("nets.py:images", "--arg", "channels=1", "--clip", "1,1,8,24,24")
    assert invoke("run", *net, "--source", path, "--sink", "o.jsonl").exit_code == 0
    with torch.no_grad():
        clip = torch.stack([reference(p, 24, 0, 1).mean(0, keepdim=True) for p in pixels], 1).unsqueeze(0)
        equal([one["output"] for one in lines()], network("images", channels=1)(clip)[0].T.numpy(), 2e-4)
