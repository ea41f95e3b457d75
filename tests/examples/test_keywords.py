"""The key word spotter: its scripts are JavaScript, and the page hears the tutorial's words in the microphone, in headless Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.examples.browser import Browser
from tests.examples.site import EXAMPLE, served, skip_unless_it_can_run
from tests.long import one_in

for package in ("onnx", "onnxscript", "onnxruntime", "matplotlib"):
    pytest.importorskip(package, reason=f"needs {package}: the tutorial exports, runs and draws by it")
SAID = [("eye", 1.2), ("ya", 2.7), ("we", 4.2)]


def test_the_scripts_are_javascript(tmp_path: Path):
    if shutil.which("node") is None:
        pytest.skip("needs node")
    (tmp_path / "wrong.js").write_text("export const = 1;")
    found = [*sorted(EXAMPLE.glob("*.js")), tmp_path / "wrong.js"]
    (tmp_path / "package.json").write_text('{"type": "module"}')
    wrong = [path.name for path in found if subprocess.run(["node", "--check", path], capture_output=True).returncode]
    assert len(found) > 5
    assert wrong == ["wrong.js"]


def write_wav(path: Path, sound: torch.Tensor) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((sound.clamp(-4, 4) / 4 * 32_767).to(torch.int16).numpy().tobytes())


@one_in(8)  # trains the network
def test_the_page_hears_the_words(tmp_path: Path):
    skip_unless_it_can_run()
    from examples.web.make_keywords import make  # it needs the packages

    (tmp_path / "assets").mkdir()
    tutorial = make(tmp_path / "assets")
    write_wav(tmp_path / "room.wav", tutorial["recording"](SAID, 60, torch.Generator().manual_seed(3)))
    flag = f"--use-file-for-fake-audio-capture={tmp_path / 'room.wav'}"
    with served(tmp_path / "assets") as address, Browser(tmp_path / "profile", flag) as page:
        page.open(f"{address}/keywords.html")
        page.wait_for("document.querySelector('#status')?.dataset.state === 'ready'", 60)
        page.evaluate("document.querySelector('button').click()")
        page.wait_for("document.querySelector('#heard').textContent.includes('we')", 60)
        page.evaluate("document.querySelector('button').click()")
        page.wait_for("document.querySelector('#status').dataset.state === 'finished'", 60)
        trace = json.loads(page.evaluate("import('/keywords.js').then(({ trace }) => JSON.stringify(trace))"))
        assert page.errors == []
        script = f"""import('/keywords.js').then(({{ listener }}) => {{
            const hear = listener(16000);
            return {json.dumps([y.tolist() for y in tutorial["drawn"]])}.map((y, i) => hear(y, 16000 + 320 * i)).filter(Boolean);
        }})"""
        begun = page.evaluate(script)
    assert trace["heard"] == [word for word, _ in SAID]
    assert begun == [tutorial["WORDS"].index(word) for word, _ in tutorial["listener"].words]  # the same rule in both languages
    net, inputs = tutorial["spotter"], torch.tensor(trace["inputs"]).view(1, 1, -1)
    net.clean_state()
    with torch.inference_mode():
        wanted = net.forward_steps(inputs)
    np.testing.assert_allclose(np.array(trace["outputs"]), wanted[0].T.numpy(), atol=1e-4)
