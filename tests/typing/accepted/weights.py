"""Load reports are typed values, and adapters are ordinary parameters."""

from tempfile import TemporaryDirectory
from typing import assert_type

from rumus import nn
from rumus.optim import SGD
from rumus.tensor import Parameter

model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
with TemporaryDirectory() as folder:
    model.save_file(f"{folder}/model.safetensors")
    report = model.load_file(f"{folder}/model.safetensors", strict=False)
    shapes = nn.read_weights(folder).shapes
assert_type(report, nn.LoadReport)
assert_type(report.missing, tuple[str, ...])
assert_type([wrong.needed for wrong in report.wrong_shapes], list[tuple[int, ...]])
assert_type(shapes, dict[str, tuple[int, ...]])
assert report.fits

names = nn.names.Names([nn.names.Row("fc{+}", "{}")])
model.load_weights({"fc1.bias": [0.0] * 3}, rename=names, strict=False)

adapters = nn.lora(model, 2, targets="2", storage="float16")
assert_type(adapters.layers["2"].lora_A, Parameter)
optimizer = SGD(adapters.parameters(), 0.1)
assert_type(optimizer, SGD[nn.Module])
