"""docs/layers.md names exactly the existing layers, losses and operations."""

from __future__ import annotations

import doctest
import re
from inspect import isclass, isroutine
from pathlib import Path
from typing import Any

import rumus.tensor
from rumus import nn
from rumus.tensor import Tensor

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"
# Public, but not part of a model: weights files, and functions that make tensors.
ELSEWHERE = {
    "nn": {
        "LoadReport", "OnnxExportError", "Place", "Weights", "WeightsFileError", "WrongShape",
        "export_onnx", "initialization", "load_lora", "names", "read_weights", "save_lora",
    },
    "tensor": {
        "cpu", "gpu_backend", "is_seeded", "move_parameters", "next_generator", "no_grad",
        "run_seed", "seed",
    },
    "methods": {
        "assign", "astype", "backend", "backward", "clone", "detach", "dtype", "item", "label",
        "ndim", "numpy", "requires_grad", "shape", "size", "to", "to_gpu", "tolist",
        "data", "grad",  # which only say what to write instead, as they are assigned
    },
}  # fmt: skip


def named() -> tuple[set[str], set[str], set[str]]:
    """The names in the first column: of rumus.nn, of rumus.tensor, and methods."""
    found: tuple[set[str], set[str], set[str]] = set(), set(), set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| `"):
            continue
        for name in re.findall(r"`([\w.]+)`", line.split("|")[1]):
            prefix, _, rest = name.rpartition(".")
            found[{"nn": 0, "": 1, "x": 2}[prefix]].add(rest)
    return found


def functions(module: Any) -> set[str]:
    """The public functions of a module, and its public classes if they are layers."""
    values = {name: getattr(module, name) for name in module.__all__}
    return {
        name
        for name, value in values.items()
        if isroutine(value) or (isclass(value) and module is nn)
    }


def test_every_layer_and_loss_is_on_the_page() -> None:
    assert functions(nn) - ELSEWHERE["nn"] == named()[0]


def test_every_operation_is_on_the_page() -> None:
    in_nn, plain, methods = named()
    others = in_nn | methods
    assert functions(rumus.tensor) - ELSEWHERE["tensor"] - others == plain - others
    own = {name for name in dir(Tensor) if not name.startswith("_")}
    assert own - ELSEWHERE["methods"] - plain - in_nn == methods - plain - in_nn
    assert methods <= own


def test_the_example_of_the_page() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 0
