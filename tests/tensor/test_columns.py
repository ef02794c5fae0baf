"""Functions of NumPy's backend on columns of an array, in place, where NumPy itself errs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rumus.tensor.compiled import special

FUNCTIONS: tuple[Callable[..., None], ...] = (special.sigmoid, special.relu, special.softplus)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_column_is_as_an_array_of_its_own(function: Callable[..., None], dtype: Any) -> None:
    for columns in range(2, 34):
        array = np.linspace(-3, 3, 5 * columns, dtype=dtype).reshape(5, columns)
        expected = np.empty(5, dtype)
        function(array[:, 0].copy(), expected)
        rest = array[:, 1:].copy()
        column = array[:, 0]
        function(column, column)
        np.testing.assert_allclose(column, expected, rtol=1e-6, err_msg=str(columns))
        assert (array[:, 1:] == rest).all()
