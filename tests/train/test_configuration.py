"""Configuration: dataclasses from TOML and the command line, and back."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.train import ConfigurationError, load_configuration, save_configuration
from rumus.train.base.configuration import configuration_table, configure
from rumus.train.base.toml_text import to_toml


class Norm(Enum):
    LAYER = "layer"
    RMS = "rms"


@dataclass(frozen=True)
class Block:
    width: int = 8
    norm: Norm = Norm.RMS


@dataclass(frozen=True)
class Optim:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    kind: Literal["adam", "sgd"] = "adam"
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, not {self.lr}")


@dataclass(frozen=True)
class Config:
    name: str = "run"
    data: Path = Path("digits.npy")
    deep: bool = False
    note: str | None = None
    sizes: list[int] = field(default_factory=lambda: [8, 8])
    labels: dict[str, int] = field(default_factory=dict)
    blocks: tuple[Block, ...] = (Block(),)
    optim: Optim = field(default_factory=Optim)


def load(*settings: str, toml: str | None = None, folder: Path | None = None) -> Config:
    file = None
    if toml is not None:
        assert folder is not None
        file = folder / "config.toml"
        file.write_text(toml)
    return load_configuration(Config, file, settings)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBERS = st.floats(1e-300, allow_infinity=True)
CONFIGS = st.builds(
    Config,
    name=TEXTS,
    data=TEXTS.map(Path),
    deep=st.booleans(),
    note=st.none() | TEXTS.filter(lambda text: text != "none"),
    sizes=st.lists(st.integers(), max_size=3),
    labels=st.dictionaries(TEXTS, st.integers(-9, 9), max_size=3),
    blocks=st.lists(st.builds(Block), max_size=2).map(tuple),
    optim=st.builds(
        Optim,
        lr=NUMBERS,
        betas=st.tuples(NUMBERS, NUMBERS),
        kind=st.sampled_from(["adam", "sgd"]),
        clip=st.none() | NUMBERS,
    ),
)


@given(CONFIGS)
def test_written_configurations_are_read_back(config: Config) -> None:
    assert configure(Config, tomllib.loads(to_toml(configuration_table(config)))) == config


TABLES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, TABLES, max_size=4))
def test_any_table_is_read_back(table: Mapping[str, Any]) -> None:
    assert tomllib.loads(to_toml(table)) == table


def test_values_that_toml_lacks() -> None:
    with pytest.raises(TypeError, match=r"a\.b: TOML has no NoneType"):
        to_toml({"a": {"b": None}})
    assert math.isnan(tomllib.loads(to_toml({"x": math.nan}))["x"])


def test_settings_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    text = 'name = "a"\nsizes = [1]\n[optim]\nlr = 1\nkind = "sgd"\n'
    config = load("optim.lr=3e-4", "sizes=[2, 3]", toml=text, folder=tmp_path)
    assert config == Config("a", sizes=[2, 3], optim=Optim(lr=3e-4, kind="sgd"))
    assert type(load("optim.lr=1").optim.lr) is float


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("name=5", "name", "5"),  # it must be text: it is what was typed
        ('name="5"', "name", "5"),
        ("name=a = b", "name", "a = b"),
        ("name=x\nsizes=[1]", "name", "x\nsizes=[1]"),  # no way to set another key
        ("name=", "name", ""),
        ("note=none", "note", None),
        ("data=a/b", "data", Path("a/b")),
        ("deep=true", "deep", True),
        ("labels={cat = 1}", "labels", {"cat": 1}),
        ("labels.cat=1", "labels", {"cat": 1}),
        ('blocks=[{width = 3, norm = "LAYER"}]', "blocks", (Block(3, Norm.LAYER),)),
    ],
)
def test_typed_text_is_read_according_to_its_annotation(
    setting: str, name: str, value: object
) -> None:
    assert getattr(load(setting), name) == value


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lrr=1", "optim.lrr is unknown; did you mean optim.lr?"),
        ("optm.lr=1", "optm is unknown; did you mean optim?"),
        ("xyz=1", "xyz is unknown; there is name, data, deep, note"),
        ("optim.lr=fast", "optim.lr must be a number, not 'fast'"),
        ("optim.lr=true", "optim.lr must be a number, not True"),
        ("optim.lr=-1", "optim: lr must be positive, not -1.0"),
        ("optim.kind=Adam", "optim.kind must be 'adam' or 'sgd', not 'Adam'"),
        ("optim.clip=no", "optim.clip must be a number or \"none\", not 'no'"),
        ("optim.betas=[0.9]", "optim.betas must be a list of 2 (a number, a number), not [0.9]"),
        ("deep=True", "deep must be true or false, not 'True'"),
        ("sizes=[1, 2.5]", "sizes must be a list (a whole number each), not [1, 2.5]"),
        ("labels.cat=x", "labels must be a table (a whole number each), not 'x'"),
        ("blocks=[{width = 1.5}]", "width must be a whole number, not 1.5"),
        ("blocks=[3]", "blocks must be a list (a table each), not [3]"),
        ("optim=3", "optim must be a table, not '3'"),
        ("name.first=x", "name must be text, not {'first'"),
        ("optim.lr", "a setting is written name=value, such as optim.lr=3e-4: 'optim.lr'"),
        ("optim..lr=1", "a setting is written name=value"),
    ],
)
def test_a_wrong_setting(setting: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(setting)
    assert message in str(raised.value)


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load("nme=1", toml="deep = 1\n[optim]\nlr = 'x'\n", folder=tmp_path)
    assert str(raised.value).splitlines()[1:] == [
        "  nme is unknown; did you mean name?",
        "  deep must be true or false, not 1",
        "  optim.lr must be a number, not 'x'",
    ]


@pytest.mark.parametrize(
    "content", [b"[optim", b"a = 1\na = 2", b"\xff = 1", b"a." * 20_000 + b"b = 1"]
)
def test_a_file_that_is_not_toml(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"c\.toml is not TOML"):
        load_configuration(Config, tmp_path / "c.toml")


def test_a_value_that_has_no_default() -> None:
    @dataclass
    class Needs:
        data: Path

    with pytest.raises(ConfigurationError, match="data is missing; expected a path"):
        load_configuration(Needs)
    assert load_configuration(Needs, settings=["data=x"]).data == Path("x")


def test_an_annotation_that_cannot_be_read() -> None:
    @dataclass
    class Odd:
        number: complex = 1j

    with pytest.raises(ConfigurationError, match=r"Odd\.number: a configuration cannot hold"):
        load_configuration(Odd)


def test_values_that_could_not_be_read_back_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="would not read back"):
        save_configuration(Config(note="none"), tmp_path / "c.toml")
    assert not (tmp_path / "c.toml").exists()
    save_configuration(Config(optim=Optim(clip=math.nan)), tmp_path / "c.toml")
    assert math.isnan(load_configuration(Config, tmp_path / "c.toml").optim.clip or 0)


@dataclass
class Rates:
    """Floats that programs often write as whole numbers."""

    decay: float = 0
    betas: tuple[float, float] = (0, 0.99)
    clips: dict[str, list[float]] = field(default_factory=lambda: {"a": [1]})


def test_whole_numbers_may_stand_for_floats_in_a_program(tmp_path: Path) -> None:
    save_configuration(Rates(), tmp_path / "c.toml")
    assert load_configuration(Rates, tmp_path / "c.toml") == Rates()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"decay": 2**60 + 1},
            "decay must be a number, not 1152921504606846977",
        ),
        ({"betas": [0.9, 0.99]}, r"betas is \[0\.9, 0\.99\], which .*, but as \(0\.9, 0\.99\)"),
    ],
)
def test_a_value_that_is_not_read_back_is_named(
    values: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        save_configuration(Rates(**values), tmp_path / "c.toml")
    assert not (tmp_path / "c.toml").exists()


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1e-400", "0.1e-999"])
def test_numbers_of_no_float_are_refused(text: str, tmp_path: Path) -> None:
    """They were infinite, or 0."""
    with pytest.raises(ConfigurationError, match=f"decay must be a number, not '{text}'"):
        load_configuration(Rates, settings=[f"decay={text}"])
    (tmp_path / "c.toml").write_text(f"decay = {text}\n")
    with pytest.raises(ConfigurationError, match=rf"c\.toml is not TOML: no float holds {text}"):
        load_configuration(Rates, tmp_path / "c.toml")
    for plain in ("inf", "-inf", "0e5", "-0.0", "0.0e-400"):
        assert load_configuration(Rates, settings=[f"decay={plain}"]).decay == float(plain)


def test_a_table_for_a_number_is_shown_as_typed() -> None:
    with pytest.raises(ConfigurationError, match=r"decay must be a number, not \{'x': '1'\}"):
        load_configuration(Rates, settings=["decay.x=1"])


@dataclass
class Texts:
    name: str = ""
    maybe: str | None = None
    path: Path = Path()
    kind: Literal["a", "b"] = "a"
    lr: float = 0.0


@pytest.mark.parametrize("name", ["name", "maybe", "path"])
@pytest.mark.parametrize("text", [" a", "a ", "\ta"])
def test_spaces_around_a_text_are_neither_dropped_nor_guessed(name: str, text: str) -> None:
    told = (
        rf"{name} must be .*, not .*, with spaces around it: leave them out, or write \"(.*)\" if"
    )
    with pytest.raises(ConfigurationError, match=told) as caught:
        load_configuration(Texts, settings=[f"{name}={text}"])
    quoted = str(caught.value).partition("write ")[2].partition(" if")[0]
    found = getattr(load_configuration(Texts, settings=[f"{name}={quoted}"]), name)
    assert found == type(found)(text)
    assert str(getattr(load_configuration(Texts, settings=[f"{name}=a"]), name)) == "a"


def test_spaces_around_other_values_mean_nothing() -> None:
    found = load_configuration(Texts, settings=["lr = 0.5", "kind = b", "maybe = none"])
    assert found == Texts(lr=0.5, kind="b")


@pytest.mark.parametrize("text", ["9007199254740993", "-9007199254740993", "1" + 30 * "0" + "1"])
def test_a_whole_number_that_no_float_is_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f"lr = {text}\n")
    for options in ({"settings": [f"lr={text}"]}, {"file": tmp_path / "c.toml"}):
        with pytest.raises(ConfigurationError, match=f"lr must be a number, not {text}"):
            load_configuration(Texts, **options)
    assert load_configuration(Texts, settings=[f"lr={text}.0"]).lr == float(text)
    assert load_configuration(Texts, settings=["lr=9007199254740992"]).lr == 2.0**53


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("\ufefflr = 0.5\n", encoding="utf-8")
    assert load_configuration(Texts, tmp_path / "c.toml").lr == 0.5


@dataclass
class Loose:
    text: str = ""
    counts: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize("wrong", [{"text": "\ud800"}, {"counts": {1: 2}}])
def test_what_no_file_can_hold_is_refused_before_it_is_written(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    with pytest.raises(ConfigurationError, match="no TOML file can hold the configuration"):
        save_configuration(Loose(**wrong), file)
    assert not [*tmp_path.iterdir()]
