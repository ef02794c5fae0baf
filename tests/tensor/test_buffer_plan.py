"""The memory plan of a repeated step: arrays that are alive together do not overlap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rumus.tensor.memory.buffer_plan import ALIGNMENT, Lifetime, planned

LIVES = st.builds(
    lambda size, birth, length: Lifetime(size, birth, birth + length),
    st.integers(0, 1000),
    st.integers(0, 20),
    st.integers(0, 20),
)


@given(st.lists(LIVES, max_size=40))
def test_arrays_alive_together_do_not_overlap(lives: list[Lifetime]) -> None:
    starts, end = planned(lives)
    for number, (start, life) in enumerate(zip(starts, lives, strict=True)):
        assert start % ALIGNMENT == 0
        assert 0 <= start <= start + life.size <= end
        for before, other in zip(starts[:number], lives[:number], strict=True):
            are_together = life.birth < other.death and other.birth < life.death
            are_apart = start + life.size <= before or before + other.size <= start
            assert are_apart or not are_together or not life.size or not other.size


def test_memory_is_reused() -> None:
    chain = [Lifetime(640, step, step + 2) for step in range(50)]
    assert planned(chain)[1] == 2 * 640
