"""Frames of videos: which are steps, how they are prepared, and what can't be read."""

from __future__ import annotations

import sys
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual.cli.fitting import prepared
from continual.cli.picker import Picker, frames_for
from continual.cli.sources import video
from continual.cli.sources.video import Picture, Video
from continual.cli.target import BadInput
from tests.videos import decoded, reference, write


def pictures(*times: object) -> list[Picture]:
    return [Picture(i, Fraction(str(t)), None) for i, t in enumerate(times)]


def even(count: int, rate: Fraction | int) -> list[Picture]:
    return [Picture(i, Fraction(i) / rate, None) for i in range(count)]


def picked(found: list[Picture], period: object, **options: Any) -> list[int]:
    return [p.index for p in Picker(Fraction(str(period)), **options)(found)]


def test_at_the_rate_of_training_every_so_many_frames():
    for count in (66, 67, 70):
        assert picked(even(count, 30), "1/5") == list(range(0, count, 6))


@pytest.mark.parametrize("rate", [25, 15, 60, 24, Fraction(30000, 1001), 4, 1])
def test_the_nearest_frame(rate: Fraction | int):
    found, period = even(150, rate), Fraction(5, 30)
    times = [p.time for p in found]
    steps = int((times[-1] + Fraction(1, 2) / rate) / period) + 1
    if times[-1] + Fraction(1, 2) / rate == (steps - 1) * period:
        steps -= 1  # half a frame after the last
    want = [min(range(150), key=lambda i: (abs(times[i] - k * period), i)) for k in range(steps)]
    assert picked(found, period) == want
    if rate == 1:  # frames come more rarely than steps
        assert want[:8] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_uneven_time_stamps():
    assert picked(pictures(0, "0.1", "0.11", "0.5", "0.52", "0.95", "1.3"), "0.25") == [0, 2, 3, 5, 5, 6]


def test_every_so_many_frames_whatever_their_time():
    assert picked(pictures(0, 5, 5, 3, 9000, 9001, 9001), "0.25", every=3) == [0, 3, 6]


def test_what_a_camera_misses_is_not_made_up_for():
    found = pictures(0, "0.1", "0.2", "0.3", "0.95", "1.04", "1.1")
    picker = Picker(Fraction(1, 5), live=True)
    assert [p.index for p in picker(found)] == [0, 2, 3, 5]
    assert picker.missed == 2  # at 0.6 and 0.8
    assert picked(found, "0.2") == [0, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("time, said", [("4000", "jump by 3999.9 s at frame 2"), ("-2", "jump by -2.1 s at frame 2")])
def test_broken_time_stamps(time: str, said: str):
    with pytest.raises(BadInput, match=rf"{said}: --every K takes frames by their number"):
        picked(pictures(0, "0.1", time), "0.2")


@pytest.mark.parametrize("rate, every", [(30, None), (25, None), (Fraction(30000, 1001), None), (24, 5)])
def test_how_many_frames_steps_need(rate: Fraction | int, every: int | None):
    period, rate = Fraction(12, 30), Fraction(rate)
    need = frames_for(31, period, every, rate)
    assert len(picked(even(need, rate), period, every=every)) == 32
    assert len(picked(even(need - 1, rate), period, every=every)) == 31


@pytest.mark.parametrize("size, codec", [((64, 48), "mpeg4"), ((51, 77), "ffv1"), ((30, 20), "ffv1"), ((33, 33), "ffv1")])
def test_frames_are_resized_cropped_and_normalised(size: tuple[int, int], codec: str, tmp_path: Path):
    path = write(tmp_path / "a.mkv", 3, size=size, codec=codec)
    with Video(str(path)) as file:
        found = list(file.pictures())
    for picture, pixels in zip(found, decoded(path), strict=True):
        assert pixels.shape == (size[1], size[0], 3)
        got = prepared(picture.frame, 32, 0.45, 0.225)
        assert got.shape == (1, 3, 32, 32)
        assert (got[0] - reference(pixels, 32, 0.45, 0.225)).abs().max() < 1e-4
    assert got.std() > 0.3


class Turned:
    """A frame that is to be shown turned by so many degrees, counterclockwise."""

    def __init__(self, pixels: np.ndarray, rotation: int):
        self.pixels, self.rotation = pixels, rotation

    def to_ndarray(self, format: str) -> np.ndarray:
        return self.pixels


def test_frames_are_shown_upright():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for rotation, upright in ((0, pixels), (90, pixels.transpose(1, 0, 2)[::-1]), (-90, pixels.transpose(1, 0, 2)[:, ::-1])):
        got = prepared(Turned(pixels, rotation), 20, 0.5, 2.0)
        assert (got[0] - reference(upright, 20, 0.5, 2.0)).abs().max() < 1e-5
    assert prepared(Turned(pixels, 180), 20, 0.5, 2.0)[0].allclose(reference(pixels[::-1, ::-1], 20, 0.5, 2.0), atol=1e-5)


def test_a_thread_of_pixels():
    with pytest.raises(BadInput, match=r"its frames are 2000 × 2: one side is more than 32 times the other"):
        prepared(Turned(np.zeros((2, 2000, 3), np.uint8), 0), 32, 0, 1)


def test_what_a_video_says_of_itself(tmp_path: Path):
    path = write(tmp_path / "odd: 100%.mp4", 50, rate=25, first=10)
    with Video(str(path)) as file:
        assert (file.facts.name, file.facts.live, file.rate, file.facts.frames) == (str(path), False, 25, 50)
        assert [p.time for p in file.pictures()] == [Fraction(i, 25) for i in range(50)]  # from the first frame on
    with Video(str(write(tmp_path / "a.mkv", 50, rate=25))) as file:
        assert file.facts.frames == 50  # Matroska only says how long it is


def test_a_camera(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "CAMERA", "lavfi")  # pictures that a program makes
    with Video("camera:testsrc=size=64x48:rate=20") as camera:
        assert (camera.facts.name, camera.facts.live, camera.rate, camera.facts.frames) == (
            "testsrc=size=64x48:rate=20",
            True,
            20,
            None,
        )
        found = [p for p, _ in zip(camera.pictures(), range(5))]
    assert [p.time for p in found] == [Fraction(i, 20) for i in range(5)]


def test_a_camera_that_has_no_frame_yet(monkeypatch: pytest.MonkeyPatch):
    import av

    monkeypatch.setattr(video, "CAMERA", "lavfi")
    waits: list[float] = []
    monkeypatch.setattr(video.time, "sleep", waits.append)
    with Video("camera:testsrc=size=64x48:rate=20:duration=0.2") as camera:
        container = camera._container

        class Busy:
            def decode(self, stream: Any) -> Any:
                if len(waits) < 2:
                    raise av.error.BlockingIOError(11, "not now")
                return container.decode(stream)

        camera._container = Busy()  # type: ignore[assignment]
        assert len(list(camera.pictures())) == 4
        assert len(waits) == 2
        container.close()
        camera._container = container


def sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def half(path: Path) -> None:
    write(path, 70)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.mp4": (lambda p: None, "there is no file '"),
    "folder.mp4": (lambda p: p.mkdir(), "is a folder; give a video file, or camera"),
    "empty.mp4": (lambda p: p.write_bytes(b""), "is empty"),
    "text.mp4": (lambda p: p.write_text("hello"), "can't be opened as a video (Invalid data found"),
    "page.txt": (lambda p: p.write_text("hello\n" * 5000), "is a text file, not a video"),
    "sound.wav": (sound, "there is no video in '"),
    "half.mp4": (half, "can't be opened as a video (Invalid data found"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path):
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(BadInput) as refused:
        Video(str(tmp_path / name))
    assert message in str(refused.value)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_sound_is_named(tmp_path: Path):
    sound(tmp_path / "a.wav")
    with pytest.raises(BadInput, match=r"a.wav': it holds audio"):
        Video(str(tmp_path / "a.wav"))


def test_damaged_in_the_middle(tmp_path: Path):
    path = write(tmp_path / "a.mp4", 70)
    data = bytearray(path.read_bytes())
    data[3000:-3000] = bytes(len(data) - 6000)
    path.write_bytes(data)
    with Video(str(path)) as file, pytest.raises(BadInput, match=r"damaged or cut off: frame \d+ and what follows can't"):
        list(file.pictures())


@pytest.mark.parametrize("source", ["camera", "camera:/dev/no_such_camera"])
def test_no_camera(source: str):
    if source == "camera" and Path(video.DEVICE).exists():
        pytest.skip("there is a camera")
    device = "/dev/video0" if source == "camera" else "/dev/no_such_camera"
    with pytest.raises(BadInput, match=rf"the camera '{device}' can't be opened .*--source camera:/dev/videoN takes another"):
        Video(source)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadInput, match=r"PyAV, which is not installed: pip install av \("):
        Video("a.mp4")
