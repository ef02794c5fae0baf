"""The arrays of a checkpoint are safetensors files for the reference implementation too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from rumus.train import Checkpoints
from rumus.train.checkpoints.safetensors_file import DTYPES, arrays_in


def test_the_reference_implementation_reads_saved_files(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    model = {name: generator.integers(0, 2, (3, 5)).astype(dtype) for name, dtype in DTYPES.items()}
    model |= {"empty": np.zeros((0, 4)), "scalar": np.array(2.5), "odd é": np.ones(7, np.int8)}
    path = Checkpoints(tmp_path).save(1, {"model": model})
    assert path is not None
    found = load_file(path / "model.safetensors")
    assert found.keys() == model.keys()
    for name, array in model.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    again = arrays_in(np.frombuffer(save(model), np.uint8))
    assert {name: array.tolist() for name, array in again.items()} == {
        name: array.tolist() for name, array in model.items()
    }
