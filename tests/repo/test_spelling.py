"""Names and prose are spelled as in PyTorch, torchvision and NumPy: the American way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BRITISH = re.compile(
    r"behaviour|cancell(?:ed|ing)|centre|colour|favour|formulae|grey|honour|labelled|misspelt"
    r"|modelling|neighbour|spelt|spoilt|towards|travelled"
    r"|(?:anal|paral)ys(?:e|ing)|(?:custom|final|initial|maxim|minim|normal|optim|organ|quant|random"
    r"|recogn|regular|serial|standard|summar|synchron|token|vector)is(?:e|ing|ation)",
    re.IGNORECASE,
)
QUOTED = (  # titles, names of other libraries, and what users might type
    "Updating formulae and a pairwise algorithm", 'cmap="Greys"', '"Normalise": "', '"Colour": "',
    '"maximise", "maximize"', '"standardise", "standardize"', '"unlabeled", "unlabelled"',
)  # fmt: skip
PLACES = (
    "*.md", "docs/**/*.md", "docs/**/*.py", "packages/**/*.md", "packages/*/pyproject.toml",
    "packages/*/src/**/*.py", "shaders/*.wgsl", "tests/**/*.py",
)  # fmt: skip


def spellings(text: str) -> list[str]:
    """Return the British spellings of a text."""
    for quoted in QUOTED:
        text = text.replace(quoted, "")
    return BRITISH.findall(text)


@pytest.mark.parametrize("place", PLACES)
def test_spelling(place: str) -> None:
    files = sorted(path for path in ROOT.glob(place) if path != Path(__file__))
    assert files
    found = {path.relative_to(ROOT): spellings(path.read_text(encoding="utf-8")) for path in files}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize("word", ["colours", "is_centred", "Normalise", "vectorising", "modelling"])
def test_a_british_spelling_is_found(word: str) -> None:
    assert spellings(f"a {word} here")


@pytest.mark.parametrize(
    "word", ["precise", "promised", "labels", "elementwise", "exercising", "analysis", "raised"]
)
def test_another_word_is_not(word: str) -> None:
    assert not spellings(f"a {word} here")
