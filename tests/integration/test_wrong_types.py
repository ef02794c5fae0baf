"""Arguments of the wrong type: refused by name, and not taken for something that they are not."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from rumus import distributed, nn, optim, train
from rumus import tensor as rt
from rumus.tensor import Generator, Parameter, float32, int32, ones, tensor, where, zeros

ANY: Any = rt  # what a type checker would refuse
LAYER: Any = nn
OPTIM: Any = optim
TRAIN: Any = train
DRAW: Any = Generator(0)
X: Any = ones((2, 3))
TEN: Any = train.ArrayDataset(np.ones((10, 2), np.float32))
SGD: Any = optim.SGD([Parameter([1.0], name="w")], 0.1)
ANY_TRAINER: Any = train.Trainer
TRAINER: Any = train.Trainer(SGD)
LINEAR: Any = nn.Linear(2, 2)
GROUP: Any = optim.ParameterGroup([Parameter([1.0], name="w")])
DISTRIBUTED: Any = distributed
MANY: Any = np.array([1.0, 2.0])
SINGLE: Any = np.array(1.0)
PICTURE: Any = ones((1, 2, 6, 6))
OF_TORCH: Any = type("Tensor", (), {"__module__": "torch"})()  # of the same name as ours


def OWN() -> list[Parameter]:
    return [Parameter(np.ones((2, 2), np.float32), name="w")]


TYPES: Final[list[tuple[Callable[[], object], str]]] = [
    # Taken for something that they are not
    (lambda: ANY.tensor(["1", "2"], dtype=float32), "data of dtype <U1 cannot become a tensor"),
    (lambda: ANY.tensor([1.0, None], dtype=float32), "data of dtype object cannot become"),
    (lambda: ANY.tensor([1j], dtype=float32), "data of dtype complex128 cannot become"),
    (lambda: X.assign(None), "data of dtype object cannot become a tensor"),
    (lambda: X.__setitem__(0, "3"), "data of dtype <U1 cannot become a tensor"),
    (lambda: ANY.full((2,), None), "full: value must be a number, not None"),
    (lambda: ANY.full((2,), [1.0]), "full: value must be a number, not list"),
    (lambda: ANY.full((2,), "3"), "full: value must be a number, not '3'"),
    (lambda: ANY.pad(X, [(1, 1), (0, 0)], "3"), "pad: value must be a number, not '3'"),
    (lambda: ANY.zeros((2,), dtype=None), "dtype None is not supported; use one of bool, int32"),
    (lambda: X.astype(None), "dtype None is not supported"),
    (lambda: X.astype("flaot32"), "dtype 'flaot32' is not supported"),
    (lambda: LAYER.Linear(2, 2, dtype=None), "dtype None is not supported"),
    (lambda: LAYER.InstanceNorm1d(3, dtype="x"), "dtype 'x' is not supported"),
    (lambda: LAYER.Linear(2, 2, generator=0), "Linear: generator must be a Generator, not 0"),
    (lambda: LAYER.Dropout(0.5, generator=3), "Dropout: generator must be a Generator, not 3"),
    (lambda: LAYER.Conv2d(1, 2, 3, backend=0), "Conv2d: backend must be a Backend, not 0"),
    (lambda: ANY.tensor([1.0], backend=0), "tensor: backend must be a Backend, not 0"),
    (lambda: ANY.zeros((2,), backend=""), "zeros: backend must be a Backend, not ''"),
    (
        lambda: DRAW.normal((2,), backend=[]),
        "Generator.normal: backend must be a Backend, not list",
    ),
    (lambda: DRAW.normal((2,), std=1j), "Generator.normal: std must be a number, not 1j"),
    (lambda: DRAW.integers(0, 2.5, (2,)), "Generator.integers: high must be a whole number"),
    (lambda: DRAW.permutation(True), "Generator.permutation: count must be a whole number"),
    (lambda: DRAW.keep(0.5, "ab"), "keep: shape must be .*whole number.*, not 'ab'"),
    (lambda: ANY.zeros(b"ab"), "zeros: shape must be .*whole number.*, not b'ab'"),
    (lambda: ANY.zeros((2, 1.5)), r"zeros: shape must be .*whole number.*, not \(2, 1.5\)"),
    (lambda: ANY.scaled_dot_product_attention(X, X, X, scale="3"), "scale must be a number"),
    (lambda: ANY.cross_entropy(X, tensor([0, 1]), None), "label_smoothing must be a number"),
    (lambda: ANY.cross_entropy(X, tensor([0, 1]), 0.0, "0"), "ignore_index must be a whole number"),
    (lambda: LAYER.cross_entropy_loss(X, [0, 1], ignore_index=0.5), "ignore_index must be a whole"),
    (lambda: LAYER.poisson_nll_loss(X, X, eps="x"), "poisson_nll_loss: eps must be a number"),
    (lambda: LAYER.ctc_loss(ones((1, 2, 3)), [[1]], blank=0.5), "blank must be a whole number"),
    (lambda: ANY.convolution(PICTURE, ones((1, 2, 3, 3)), stride=None), "stride must be whole"),
    (lambda: LAYER.PixelShuffle(2.5), "PixelShuffle: factor must be a whole number, not 2.5"),
    (lambda: LAYER.InstanceNorm2d(2.5), "InstanceNorm2d: channels must be a whole number"),
    (lambda: LAYER.Conv2d(1, 2, (3, 1.5)), "Conv2d: kernel must be whole numbers"),
    (lambda: ANY.max_pool(PICTURE, (2, 1.5)), "max_pool: kernel must be (a )?whole number"),
    (
        lambda: OPTIM.Muon([Parameter(np.ones((2, 2)))], adamw_lr="3"),
        "lr must be a number or a fun",
    ),
    (lambda: TRAIN.Pad(length=2.5), "Pad: length must be a whole number, not 2.5"),
    (lambda: TRAIN.StreamLoader([1], 1, transform=3), "transform must be a function, not 3"),
    (lambda: TRAIN.StreamLoader([1], 1, backend="gpu"), "backend must be a Backend, not 'gpu'"),
    (
        lambda: TRAIN.DataLoader(TRAIN.ArrayDataset(np.ones(4)), 2, collate=3),
        "collate must be a fu",
    ),
    # What said it in the words of something deep inside
    (lambda: ANY.layer_norm(X, "w"), "layer_norm: weight must be a tensor, not 'w'"),
    (lambda: ANY.rms_norm(np.ones((2, 3))), "rms_norm: x must be a tensor, not ndarray"),
    (lambda: ANY.gather([1.0], tensor([0])), "gather: table must be a tensor, not list"),
    (lambda: ANY.linear(OF_TORCH, X), "linear: x must be a tensor, not torch.Tensor"),
    (lambda: X @ OF_TORCH, "matmul: expected a tensor, got torch.Tensor"),
    (lambda: LAYER.mse_loss(OF_TORCH, X), "prediction must be a tensor, not torch.Tensor"),
    (lambda: ANY.linear(X, None), "linear: weight must be a tensor, not None"),
    (lambda: ANY.convolution(PICTURE, None), "convolution: weight must be a tensor, not None"),
    (lambda: ANY.convolution(PICTURE, PICTURE, groups="2"), "groups must be a whole number"),
    (lambda: ANY.avg_pool(PICTURE, 2.5), "avg_pool: kernel must be whole numbers, not 2.5"),
    (lambda: ANY.batch_norm(X, ones((3,)), 3), "batch_norm: bias must be a tensor, not 3"),
    (lambda: ANY.attention_weights(X, None), "attention_weights: key must be a tensor, not None"),
    (lambda: ANY.tril(X, 0.5), "tril: diagonal must be a whole number, not 0.5"),
    (lambda: ANY.tensor([1.0], backend="gpu"), "tensor: backend must be a Backend, not 'gpu'"),
    (lambda: X.topk("2"), "topk: k must be a whole number, not '2'"),
    (lambda: DRAW.uniform((2,), None), "Generator.uniform: low must be a number, not None"),
    (lambda: LAYER.Linear(2.5, 3), "Linear: inputs must be a whole number, not 2.5"),
    (lambda: LAYER.LSTM(3, None), "LSTM: hidden must be a whole number, not None"),
    (lambda: LAYER.huber_loss(X, X, delta=None), "huber_loss: delta must be a number, not None"),
    (lambda: LAYER.hinge_loss(X, X, margin="1"), "hinge_loss: margin must be a number, not '1'"),
    (lambda: LAYER.focal_loss(X, [0, 1], axis="x"), "focal_loss: axis must be a whole number"),
    (lambda: X.reshape("6"), "reshape: a length must be a whole number, not '6'"),
    (lambda: X.reshape(2.0, 3), "reshape: a length must be a whole number, not 2.0"),
    (lambda: X.reshape(["2", 3]), "reshape: a length must be a whole number, not '2'"),
    (lambda: X.reshape(None), "reshape: a length must be a whole number, not None"),
    (lambda: X.permute("10"), "permute: an axis must be a whole number, not '10'"),
    (lambda: X.permute(1.0, 0.0), "permute: an axis must be a whole number, not 1.0"),
    # Arrays in place of numbers, and what is no list
    (lambda: OPTIM.ClipNorm(tensor(np.ones((2, 3)))), "max_norm must be a number, not Tensor"),
    (lambda: OPTIM.ClipNorm(np.ones((2, 3))), "max_norm must be a number, not ndarray"),
    (lambda: LAYER.AvgPool2d(np.ones((2, 3))), "kernel must be whole numbers, not ndarray"),
    (lambda: X.transpose("a"), "transpose: first must be a whole number, not 'a'"),
    (lambda: X.flatten(None), "flatten: start must be a whole number, not None"),
    (lambda: X.broadcast_to(ones((2, 3))), "shape must be whole numbers, not Tensor"),
    (lambda: LAYER.checkpoint(3, X), "checkpoint: function must be a function, not 3"),
    (lambda: LAYER.checkpoint(LAYER.ReLU(), X, generators=3), "generators must be a list, not 3"),
    (lambda: TRAIN.plot_runs(3, "x.png"), "plot_runs: runs must be a list, not 3"),
    (lambda: DRAW.skip(None), "Generator.skip: words must be a whole number, not None"),
    (lambda: DRAW.restore(3), "Generator.restore: state must be a dict, not 3"),
    (lambda: ANY.einsum(3, X), "einsum: subscripts must be text such as"),
    (lambda: ANY.from_dlpack(3), "from_dlpack: source must be an object with __dlpack__, not 3"),
    (lambda: LAYER.Linear(2, 2).to_dtype(-1), "dtype -1 is not supported; use one of"),
    (lambda: OPTIM.Muon([Parameter(np.ones((2, 2)))], matrices=3), "matrices must be a pattern"),
    (lambda: OPTIM.SAM(3), r"SAM: base must be an optimizer, such as SAM\(AdamW.*, not 3"),
    # Switches in place of numbers
    (lambda: ANY.clip(X, True), "clip: low must be a tensor or a number, not True"),
    (lambda: ANY.maximum(X, True), "maximum: give a number, not True, beside a tensor of float32"),
    (lambda: X.minimum(np.False_), "minimum: give a number, not False, beside a tensor of"),
    (lambda: X.clone().assign(True), "assign: value must be a number, not True"),
    (lambda: ANY.prelu(X, True), "prelu: weight must be numbers, not True"),
    (lambda: LAYER.gaussian_nll_loss(X, X, True), "variance must be numbers, not truth values"),
    (lambda: LAYER.gaussian_nll_loss(X, X, X > 0), "variance must be numbers, not truth values"),
    (lambda: X.clip(high=np.bool_(False)), "clip: high must be a tensor or a number, not"),
    (lambda: LAYER.mse_loss(X, X, sample_weight=True), "sample_weight must be numbers or None"),
    (lambda: LAYER.cross_entropy_loss(X, [0, 1], weight=False), "weight must be numbers or None"),
    (lambda: DRAW.skip(True), "Generator.skip: words must be a whole number, not True"),
    # One thing for another
    (lambda: ANY.concat(X), r"concat takes a list of tensors, not one tensor: concat\(\[x, y\]\)"),
    (lambda: ANY.stack(3), "stack takes a list of tensors, not 3"),
    (lambda: ANY.stack([X, 3]), r"stack: item 1 must be a tensor, not 3: use tensor\(x\)"),
    (lambda: ANY.concat([np.ones(3)]), "concat: item 0 must be a tensor, not ndarray"),
    (lambda: ANY.split(X, 1.5), "split: parts must be a whole number, not 1.5"),
    (lambda: ANY.split(X, "2"), "split: parts must be .*whole number.*, not '2'"),
    (lambda: ANY.split(X, [1, "1"]), "split: .* must be .*whole number.*, not '1'"),
    (lambda: ANY.pad(X, 3), "pad: widths must be pairs, one for each axis, not 3"),
    (lambda: ANY.Parameter([1.0], requires_grad="no"), "requires_grad must be True or False"),
    (lambda: OPTIM.multi_step(0.1, 5), r"after must be step numbers, as \[30, 80\], not 5"),
    (lambda: OPTIM.MultiOptimizer(SGD), r"a list of optimizers, not SGD: MultiOptimizer\(\["),
    (
        lambda: OPTIM.ParameterGroup(GROUP),
        r"a list of parameters, not ParameterGroup: pass mod",
    ),
    (lambda: OPTIM.ParameterGroup(GROUP.named[0][1]), "a list of parameters, not Parameter: pass "),
    (lambda: OPTIM.save_state("path", SGD), "takes an optimizer, then a path, not 'path' first"),
    (lambda: OPTIM.load_state("path", SGD), "takes an optimizer, then a path, not 'path' first"),
    (lambda: OPTIM.Accumulation().add(3), r"what loss\.backward\(\) returned, not int"),
    (
        lambda: TRAIN.DataLoader(train.ArrayDataset, 2),
        r"dataset must be made: ArrayDataset\(",
    ),
    (
        lambda: TRAIN.Subset(train.ArrayDataset, [0]),
        r"dataset must be made: ArrayDataset\(",
    ),
    (
        lambda: TRAIN.Subset(None, [0]),
        r"Subset: dataset must have len\(\) and dataset\[i\], unl",
    ),
    (lambda: TRAIN.Subset(TEN, 3), "Subset: indices must be a list of integers, not 3"),
    (lambda: TRAIN.Subset(TEN, iter([1])), "Subset: indices must be a list of integers, not list_"),
    (lambda: TRAIN.images.Normalize("a"), "Normalize: mean must be numbers, not 'a'"),
    (lambda: TRAIN.images.ColorJitter("x"), "ColorJitter: brightness must be a number, not 'x'"),
    (
        lambda: TRAIN.images.Augment(train.images.Flip),
        r"make the transform: Flip\(\.\.\.\), no",
    ),
    (lambda: TRAIN.images.Augment(3), "Augment: a transform must be a function, not 3"),
    (
        lambda: TRAIN.Every(abs),
        "Every: steps must be a number, not <built-in",
    ),
    (lambda: TRAIN.Every(seconds="3"), "Every: seconds must be a number, not '3'"),
    (lambda: TRAIN.Pad("x"), "Pad: value must be a number, not 'x'"),
    (lambda: TRAIN.Pad([0, None]), "Pad: value must be a number, not None"),
    (lambda: TRAIN.random_split(TEN, [1.0], seed="x"), "seed must be a whole number, not 'x'"),
    (lambda: TRAINER.train_step(X), "loss_fn must be a function of a batch, not Tensor"),
    (lambda: TRAINER.train_step(abs, weight="1"), "weight must be a number, not '1'"),
    (lambda: DISTRIBUTED.ranks("x"), "deadline must be a number, not 'x'"),
    (lambda: DISTRIBUTED.ranks(True), "deadline must be a number, not True"),
    (lambda: TRAIN.random_split(TEN, 0.8), "parts must be a list of fractions or lengths, not 0.8"),
    (lambda: TRAIN.random_split(TEN, "ab"), "parts must be a list of fractions or lengths, not 'a"),
    (lambda: TRAIN.random_split([0.8, 0.2], TEN), r"not ArrayDataset: random_split\(dataset, \["),
    (lambda: TRAIN.random_split(TEN, [8, "2"]), "random_split: a part must be a number, not '2'"),
    (
        lambda: TRAIN.random_split(10, [0.8, 0.2]),
        r"dataset must have len\(\) and dataset\[i\], unl",
    ),
    (
        lambda: TRAIN.find_lr(SGD),
        r"find_lr needs 'loader': .* find_lr\(Trainer\(optimizer\), loader",
    ),
    (lambda: TRAIN.find_lr(SGD, [X], abs), r"find_lr takes a trainer, not SGD: find_lr\(Trainer\("),
    (
        lambda: TRAIN.find_lr(TRAINER, abs, [X]),
        "find_lr: loss_fn must be a function|loader must be",
    ),
    (lambda: TRAIN.find_batch_size(SGD), "find_batch_size needs 'batch': a batch, as in find_ba"),
    (
        lambda: TRAIN.find_batch_size(SGD, X, abs, memory=1),
        "find_batch_size takes a trainer, not S",
    ),
    (lambda: TRAIN.FeedPlateau(0.1), r"plateau must be the Plateau .*, not 0.1: lr = Plateau\("),
    (lambda: TRAIN.FeedPlateau(optim.Plateau), "plateau must be the Plateau"),
    (lambda: TRAIN.DataLoader(TEN, 2, ranks=3), r"DataLoader: ranks must be rumus.distributed.ran"),
    (lambda: TRAIN.Trainer(SGD, ranks=3), r"Trainer: ranks must be rumus.distributed.ranks\(\)"),
    (
        lambda: TRAIN.Trainer(SGD, state={"model": nn.Linear}),
        r"'model' is the class Linear, which .*",
    ),
    (
        lambda: TRAIN.Trainer(SGD, state={"a": 3}),
        "state: 'a' is 3, which holds no state",
    ),
    (
        lambda: TRAIN.Trainer(SGD, state={"a": [nn.ReLU()]}),
        "state: 'a' is list, which holds no",
    ),
    (
        lambda: TRAINER.fit(train.DataLoader, abs, epochs=1),
        "loader .* not the class DataLoader",
    ),
    (lambda: TRAINER.fit(TEN, abs, epochs=1), "fit: loader .* the samples of ArrayDataset"),
    (lambda: TRAINER.fit(X, abs, epochs=1), "fit: loader must be batches, not Tensor"),
    (lambda: TRAINER.fit(LINEAR, abs, epochs=1), "fit: loader must be batches, not Linear"),
    (
        lambda: TRAINER.fit((MANY, MANY), abs, epochs=1),
        "fit: loader must be batches, not a tuple of",
    ),
    (
        lambda: TRAINER.fit(np.recarray(2, [("x", float)]), abs, epochs=1),
        "fit: loader must be batches, not recarray",
    ),
    (lambda: TRAINER.fit([], nn.Linear, epochs=1), "loss_fn must be .*, not the class Linear"),
    (lambda: TRAINER.fit([X], abs, epochs=1, resume=3), 'resume must be True, False, "auto" or a'),
    (
        lambda: TRAINER.fit([X], abs, epochs=1, checkpoints=3),
        "checkpoints must be a fo.* not 3",
    ),
    (
        lambda: TRAINER.fit([X], abs, epochs=1, checkpoints=train.Checkpoints),
        "checkpoints must be a folder .*, not the class Checkpoints",
    ),
    (
        lambda: TRAINER.fit([X], abs, epochs=1, validate=(3, abs)),
        "validate: loader must be",
    ),
    (
        lambda: TRAINER.fit([X], abs, epochs=1, validate=nn.Linear),
        "validate .* the class Linear",
    ),
    (lambda: TRAIN.evaluate(nn.Linear, [X], abs), "evaluate: model .*, not the class Linear"),
    (lambda: TRAIN.evaluate(3, [X], abs), "evaluate: model must be a function, not 3"),
    (lambda: TRAIN.evaluate(LINEAR, TEN, abs), "evaluate: loader must be batches, not the samples"),
    (lambda: TRAIN.evaluate(LINEAR, [X], 3), "metrics must be a list of functions, not 3"),
    (
        lambda: TRAIN.predict(LINEAR, np.ones((2, 2))),
        "predict: loader must be .* ndarray",
    ),
    (lambda: TRAINER.predict(3, abs), "predict: loader must be batches, not 3"),
    (lambda: TRAINER.evaluate("x", abs), "evaluate: loader must be batches, not 'x'"),
    (lambda: LINEAR.save_file(3), "Linear.save_file: path must be text or a Path, not 3"),
    (lambda: LINEAR.load_file(3), "Linear.load_file: path must be text or a Path, not 3"),
    (lambda: LAYER.read_weights(0), "read_weights: path must be text or a Path, not 0"),
    (lambda: LAYER.export_onnx(LINEAR, 3, X), "export_onnx: path must be text or a Path, not 3"),
    (lambda: OPTIM.save_state(SGD, 3), "path .*not 3"),
    (lambda: OPTIM.load_state(SGD, 3), "path .*not 3"),
    (lambda: TRAIN.read_metrics(3), "read_metrics: path must be text or a Path, not 3"),
    (lambda: TRAIN.Checkpoints(3), "Checkpoints: folder must be text or a Path, not 3"),
    (lambda: TRAIN.RunFolder(3), "RunFolder: path must be text or a Path, not 3"),
    (lambda: TRAIN.write_report(3), "write_report: run must be text or a Path, not 3"),
    (lambda: TRAIN.plot_runs(["a"], 3), "plot_runs: out must be text or a Path, not 3"),
    (lambda: TRAIN.save_configuration({}, 3), "save_configuration: file must be text or a Path"),
    (lambda: TRAIN.load_configuration(dict, 3), "load_configuration: file must be text or a Path"),
    (lambda: TRAIN.load_model(3, LINEAR), "load_model: path must be text or a Path, not 3"),
    (lambda: TRAIN.CsvDataset(3), "CsvDataset: path must be text or a Path, not 3"),
    (lambda: TRAIN.NpyDataset(3), "NpyDataset: a file must be text or a Path, not 3"),
    (lambda: TRAIN.ImageFolder(3), "ImageFolder: folder must be text or a Path, not 3"),
    (lambda: TRAIN.CsvDataset("a.csv", encoding=None), "encoding must be text"),
    (lambda: TRAIN.RunFolder("a", log_every=3), r"log_every must be Every\(steps=...\)"),
    (lambda: TRAIN.TimeReport(write=3), "TimeReport: write must be a function, not 3"),
    (lambda: TRAIN.LogTo(abs, seconds="3"), "LogTo: seconds must be a number, not '3'"),
    (lambda: TRAIN.LiveView(seconds=None), "LiveView: seconds must be a number, not None"),
    (lambda: TRAIN.StreamLoader("ab", 1), "a stream must yield samples, not 'ab'"),
    (lambda: TRAIN.StreamLoader([1], 1, transform=nn.ReLU), "transform .* not the class ReLU"),
    (lambda: TRAIN.Subset("ab", [0]), r"dataset must have len\(\) and dataset\[i\], unlike 'ab'"),
    (lambda: TRAIN.find_batch_size(TRAINER, 3, abs, memory=1), "batch must be a tuple or a dict"),
    (lambda: TRAIN.images.Crop("3"), "Crop: size must be whole numbers, not '3'"),
    (lambda: TRAIN.images.Rotate(None), "Rotate: degrees must be a number, not None"),
    (lambda: OPTIM.LossScale(every="x"), "LossScale: every must be a number, not 'x'"),
    (lambda: OPTIM.Adafactor([Parameter([1.0])], eps=1e-8), "Adafactor: eps must be two numbers"),
    (lambda: OPTIM.Muon([Parameter(np.ones((2, 2)))], 0.1, parts=3), "parts must be a dict"),
    (lambda: LINEAR(ones((1, 2)), activation="relu"), "activation must be a function, not 'relu'"),
    (lambda: LINEAR(ones((1, 2)), axis=1), "Linear takes no 'axis'; it takes activation, residual"),
    (lambda: LINEAR(ones((1, 2)), activaton=abs), "no 'activaton'; did you mean 'activation'"),
    (lambda: ANY.move_parameters(X, rt.cpu()), "takes a list of parameters, not Tensor"),
    (lambda: ANY.move_parameters(LINEAR, rt.cpu()), "takes a list of parameters, not Linear"),
    (lambda: ANY.move_parameters([X], rt.cpu()), "item 0 is Tensor: move a tensor with to"),
    (lambda: ANY.move_parameters([], "gpu"), "backend must be a Backend, not 'gpu'"),
    (lambda: ANY.Parameters({"w": 3}), "must have a name and a parameter in each pair"),
    (lambda: ANY.Parameters(3), "Parameters: named must be a dict of parameters, not 3"),
    (lambda: ANY.exp(np.ones(2)), "exp: x must be a tensor, not ndarray"),
    (lambda: ANY.softmax([1.0]), "softmax: x must be a tensor, not list"),
    (lambda: ANY.maximum(1.0, X), "maximum: a must be a tensor, not 1.0"),
    (lambda: ANY.clip("x"), "clip: x must be a tensor, not 'x'"),
    (lambda: ANY.celu(X, alpha=None), "celu: alpha must be a number, not None"),
    (lambda: ANY.leaky_relu(X, slope=[1]), r"leaky_relu: slope must be a number, not \[1\]"),
    (lambda: ANY.glu(X, "0"), "glu: axis must be a whole number, not '0'"),
    (lambda: X.sum(True), "axis must be .*, not True"),
    (lambda: ANY.arange(0, 1, 0.5), "arange: step must be a whole number, not 0.5"),
    (lambda: ANY.no_grad(abs), r"no_grad takes no arguments: write @no_grad\(\) before a function"),
    (
        lambda: LAYER.mse_loss(X, X, reduction=np.array(["a", "b"])),
        "mse_loss: reduction must be 'me",
    ),
    (
        lambda: LAYER.mse_loss(X, X, reduction=X),
        "mse_loss: reduction must be 'mean' or 'sum' or 'n",
    ),
    (
        lambda: LAYER.kl_div(X, X, reduction=True),
        "kl_div: reduction must be 'mean' or 'sum' or 'no",
    ),
    (
        lambda: LAYER.GELU(np.array(["a", "b"])),
        "GELU: approximate must be 'none' or 'tanh', not nda",
    ),
    (
        lambda: LAYER.RNN(2, 3, nonlinearity=X),
        "RNN: nonlinearity must be 'tanh' or 'relu', not Ten",
    ),
    (
        lambda: LAYER.FrozenLinear(LINEAR, storage=X),
        "FrozenLinear: storage must be 'same' or 'float",
    ),
    (
        lambda: LAYER.TransformerBlock(4, 2, norm=np.zeros(3)),
        "TransformerBlock: norm must be 'layer",
    ),
    (
        lambda: LAYER.Conv2d(1, 2, 3, padding_mode=X),
        "Conv2d: padding_mode must be 'zeros' or 'refl",
    ),
    (
        lambda: LAYER.Conv2d(1, 2, 3, padding=None),
        "Conv2d: padding must be 'same' or .*whole numbers",
    ),
    (lambda: LAYER.Conv2d(1, 2, 3, padding=True), "Conv2d: padding must be .*whole numbers, not T"),
    (
        lambda: LAYER.Conv2d(1, 2, 3, padding=2.5),
        "Conv2d: padding must be .*whole numbers, not 2.5",
    ),
    (lambda: LAYER.initialization.gain(X), "gain: nonlinearity must be 'linear' or 'sigmoid'"),
    (lambda: LAYER.initialization.gain("relu", True), "gain: slope must be a number, not True"),
    (lambda: LAYER.initialization.fans("23"), "fans: shape must be whole numbers, not '23'"),
    (
        lambda: LAYER.LayerNorm(np.array(["a", "b"])),
        "LayerNorm: normalized_shape must be whole num",
    ),
    (lambda: LAYER.LayerNorm(np.zeros(3)), "LayerNorm: normalized_shape must be whole numbers"),
    (
        lambda: LAYER.nll_loss(X, [0, 1], axis=True),
        "nll_loss: axis must be a whole number, not Tru",
    ),
    (lambda: LAYER.dice_loss(X, X, smooth=True), "dice_loss: smooth must be a number, not True"),
    (
        lambda: LAYER.pairwise_distance(X, X, p=np.True_),
        "pairwise_distance: p must be a number, no",
    ),
    (
        lambda: LAYER.cosine_similarity(X, np.array(["a"])),
        "cosine_similarity: y must be a tensor, no",
    ),
    (lambda: X.norm(True), "Tensor.norm: order must be .*number, not True"),
    (lambda: X.norm(X), "Tensor.norm: order must be .*number, not Tensor"),
    (lambda: X.sum(b"x"), "Tensor.sum: axis must be .*whole number.*, not b'x'"),
    (
        lambda: ANY.max_pool(X.reshape(1, 1, 2, 3), True),
        "max_pool: kernel must be whole numbers, n",
    ),
    (
        lambda: ANY.convolution(X, X, groups=True),
        "convolution: groups must be a whole number, not T",
    ),
    (lambda: ANY.layer_norm(X, None, None, eps=True), "layer_norm: eps must be a number, not True"),
    (
        lambda: ANY.tensor([1.0], dtype=X),
        "dtype must be a dtype, not a Tensor: write x.dtype, or one",
    ),
    (
        lambda: ANY.zeros((2,), dtype=np.zeros(3)),
        "dtype must be a dtype, not a ndarray: write x.dtype",
    ),
    (lambda: ANY.split(None, 2), r"split: x must be a tensor, not None: use tensor\(x\)"),
    (lambda: ANY.weighted_values(X, None), "weighted_values: value must be a tensor, not None"),
    (lambda: ANY.pad(X, np.array(["a", "b"])), "pad: widths must be pairs, .* not ndarray"),
    (lambda: ANY.pad(X, [1, 2]), "pad: widths must be pairs, one for each axis, not list"),
    (lambda: ANY.pad_edges(X, [1, 2], "reflect"), "pad_edges: widths must be pairs, .* not list"),
    (lambda: ANY.pad_edges(X, [(1, "1"), (0, 0)], "reflect"), "pad_edges: widths must be a whole"),
    # An array in place of one of a few texts
    *[
        (call, rf"{name} must be '.*, not ndarray")
        for name, call in {
            "mode": lambda: OPTIM.Plateau(0.1, mode=MANY),
            "nonfinite": lambda: OPTIM.LBFGS(OWN(), nonfinite=MANY),
            "per": lambda: OPTIM.ClipNorm(1.0, per=MANY),
            "state_dtype": lambda: OPTIM.AdamW(OWN(), state_dtype=MANY),
            "state_device": lambda: OPTIM.AdamW(OWN(), state_device=MANY),
            "decay": lambda: OPTIM.AdamW(OWN(), decay=MANY),
            "adjust": lambda: OPTIM.Muon(OWN(), adjust=MANY),
            "role": lambda: ANY.Parameter([1.0], role=MANY),
            "hyper": lambda: OPTIM.load_torch_state(SGD, {}, ["w"], hyper=MANY),
            "axis": lambda: TRAIN.images.Flip(MANY),
            "action": lambda: TRAIN.Spikes(MANY),
            "keep_best": lambda: TRAIN.Checkpoints("folder", keep_best=MANY),
            "on_error": lambda: TRAIN.Checkpoints("folder", on_error=MANY),
            "EarlyStopping: mode|mode": lambda: TRAIN.EarlyStopping("loss", mode=MANY),
            "reduction": lambda: LAYER.mse_loss(X, X, reduction=MANY),
            "interpolate: mode": lambda: ANY.interpolate(PICTURE, 2, mode=MANY),
            "pad_edges: mode": lambda: ANY.pad_edges(X, [(0, 0), (0, 0)], MANY),
        }.items()
    ],
    (lambda: TRAINER.fit([1], len, epochs=1, nonfinite=MANY), "nonfinite must be 'raise', .*array"),
    (lambda: TRAINER.fit([1], len, epochs=1, progress=MANY), "progress must be 'auto'"),
    (lambda: OPTIM.warmup(3, start=MANY), "start must be a number, not array"),
    (lambda: OPTIM.Plateau(MANY), "start must be a number, not array"),
    (lambda: TRAIN.plot_runs(MANY, "x.png"), "plot_runs: runs must be run folders, not "),
    # An array without axes in place of a list
    (lambda: OPTIM.SGD(SINGLE), "an optimizer takes parameters, not ndarray"),
    (lambda: OPTIM.ParameterGroup(SINGLE), "an optimizer takes a list of parameters, not ndarray"),
    (lambda: OPTIM.MultiOptimizer(SINGLE), "MultiOptimizer takes a list of optimizers, not ndarr"),
    (lambda: OPTIM.multi_step(0.1, SINGLE), "after must be step numbers"),
    (lambda: OPTIM.Muon(OWN(), coefficients=SINGLE), "coefficients must be three numbers"),
    (lambda: ANY.concat(SINGLE), "concat takes a list of tensors, not ndarray without axes"),
    (lambda: ANY.stack(SINGLE), "stack takes a list of tensors, not ndarray without axes"),
    (lambda: ANY.split(X, SINGLE), "split: parts must be a whole number, not array"),
    (lambda: ANY.Parameters(SINGLE), "Parameters: named must be a dict of parameters, not ndarray"),
    (lambda: LAYER.ModuleList(SINGLE), "ModuleList takes a list of modules, not ndarray"),
    (
        lambda: TRAIN.DataLoader(SINGLE, 2),
        "a dataset needs .* which ndarray lacks",
    ),
    (
        lambda: TRAIN.Subset(SINGLE, [0]),
        "dataset must have .* unlike ndarray",
    ),
    (lambda: TRAIN.random_split(TEN, SINGLE), "parts must be a list of fractions or lengths"),
    (
        lambda: LAYER.checkpoint(LAYER.ReLU(), X, generators=SINGLE),
        "generators must be a list, not ndarray without axes",
    ),
    # What follows in a call, and what is used up
    (lambda: ANY.einsum("ab->ba", None), "einsum: operands must be a tensor, not None"),
    (lambda: ANY.einsum("a->a", MANY), "einsum: operands must be a tensor, not ndarray"),
    (lambda: LAYER.checkpoint(LAYER.ReLU(), None), "checkpoint: inputs must be a tensor, not None"),
    (lambda: LAYER.checkpoint(LAYER.ReLU(), X, generators=[1]), "generators must be Generators"),
    (
        lambda: ANY.avg_pool(PICTURE, (i for i in [1])),
        "kernel must be .*, not generator",
    ),
    (lambda: ANY.elementwise(None), "elementwise: function must be a function, not None"),
    (
        lambda: OPTIM.FusedOptimizer(OWN(), None),
        "rule must be a function, not None",
    ),
    (lambda: LAYER.Upsample({2, 3}), "Upsample: size must be whole numbers, not set"),
    (lambda: ANY.interpolate(PICTURE, {2, 3}), "interpolate: size must be whole numbers, not set"),
    # A set, whose order is its own
    (lambda: ANY.zeros({2, 3}), "zeros: shape must be .*whole number.*, not set"),
    (lambda: ANY.ones((6,)).reshape({3, 2}), "reshape: a length must be a whole number"),
    (lambda: X.permute({1, 0}), "permute: an axis must be a whole number"),
    (lambda: ANY.max_pool(PICTURE, {3, 2}), "kernel must be whole numbers, not set"),
    (lambda: LAYER.Conv2d(1, 1, {3, 2}), "Conv2d: kernel must be whole numbers, not set"),
    (lambda: LAYER.LayerNorm({3, 2}), "normalized_shape must be whole numbers, not set"),
    (lambda: LAYER.AdaptiveAvgPool2d({3, 2}), "AdaptiveAvgPool2d: size must be .*, not set"),
    (lambda: ANY.split(X, {1, 2}, 1), "split: parts must be .*whole number"),
    (lambda: ANY.concat({X, X + 1}), "concat takes a list of tensors, not set"),
    (lambda: OPTIM.SGD(set(OWN()), 0.1), "an optimizer takes parameters, not set: pass a sequence"),
    (lambda: TRAIN.ImageFolder("folder", size=("1", 2)), "size must be a whole number, not '1'"),
    (lambda: TRAIN.ImageFolder("folder", size=(1,)), r"size must be \(height, width\), not \(1,\)"),
]
VALUES: Final[list[tuple[Callable[[], object], str]]] = [
    (lambda: DRAW.uniform((2,), 2.0, 1.0), "low must be at most high, not 2.0 and 1.0"),
    (
        lambda: ANY.scaled_dot_product_attention(X, X, X, scale=np.nan),
        "scale must be finite, not n",
    ),
    (lambda: ANY.arange(0, 10, 0), "arange: step must not be 0"),
    (lambda: DRAW.normal((2,), std=-1.0), "Generator.normal: std must be at least 0, not -1.0"),
    (lambda: DRAW.normal((2,), np.nan), "Generator.normal: mean must be finite, not nan"),
    (lambda: DRAW.uniform((2,), 0.0, np.inf), "Generator.uniform: high must be finite, not inf"),
    (lambda: DRAW.truncated_normal((2,), low=np.nan), "truncated_normal: low is NaN"),
    (lambda: DRAW.permutation(-1), "permutation: count must be at least 0, not -1"),
    (lambda: ANY.ones((2, -1)), r"full: the shape \(2, -1\) has a negative length"),
    (lambda: ANY.cross_entropy(X, tensor([0, 1]), 1.5), r"label_smoothing must be in \[0, 1\]"),
    (lambda: LAYER.Upsample(2, mode="cubic"), "Upsample: mode must be 'nearest', 'linear'"),
    (
        lambda: OPTIM.load_torch_state(SGD, {}, ["w"], hyper="our"),
        "hyper must be 'same' or 'ours', not 'our'",
    ),
    (
        lambda: ANY.convolution(PICTURE, PICTURE[:, :, :2, :2], stride=10**30),
        "stride must fit 64 bits",
    ),
    (lambda: ANY.arange(10**30), "arange: start must fit 64 bits, not 1000"),
    (lambda: DRAW.permutation(10**30), r"permutation: count must be below 2\*\*32"),
    (lambda: LAYER.Upsample(-1), "Upsample: size must be positive and finite, not -1"),
    (lambda: LAYER.gaussian_nll_loss(X, X, X, eps=0.0), "eps must be finite and positive, not 0.0"),
    (lambda: TRAIN.Pad(length=-1), "length must be at least 0, not -1"),
    (lambda: TRAIN.random_split(TEN, [1.0], seed=-1), "random_split: seed must be at least 0"),
    (lambda: TRAIN.images.Normalize(np.nan), "Normalize: mean must be finite, not nan"),
    (lambda: TRAIN.images.Normalize(0.5, np.inf), "Normalize: std must be finite, not inf"),
    (
        lambda: LAYER.cross_entropy_loss(X, X * 3),
        r"target 3.0 at index \(0, 0\) is outside \[0, 1\]",
    ),
    (lambda: LAYER.cross_entropy_loss(X, X * np.nan), r"target nan at index \(0, 0\) is outside"),
    (
        lambda: LAYER.kl_div(X, X * 2),
        r"target 2.0 .* outside .*; give probabilities, or log_target=",
    ),
    (lambda: LAYER.sigmoid_focal_loss(X, -X), r"sigmoid_focal_loss: target -1.0 .* is outside"),
    (lambda: LAYER.dice_loss(X, X * 2), r"dice_loss: target 2.0 at index \(0, 0\) is outside"),
    (
        lambda: LAYER.dice_loss(X * 5, X),
        r"probability 5.0 .*; apply a sigmoid or a softmax to logi",
    ),
]


@pytest.mark.parametrize(("call", "message"), TYPES, ids=[message for _, message in TYPES])
def test_a_wrong_type_is_named(call: Callable[[], object], message: str) -> None:
    before = X.tolist(), DRAW.position
    with pytest.raises(TypeError, match=message):
        call()
    assert before == (X.tolist(), DRAW.position)


@pytest.mark.parametrize(("call", "message"), VALUES, ids=[message for _, message in VALUES])
def test_a_number_that_cannot_be_meant_is_refused(call: Callable[[], object], message: str) -> None:
    before = DRAW.position
    with pytest.raises(ValueError, match=message):
        call()
    assert before == DRAW.position


def test_a_shape_is_one_length_or_several() -> None:
    assert zeros(3).shape == (3,)
    assert ones(np.int64(2)).shape == (2,)  # type: ignore[call-overload, arg-type, unused-ignore]
    assert zeros([2, np.int32(0)]).shape == (2, 0)  # type: ignore[list-item]
    for draw in (DRAW.words, DRAW.uniform, DRAW.normal, DRAW.truncated_normal):
        assert draw(3).shape == (3,)
    assert DRAW.integers(0, 5, 3).shape == DRAW.keep(0.5, 3).shape == (3,)
    assert X.broadcast_to(np.array([4, 2, 3])).shape == (4, 2, 3)


def test_what_is_a_number_stays_one() -> None:
    assert nn.Dropout(np.float32(0.25)).p == 0.25  # type: ignore[arg-type]
    assert nn.Linear(np.int64(2), 3).inputs == 2  # type: ignore[arg-type]
    assert nn.Conv2d(1, 2, np.array([3, 1])).kernel == (3, 1)  # type: ignore[arg-type]
    assert tensor([True, False], dtype=int32).tolist() == [1, 0]
    assert tensor([], dtype=int32).shape == (0,)


def test_a_mixture_of_probabilities_may_be_rounded() -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    mixed = tensor([[above, 0, 0], [0, above, 0]])
    assert nn.cross_entropy_loss(X, mixed).item() == pytest.approx(np.log(3), rel=1e-6)


def test_a_truth_value_is_an_element_of_truth_values() -> None:
    assert ANY.full((2,), True, dtype=np.bool_).tolist() == [True, True]
    mask = tensor([True])
    assert ANY.pad(mask, [(1, 0)], True).tolist() == [True, True]
    assert ANY.where(mask, True, False).tolist() == [True]
    assert ANY.where(mask, True, mask).tolist() == [True]
    assert X.sum(0, True).shape == (1, 3)
    assert LAYER.LayerNorm(np.array([2, 3])).normalized_shape == (2, 3)


def test_sequences_may_be_generators_and_numbers_of_numpy() -> None:
    assert ANY.stack(x for x in (X, X)).shape == (2, 2, 3)
    assert ANY.concat(x for x in (X, X)).shape == (4, 3)
    assert [part.shape for part in ANY.split(X, np.int64(2))] == [(1, 3), (1, 3)]


def test_what_is_refused_has_written_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a number taken for the descriptor of an open file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held").write_text("kept")
    held = os.open(tmp_path / "held", os.O_RDWR)
    try:
        for call in (
            lambda: LINEAR.save_file(held),
            lambda: OPTIM.save_state(SGD, held),
            lambda: TRAINER.fit([X], abs, epochs=1, checkpoints=held),
            lambda: TRAINER.fit([X], abs, epochs=1, checkpoints="made", resume=held),
            lambda: TRAIN.RunFolder(held),
            lambda: [*TRAIN.read_metrics(held)],
        ):
            with pytest.raises(TypeError):
                call()
    finally:
        os.close(held)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("held", "kept")]


def test_truth_values_that_mean_something() -> None:
    mask = tensor([True, False])
    assert where(mask, True, False).tolist() == [True, False]
    assert (mask & True).tolist() == [True, False]
    assert mask.maximum(True).tolist() == mask.clone().assign(True).tolist() == [True, True]
    assert tensor([2.0, -1.0]).maximum(mask).tolist() == [2.0, 0.0]
    assert tensor([0.0, 0.0]).assign(mask).tolist() == [1.0, 0.0]
    weighted = nn.mse_loss(tensor([1.0, 2.0]), [0.0, 0.0], sample_weight=[True, False])
    assert weighted.item() == 1.0
    limit: Any = np.float32(2)
    assert tensor([1.0, 3.0]).clip(high=limit).tolist() == [1.0, 2.0]


def test_paths_may_be_of_any_kind(tmp_path: Path) -> None:
    class Named:
        def __fspath__(self) -> str:
            return str(tmp_path / "a.safetensors")

    model = nn.Linear(2, 2)
    model.save_file(Named())
    assert model.load_file(str(tmp_path / "a.safetensors")).fits
    assert model.load_file(tmp_path / "a.safetensors").fits


def test_batches_may_come_from_anything_that_is_iterable() -> None:
    class Loader:
        def __iter__(self) -> Any:
            yield (np.ones((2, 2), np.float32),)

    for loader in (Loader(), [(np.ones((2, 2), np.float32),)], iter([(np.ones((2, 2)),)])):
        assert train.predict(LINEAR, loader).shape == (2, 2)


def test_a_call_that_is_refused_keeps_nothing_alive() -> None:
    """An optimizer that a failed call was given gives way to the next, without the collector."""
    weight = Parameter([1.0], name="w")
    gc.collect()
    gc.disable()
    try:
        for wrong in ({"state": "model"}, {"captures": 3}):
            with pytest.raises(TypeError):
                ANY_TRAINER(optim.SGD([weight], 0.1), **wrong)
        weight_is_free = optim.SGD([weight], 0.1)
    finally:
        gc.enable()
    assert list(weight_is_free.parameters) == [weight]


def test_an_error_of_a_loss_is_not_blamed_on_a_large_number() -> None:
    weight = Parameter([1.0], name="w")

    def loss(x: Any) -> Any:
        raise LookupError("of the program")

    for limit in ("steps", "epochs"):
        optimizer = optim.SGD([weight], 0.1)
        options: Any = {limit: 10**20}
        with pytest.raises(LookupError, match="of the program"):
            train.Trainer(optimizer).fit([np.ones(1, np.float32)], loss, progress=None, **options)
        optimizer.release()
