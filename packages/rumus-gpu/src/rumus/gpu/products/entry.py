"""The head of a generated kernel, and the number of its workgroup."""

from __future__ import annotations

from collections.abc import Iterator


def entry(lanes: int) -> Iterator[str]:
    """The head of a kernel whose workgroups have so many lanes."""
    yield f"@compute @workgroup_size({lanes})"
    yield "fn main("
    yield "    @builtin(workgroup_id) group: vec3<u32>,"
    yield "    @builtin(num_workgroups) groups: vec3<u32>,"
    yield "    @builtin(local_invocation_index) local: u32,"
    yield ") {"


def workgroup_number() -> Iterator[str]:
    """The workgroup's number, `linear`, out of `k.groups`."""
    yield "let linear = group.y * groups.x + group.x;"
    yield "if (linear >= k.groups) {"
    yield "return;"
    yield "}"
