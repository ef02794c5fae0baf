"""Nor by an arbitrary number."""

from rumus.tensor import ParamId

names: dict[ParamId, str] = {}
# error: Invalid index type "int" for "dict[ParamId, str]"; expected type "ParamId"  [index]
names[0]
