"""Another product with the import name of this library is found where pip put both into one folder."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from continual.core.name_clash import others_beside, warn_of_others


def test_others_are_found_by_their_metadata(tmp_path: Path):
    package = tmp_path / "continual"
    for name in ("continual_streams-0.1.0", "continual_help-2.0", "torch-2.13.0"):
        (tmp_path / f"{name}.dist-info").mkdir()
    assert others_beside(str(package)) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_others(str(package))
    for name in ("continual-3.1", "continual_inference-1.2.4"):
        (tmp_path / f"{name}.dist-info").mkdir()
    assert others_beside(str(package)) == ["continual 3.1", "continual_inference 1.2.4"]
    with pytest.warns(UserWarning, match=r"continual 3.1, .*pip uninstall continual continual-inference continual-streams, and"):
        warn_of_others(str(package))
