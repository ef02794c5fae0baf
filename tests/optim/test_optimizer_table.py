"""The table behind the tests of all optimizers is complete."""

from __future__ import annotations

from optimizer_table import ELEMENTWISE, KINDS, ROWS

from rumus import optim
from rumus.optim import AveragingOptimizer, FusedOptimizer
from rumus.tensor import Parameter


def test_the_table_has_every_public_optimizer() -> None:
    public = {getattr(optim, name) for name in optim.__all__}
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, FusedOptimizer)}
    assert set(KINDS) == kinds - {FusedOptimizer, AveragingOptimizer}


def test_an_optimizer_is_elementwise_in_every_form_or_in_none() -> None:
    others = {row.kind for row in ROWS.values() if not row.is_elementwise}
    assert others.isdisjoint(ELEMENTWISE)


def test_every_option_of_a_row_exists() -> None:
    for name, row in ROWS.items():
        assert row([Parameter([1.0, 2.0], name="w")]).steps == 0, name
