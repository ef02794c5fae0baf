"""Which expressions the check of all programs refuses, and that the stored shaders pass it."""

from __future__ import annotations

from pathlib import Path

import pytest
from wgsl_operators import mixed_operators

SHADERS = Path(__file__).parents[2] / "shaders"


@pytest.mark.parametrize(
    "expression",
    ["a << 8u | b", "a & b ^ c", "a + b << 2u", "a >> 1u >> 1u", "a && b || c", "f(a & b == c)",
     "x[a % b & 3u]", "vec4<u32>(a) >> vec4<u32>(8u) & vec4<u32>(255u)"],
)  # fmt: skip
def test_mixed_operators_are_found(expression: str) -> None:
    assert list(mixed_operators(f"let found = {expression};"))


@pytest.mark.parametrize(
    "expression",
    ["(a << 8u) | (b << 4u)", "a & b & c", "(a + b) << 2u", "a << 1u < b << 1u", "(a && b) || c",
     "f((a & b) == c, -a * -b, !c)", "a * b + c < d && e != f", "array<vec4<u32>, 4>(a)[b % 4u]",
     "bitcast<vec4<f32>>(bitcast<vec4<u32>>(a) & vec4<u32>(0xffffe000u))", "&a"],
)  # fmt: skip
def test_plain_ones_are_not(expression: str) -> None:
    assert not list(mixed_operators(f"x |= {expression};"))


@pytest.mark.parametrize("path", sorted(SHADERS.rglob("*.wgsl")), ids=lambda path: path.name)
def test_stored_shaders_mix_none(path: Path) -> None:
    assert not list(mixed_operators(path.read_text("utf-8")))
