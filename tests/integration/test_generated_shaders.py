"""shaders/generated/ shows what is printed for the optimizers. To write it again:

PYTHONPATH=tests/support python tests/integration/test_generated_shaders.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from optimizer_table import ROWS, Row

from rumus.gpu import update_source
from rumus.tensor import Kernel, NumpyBackend, Parameter

FOLDER: Final = Path(__file__).parents[2] / "shaders" / "generated"
# The name of a file -> the optimizer whose kernel it holds.
OPTIMIZERS: Final[Mapping[str, Row]] = {
    name.lower().replace(" ", "_").replace("-", "_"): row
    for name, row in ROWS.items()
    if row.is_elementwise
}


def kernel_of(name: str) -> Kernel:
    row = OPTIMIZERS[name]
    return row.kind([Parameter([1.0], backend=NumpyBackend())], **row.form).kernel


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_files_match_the_generated_kernels(name: str) -> None:
    assert (FOLDER / f"{name}.wgsl").read_text() == update_source(kernel_of(name))


def test_there_are_no_other_files() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(OPTIMIZERS)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in OPTIMIZERS:
        (FOLDER / f"{name}.wgsl").write_text(update_source(kernel_of(name)))
