"""What `layerwise predict` loads and how it computes before it answers for one picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import layerwise.data
from layerwise import modelfile, models
from layerwise.cli import main
from layerwise.data.preprocess import Preprocess
from layerwise.serve.predictor import Predictor

HEAVY = ("layerwise.data.opening", "layerwise.data.download", "layerwise.data.shards", "layerwise.train", "matplotlib",
         "scipy", "sklearn", "rich", "jinja2", "torch._dynamo", "torch._inductor")


def loaded(statement: str) -> list[str]:
    """Which of the heavy modules a fresh process has after `statement`."""
    program = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_predicting_loads_nothing_of_training_and_reports() -> None:
    assert loaded("import layerwise.jobs.answers") == []
    # the check itself: opening a data set does load some of it
    assert "layerwise.data.opening" in loaded("from layerwise.data import open_data")


def test_the_names_of_data_are_there_and_no_others() -> None:
    for name in layerwise.data.__all__:
        assert getattr(layerwise.data, name).__name__ == name
    with pytest.raises(AttributeError, match=r"module 'layerwise\.data' has no attribute 'open_dtaa'"):
        _ = layerwise.data.open_dtaa


def test_one_picture_is_computed_in_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.full((3, 1, 1), 0.5, dtype=np.float32)
    preprocess = Preprocess(3, 8, "squash", 0, "bilinear", "apply", grey, grey)
    model = tmp_path / "model.safetensors"
    network = models.build("resnet20", 3, 3, widths=(4, 4, 8))
    modelfile.write(model, modelfile.ModelFile(network, ("a", "b", "c"), preprocess))
    for name in ("one.png", "two.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    seen: list[int] = []
    really = Predictor._answer

    def answer(self: Predictor, placed: list[np.ndarray]) -> np.ndarray:
        seen.append(torch.get_num_threads())
        return really(self, placed)

    monkeypatch.setattr(Predictor, "_answer", answer)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(["predict", str(model), str(tmp_path / "one.png")]) == 0
        assert torch.get_num_threads() == 2
        assert main(["predict", str(model), str(tmp_path / "one.png"), str(tmp_path / "two.png")]) == 0
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]
