"""The browser example, in headless Chromium: what the page computes on streams is what the network computes on clips."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.examples.browser import Browser
from tests.examples.site import EXAMPLE, served, skip_unless_it_can_run

if TYPE_CHECKING:
    from examples.web.make_assets import Assets

for package in ("onnx", "onnxscript", "pywt", "soundfile", "rich", "matplotlib"):
    pytest.importorskip(package, reason=f"needs {package}: make_assets.py makes the page's network and recording by it")
SAMPLES = 1024


@pytest.fixture(scope="module")
def needed() -> None:
    skip_unless_it_can_run()


@pytest.fixture(scope="module")
def folder(needed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(scope="module")
def assets(folder: Path) -> Assets:
    from examples.web.make_assets import make  # it needs the packages

    return make(folder, steps=10)


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


@pytest.fixture
def page(assets: Assets, site: str, tmp_path: Path) -> Iterator[Browser]:
    """A browser at the page, which is ready; nothing may have gone wrong in it when the test is over."""
    with Browser(tmp_path / "profile") as found:
        found.open(f"{site}/index.html")
        found.wait_for("document.querySelector('#status')?.dataset.state === 'ready'", 60)
        yield found
        found.evaluate("0")  # what went wrong before is told first
        assert found.errors == []


def _trace(page: Browser) -> tuple[Tensor, Tensor]:
    found = json.loads(page.evaluate("import('/main.js').then(({ trace }) => JSON.stringify(trace))"))
    return torch.tensor(found["inputs"]).view(1, 1, -1), torch.tensor(found["outputs"]).view(1, 1, -1)


def _shown(page: Browser, where: str) -> str:
    return str(page.evaluate(f"document.querySelector('#{where}').textContent"))


def _click(page: Browser) -> None:
    page.evaluate("document.querySelector('button').click()")


def _wait(page: Browser, state: str) -> None:
    page.wait_for(f"document.querySelector('#status').dataset.state === '{state}'", 60)


def _wait_for_inputs(page: Browser, count: int) -> None:
    page.wait_for(f"import('/main.js').then(({{ trace }}) => trace.inputs.length >= {count})", 60)


def _check(net: co.CoModule, inputs: Tensor, outputs: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(outputs, net(inputs), atol=1e-5, rtol=0)


def test_the_recording(page: Browser, assets: Assets):
    _click(page)
    _wait_for_inputs(page, 100)
    inputs, outputs = _trace(page)
    assert _shown(page, "status") == "streaming"
    assert inputs.numel() - outputs.numel() == assets.net.delay
    _wait(page, "finished")
    inputs, outputs = _trace(page)
    assert torch.equal(inputs[0, 0], assets.noisy)
    assert inputs.numel() == SAMPLES
    _check(assets.net, inputs, outputs)
    assert _shown(page, "status") == f"finished: {SAMPLES} samples in, {SAMPLES} out"
    assert _shown(page, "delay") == "33 steps = 92 ms"
    assert _shown(page, "steps") == "1,024"
    assert 0 < float(_shown(page, "speed")) <= 360  # no faster than it was recorded
    assert float(_shown(page, "time").removesuffix(" µs")) > 0


def test_a_stream_that_is_stopped_and_begun_anew(page: Browser, assets: Assets):
    _click(page)
    _wait_for_inputs(page, 10)
    _click(page)
    _wait(page, "finished")
    inputs, outputs = _trace(page)
    assert inputs.numel() < SAMPLES
    _check(assets.net, inputs, outputs)
    _click(page)
    _wait(page, "streaming")
    _wait(page, "finished")
    inputs, outputs = _trace(page)
    assert inputs.numel() == SAMPLES
    _check(assets.net, inputs, outputs)


def test_the_microphone(page: Browser, assets: Assets):
    page.evaluate("document.querySelector('select').value = 'microphone'")
    _click(page)
    _wait_for_inputs(page, 400)
    _click(page)
    _wait(page, "finished")
    inputs, outputs = _trace(page)
    assert inputs.std() > 0.1  # it beeps
    _check(assets.net, inputs, outputs)


def test_it_is_drawn(page: Browser):
    """The output's colour is on the canvas, from the left up to where the recording has come."""
    script = """(() => {
        const canvas = document.querySelector("#plot");
        const { data, width } = canvas.getContext("2d").getImageData(0, 60, canvas.width, canvas.height - 60);
        const columns = [];
        for (let i = 0; i < data.length; i += 4)
            if (data[i] === 0xc2 && data[i + 1] === 0x41 && data[i + 2] === 0x0c) columns.push(((i / 4) % width) / width);
        return columns.length ? [Math.min(...columns), Math.max(...columns)] : [];
    })()"""
    assert page.evaluate(script) == []
    _click(page)
    _wait(page, "finished")
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    left, right = page.evaluate(script)
    assert left < 0.01
    assert right == pytest.approx(SAMPLES / (3 * 360), abs=0.01)


def test_nothing_comes_from_elsewhere(page: Browser, site: str):
    found = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert any("onnxruntime-web" in name for name in found)
    assert all(name.startswith((f"{site}/", "data:", "blob:")) for name in found)


def test_networks_of_several_channels_with_strides(page: Browser, folder: Path):
    net = co.Sequential(co.Conv1d(3, 4, 2, stride=3), nn.ReLU(), co.GRU(4, 5), co.Conv1d(5, 2, 3, padding=1)).eval()
    path = co.export(net, torch.zeros(1, 3), folder / "strided.onnx")
    about = co.load(path).metadata
    assert about.chunk == 3
    assert about.start < 0
    (folder / "strided.json").write_text(about.to_json(), encoding="utf-8")
    for steps in (1, 7, 30, 31, 32):
        clip = torch.randn(1, 3, steps)
        frames = json.dumps(clip[0].T.tolist())
        found = page.evaluate(f"""import("/stream.js").then(async ({{ Stream }}) => {{
            const stream = await Stream.open("assets/strided.onnx", "assets/strided.json");
            const outputs = [];
            for (const frame of {frames}) outputs.push(...(await stream.step(frame)));
            outputs.push(...(await stream.finish()));
            return outputs;
        }})""")
        expected = net.forward_steps(clip, pad_end=True)
        net.clean_state()
        if expected is None:
            assert found == []
        else:
            torch.testing.assert_close(torch.tensor(found).T.unsqueeze(0), expected, atol=1e-5, rtol=0)


def test_other_networks_are_refused(page: Browser, folder: Path):
    conv = co.Conv1d(1, 1, 3).eval()
    path = co.export(conv, torch.zeros(1, 1), folder / "endless.onnx", flush=False)
    about = json.loads(co.load(path).metadata.to_json())
    for name, found, message in (
        ("endless", about, "endless.onnx: only networks of one input with frames"),
        ("newer", about | {"format_version": 3}, "newer.json: format version 3, this page reads 2"),
    ):
        (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
        with pytest.raises(RuntimeError, match=message):
            page.evaluate(f"import('/stream.js').then(({{ Stream }}) => Stream.open('assets/{path.name}', 'assets/{name}.json'))")


def test_a_page_without_its_assets_says_so(needed: None, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty") as address, Browser(tmp_path / "profile") as found:
        found.open(f"{address}/index.html")
        found.wait_for("document.querySelector('#status')?.dataset.state === 'failed'", 60)
        assert _shown(found, "status").startswith("assets/denoiser.json: 404")
        assert found.evaluate("document.querySelector('button').disabled") is True


def test_the_packages_are_pinned():
    package = json.loads((EXAMPLE / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((EXAMPLE / "package-lock.json").read_text(encoding="utf-8"))
    ((name, version),) = package["dependencies"].items()
    assert lock["packages"][f"node_modules/{name}"]["version"] == version
