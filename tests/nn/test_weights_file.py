"""Weights files: what is read, what is refused, and that nothing was written in that case."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rumus import nn
from rumus.nn import WeightsFileError, read_weights
from rumus.tensor import Backend, Generator, Tensor, linear


def model(seed: int = 0) -> nn.Sequential:
    random = Generator(seed)
    return nn.Sequential(
        nn.Linear(4, 3, generator=random), nn.BatchNorm1d(3), nn.Linear(3, 2, generator=random)
    )


def state(seed: int = 1) -> dict[str, NDArray[Any]]:
    return model(seed).state_dict()


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def sharded(folder: Path, arrays: dict[str, NDArray[Any]], count: int = 2) -> Path:
    """Write arrays as shards with an index; return the index."""
    names = sorted(arrays)
    files = {n: f"model-{i % count + 1:05}-of-{count:05}.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        save_file({n: arrays[n] for n in names if files[n] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


def test_a_file_has_the_plain_names_and_comes_back(backend: Backend, tmp_path: Path) -> None:
    first, second = model().to(backend), model(1).to(backend)
    first.save_file(tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() == first.state_dict().keys()
    report = second.load_file(tmp_path / "m.safetensors")
    assert report.fits
    assert set(report.loaded) == set(found)
    assert {n: a.tobytes() for n, a in second.state_dict().items()} == {
        n: a.tobytes() for n, a in first.state_dict().items()
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_files_become_the_model_s_dtype(dtype: type, tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {name: array.astype(dtype) for name, array in state().items()}
    save_file(arrays, tmp_path / "m.safetensors")
    target = model()
    target.load_file(tmp_path / "m.safetensors")
    for name, array in target.state_dict().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name].astype(np.float32))


@given(
    st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=9),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path, words: list[int]) -> None:
    data = np.array(words, "<u2").tobytes()
    header = {"w": {"dtype": "BF16", "shape": [len(words)], "data_offsets": [0, len(data)]}}
    found = read_weights(raw(tmp_path / "m.safetensors", header, data))["w"]
    assert found.dtype == np.float32
    assert [int(bits) >> 16 for bits in found.view(np.uint32)] == words


@pytest.mark.parametrize("as_folder", [True, False])
def test_shards(as_folder: bool, tmp_path: Path) -> None:
    arrays = state()
    index = sharded(tmp_path, arrays)
    assert read_weights(index).keys() == arrays.keys()
    target = model()
    assert target.load_file(tmp_path if as_folder else index).fits
    for name, array in target.state_dict().items():
        np.testing.assert_array_equal(array, arrays[name])


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match="no safetensors file"):
        read_weights(tmp_path)
    save_file(state(), tmp_path / "b.safetensors")
    assert read_weights(tmp_path).keys() == state().keys()
    save_file({"w": np.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsFileError, match=r"a.safetensors, b.safetensors: name the file"):
        read_weights(tmp_path)
    save_file({"w": np.ones(1)}, tmp_path / "model.safetensors")
    assert set(read_weights(tmp_path)) == {"w"}


def refused(path: Path, match: str) -> None:
    target = model()
    before = {name: array.tobytes() for name, array in target.state_dict().items()}
    with pytest.raises(WeightsFileError, match=match):
        target.load_file(path)
    assert {name: array.tobytes() for name, array in target.state_dict().items()} == before


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    index = sharded(tmp_path, state())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refused(index, r"names model-00002-of-00002.safetensors for \d tensors, but does not exist")


def test_a_shard_that_the_index_leaves_out(tmp_path: Path) -> None:
    index = sharded(tmp_path, state())
    table = json.loads(index.read_text())
    kept = {n: f for n, f in table["weight_map"].items() if "00001" in f}
    index.write_text(json.dumps({"weight_map": kept}))
    refused(index, "names 1 of 2 shards; 2 is missing")


def test_inconsistent_indices(tmp_path: Path) -> None:
    index = sharded(tmp_path, state())
    table = json.loads(index.read_text())["weight_map"]
    one, two = sorted(set(table.values()))
    index.write_text(json.dumps({"weight_map": {**table, "more": one}}))
    refused(index, "says that 'more' is in model-00001-of-00002.safetensors, which lacks it")
    index.write_text(json.dumps({"weight_map": {n: f for n, f in table.items() if n != "0.bias"}}))
    refused(index, "'0.bias' of model-0000.-of-00002.safetensors is not in the index")
    save_file({**load_file(tmp_path / one), **load_file(tmp_path / two)}, tmp_path / two)
    index.write_text(json.dumps({"weight_map": table}))
    refused(index, f"is in {one} and in {two}")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "3", "{}", '{"weight_map": 3}',
     '{"weight_map": {}}', '{"weight_map": {"w": 3}}',
     '{"weight_map": {"w": "../other.safetensors"}}', '{"weight_map": {"w": "/etc/passwd"}}',
     '{"weight_map": {"w": "a", "w": "b"}}', "[" * 100_000],
)  # fmt: skip
def test_files_that_are_not_an_index(text: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    refused(index, "is not a weights index")


def test_two_tensors_of_one_name_in_a_file(tmp_path: Path) -> None:
    entry = b'{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    header = b'{"w":' + entry % (0, 4) + b',"w":' + entry % (4, 8) + b"}"
    refused(raw(tmp_path / "m.safetensors", header, bytes(8)), "cannot be read as safetensors")


def test_a_dtype_that_nothing_here_holds(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    path = raw(tmp_path / "m.safetensors", header, bytes(4))
    assert read_weights(path).shapes == {"w": (4,)}
    with pytest.raises(WeightsFileError, match="tensor 'w' is F8_E4M3, which no tensor here"):
        read_weights(path)["w"]
    report = model().load_weights(
        {**read_dict(path), **state()}, rename=lambda n: None if n == "w" else n
    )
    assert report.fits


def test_a_dtype_that_nothing_here_holds_in_a_model(tmp_path: Path) -> None:
    header = {"0.bias": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}}
    refused(raw(tmp_path / "m.safetensors", header, bytes(3)), "tensor '0.bias' is F8_E4M3")


def read_dict(path: Path) -> dict[str, Any]:
    return {name: np.zeros(4) for name in read_weights(path)}


def test_an_archive_of_arrays_is_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, weight=np.ones(3))
    refused(path, r"looks like \.npz: save its arrays with safetensors\.numpy\.save_file")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    for start in (b"PK\x03\x04", b"\x80\x02"):
        path = tmp_path / "pytorch_model.bin"
        path.write_bytes(start + bytes(100))
        refused(path, "looks like a pickle, .* save it with safetensors.torch.save_file")


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes it"),
        (b"GGUF", "GGUF: take the safetensors files"),
        (b"<!DOCTYPE html>", "a web page: download"),
    ],
)
def test_files_of_other_kinds_are_named(start: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(start + bytes(100))
    refused(path, f"looks like .*{told}")


@pytest.mark.parametrize("shape", [[1] * 100 + [4], [0, 2**62, 2**62]])
def test_shapes_that_numpy_lacks(shape: list[int], tmp_path: Path) -> None:
    size = 0 if 0 in shape else 16
    header = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
    path = raw(tmp_path / "m.safetensors", header, bytes(size))
    with pytest.raises(WeightsFileError, match=r"m\.safetensors: tensor 'w': "):
        read_weights(path)["w"]


def test_files_cut_off_anywhere(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "good.safetensors")
    data = (tmp_path / "good.safetensors").read_bytes()
    for length in [*range(0, 20), *range(20, len(data), 37), len(data) - 1]:
        (tmp_path / "bad.safetensors").write_bytes(data[:length])
        refused(tmp_path / "bad.safetensors", "cannot be read as safetensors")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.safetensors")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.safetensors")
        with pytest.raises(OSError, match="not a regular file"):
            read_weights(tmp_path / "pipe.safetensors")


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(state(), path)
    weights = read_weights(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsFileError, match="ended within tensor"):
        list(weights.values())


# What fits a model


class Tied(nn.Module):
    def __init__(self) -> None:
        self.table = nn.Embedding(5, 3, generator=Generator(0))
        self.scores = nn.Linear(3, 5, bias=False, generator=Generator(0))
        self.scores.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.table(x), self.scores.weight)


@pytest.mark.parametrize("names", [["table"], ["scores"], ["table", "scores"]])
def test_either_name_of_a_tie(names: list[str]) -> None:
    array = np.arange(15, dtype=np.float32).reshape(5, 3)
    for load in (Tied.load_state_dict, Tied.load_weights):
        target = Tied()
        load(target, {f"{name}.weight": array for name in names})
        np.testing.assert_array_equal(target.table.weight.numpy(), array)
        assert target.scores.weight is target.table.weight


def test_tied_names_with_different_numbers() -> None:
    arrays = {"table.weight": np.zeros((5, 3)), "scores.weight": np.ones((5, 3))}
    with pytest.raises(ValueError, match=r"two tensors for it, table.weight and scores.weight"):
        Tied().load_weights(arrays, strict=False)
    halved = {name: array.astype(np.float32) for name, array in arrays.items()}
    with pytest.raises(ValueError, match=r"scores.weight: is tied to another name here"):
        Tied().load_state_dict(halved)


def test_two_names_that_are_mapped_to_one() -> None:
    arrays = {**state(), "other": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"2.bias: the file has two tensors for it, 2.bias and ot"):
        model().load_weights(arrays, rename=lambda n: "2.bias" if n == "other" else n, strict=False)


def test_long_names_do_not_make_the_message_long() -> None:
    arrays = {f"{n}{'a' * 1_000_000}": np.ones(2, np.float32) for n in range(20)}
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        model().load_weights(arrays)
    assert len(str(caught.value)) < 5000


def test_misfits_are_returned_as_a_value() -> None:
    arrays = state()
    del arrays["0.bias"]
    arrays["2.weight"] = np.zeros((7, 3), np.float32)
    arrays["head.weight"] = np.zeros(3, np.float32)
    target = model()
    before = target.state_dict()
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        target.load_weights(arrays)
    for line in ("0.bias: missing", "head.weight: unexpected",
                 "2.weight: shape (7, 3) in the file, expected (2, 3)"):  # fmt: skip
        assert line in str(caught.value)
    assert all((a == before[n]).all() for n, a in target.state_dict().items())
    report = target.load_weights(arrays, strict=False)
    assert report.missing == ("0.bias",)
    assert report.unexpected == ("head.weight",)
    assert report.wrong_shapes == (nn.WrongShape("2.weight", (7, 3), (2, 3)),)
    assert not report.fits
    found = target.state_dict()
    np.testing.assert_array_equal(found["0.weight"], arrays["0.weight"])
    np.testing.assert_array_equal(found["2.weight"], before["2.weight"])


def test_no_matching_name_is_an_error_even_if_not_strict() -> None:
    arrays = {f"module.{name}": array for name, array in state().items()}
    with pytest.raises(
        ValueError, match=r"no name matches: use rename= to map .*'module.0.weight'"
    ):
        model().load_weights(arrays, strict=False)
    assert model().load_weights(arrays, rename=lambda n: n.removeprefix("module.")).fits


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3, np.int64), "int64 in the file, expected float32"),
        (np.ones(3, np.complex64), "complex64 in the file"),
        (np.full(3, 1e300), r"numbers up to 1e\+300 do not fit float32"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_numbers_that_have_no_place(array: NDArray[Any], message: str, strict: bool) -> None:
    with pytest.raises(ValueError, match=message):
        model().load_weights({**state(), "0.bias": array}, strict=strict)


def test_infinity_and_nan_are_numbers_like_others() -> None:
    array = np.array([np.inf, -np.inf, np.nan])
    target = model()
    target.load_weights({**state(), "0.bias": array})
    np.testing.assert_array_equal(target.state_dict()["0.bias"], array.astype(np.float32))


def test_the_counter_of_pytorch_s_batch_norms_is_taken() -> None:
    arrays = {**state(), "1.num_batches_tracked": np.array(7)}
    assert model().load_state_dict(arrays) is not None
    assert model().load_weights(arrays).fits
    with pytest.raises(ValueError, match=r"0.num_batches_tracked: unexpected"):
        model().load_state_dict({**state(), "0.num_batches_tracked": np.array(7)})


def test_the_counter_is_named_where_it_means_something() -> None:
    """Here the counter is `batches`, one per channel."""
    layer = nn.BatchNorm1d(3, momentum=None)
    arrays = {n: a for n, a in layer.state_dict().items() if n != "batches"}
    arrays["num_batches_tracked"] = np.array(7)
    with pytest.raises(ValueError, match=r"batches: missing\n  num_batches_tracked: unexpected"):
        layer.load_weights(arrays)
    count = np.full(3, 7)
    with pytest.raises(ValueError, match=r"int64 in the file, expected float32"):
        layer.load_weights({**arrays, "batches": count}, strict=False)
    layer.load_weights({**arrays, "batches": count.astype(np.float32)}, strict=False)
    assert layer.state_dict()["batches"].tolist() == [7, 7, 7]


# Name tables


def test_parts_are_joined_in_their_order() -> None:
    layer = nn.Linear(2, 6, generator=Generator(0))
    names = nn.names.Names(
        [nn.names.Row(f"{letter}_proj", "joint", at, 3) for at, letter in enumerate("qkv")]
    )
    model = nn.ModuleDict({"joint": layer})
    arrays = {
        f"{letter}_proj.{kind}": np.full((2, 2) if kind == "weight" else 2, at, np.float32)
        for at, letter in reversed(list(enumerate("qkv"))) for kind in ("weight", "bias")
    }  # fmt: skip
    assert model.load_weights(arrays, rename=names).fits
    assert layer.weight.numpy()[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    written = names.foreign(model.state_dict())
    assert written.keys() == arrays.keys()
    assert all((written[name] == array).all() for name, array in arrays.items())
    del arrays["k_proj.weight"]
    with pytest.raises(ValueError, match=r"joint.weight: needs 3 tensors; the file has only"):
        model.load_weights(arrays, rename=names)
    arrays["k_proj.weight"] = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match=r"tensors that cannot be joined: \(2, 2\), \(2, 5\)"):
        model.load_weights(arrays, rename=names)


def test_numbers_that_are_one_more() -> None:
    names = nn.names.Names([nn.names.Row("a{+}.{}", "b{}.{+}")])
    assert names("a3.4.weight") == nn.Place("b2.5.weight")
    assert set(names.foreign({"b2.5.weight": np.zeros(1)})) == {"a3.4.weight"}


@pytest.mark.parametrize("table", ["GPT2", "LLAMA", "RESNET"])
def test_a_table_leads_both_ways(table: str) -> None:
    names = getattr(nn.names, table)
    for row in names._rows:
        numbered = row.foreign.replace("{}", "3").replace("{+}", "3") + ".weight"
        place = names(numbered)
        assert isinstance(place, nn.Place)
        is_copy = row.foreign == "lm_head" and table == "GPT2"
        if row.of == 1 and not is_copy:
            back = names.foreign({place.name: np.zeros((1, 1), np.float32)})
            assert set(back) == {numbered}
