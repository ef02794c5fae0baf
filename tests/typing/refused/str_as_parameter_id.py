"""A parameter is not identified by its name, which two may share."""

from rumus.tensor import GradientStore, ParamId

names: dict[ParamId, str] = {}
# error: Invalid index type "str" for "dict[ParamId, str]"; expected type "ParamId"  [index]
names["weight"]
# error: Invalid index type "str" for "GradientStore"; expected type "Parameter"  [index]
GradientStore()["weight"]
