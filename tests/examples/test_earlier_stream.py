"""The script that is written for continual-inference 1.2.4: its results are those that 1.2.4 gave."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "earlier_code" / "stream.py"
OF_1_2_4 = {  # measured by running the script there
    "timing": [14, 8, 1, 5],
    "first frames": [0.940895676612854, 0.9695730209350586, 0.9919743537902832, 1.0087920427322388, 1.021153450012207],
    "last frame": [1.2724661827087402, 0.9888277649879456, 0.2727014422416687, 1.7982141971588135, 1.7768007516860962],
    "a look ahead": [1.0422381162643433, 1.0667227506637573, 0.5060998201370239, 1.7298191785812378, 1.5406184196472168],
    "first output": 8,
}


def test_it_gives_what_it_gave_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "results.pt"
    monkeypatch.setattr("sys.argv", [SCRIPT.name, str(path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = torch.load(path)
    clip, chunk, steps = found["clip"], found["chunk"], found["steps"]
    torch.testing.assert_close(torch.cat((chunk, steps), 2), clip[:, :, :16])
    assert found["timing"].tolist() == OF_1_2_4["timing"]
    assert found["first output"].item() == OF_1_2_4["first output"]
    numbers = {"first frames": clip[0, 0, :5], "last frame": clip[1, :, -1], "a look ahead": found["a look ahead"][0]}
    for name, got in numbers.items():
        torch.testing.assert_close(got, torch.tensor(OF_1_2_4[name]), rtol=0, atol=2e-6)
    runpy.run_path(str(SCRIPT), run_name="__main__")  # compares with the file
    assert "'clip': 0.0, 'chunk': 0.0" in capsys.readouterr().out


def test_without_a_file_it_says_how_it_is_called(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", [SCRIPT.name])
    with pytest.raises(SystemExit, match=r"usage: python stream\.py RESULTS"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
