"""`Batches`: counts what a loader yields, and finds the place again on resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np

from rumus.tensor import Tensor
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.real_number import real_number
from rumus.tensor.expression.state_names import check_names
from rumus.tensor.memory.uninterrupted import putting_back
from rumus.train.base.calling import as_dict, call, values_of
from rumus.train.data.batch_trace import BatchTrace
from rumus.train.data.part import Part

_SINGLE: Final = (np.ndarray, Tensor, int, float, str, np.number)


def arguments(batch: Any) -> tuple[Any, ...]:
    """Return the arguments of a loss function: fields, or one dict. Raises TypeError otherwise."""
    if isinstance(batch, (tuple, list)):
        return tuple(batch)
    if isinstance(batch, Mapping):
        return (batch,)
    if isinstance(batch, _SINGLE):
        return (batch,)
    raise TypeError(
        f"a loader must yield tuples or dicts of arrays, or single arrays, not "
        f"{type(batch).__name__}; loss_fn is called with them"
    )


def samples(batch: tuple[Any, ...]) -> float:
    """Return the length of the first array's first axis, or 1."""
    return _samples_in(values_of(batch))


def _samples_in(values: Iterable[Any]) -> float:
    for value in values:
        shape = getattr(value, "shape", ())
        if shape:
            return float(shape[0])
    return 1.0


# Where an epoch is: its batches and samples, the checksum of these, and what rewinds the loader.
Bookmark: TypeAlias = tuple[int, float, int | None, Callable[[], None] | None]


def weight_from(weight_of: Callable[..., Any], batch: Sequence[Any]) -> float:
    """Return the weight that a function gives a batch. TypeError or ValueError if it has none."""
    found = call(weight_of, batch)
    if isinstance(found, Tensor) and not found.shape:
        found = float(found)
    weight = real_number("weight_of: what it returns for a batch", found)
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight_of must return a finite number, 0 or more, not {found!r}")
    return weight


def structure(batch: tuple[Any, ...]) -> tuple[tuple[str, str, int], ...]:
    """What all batches of a loader must share: types, dtypes and numbers of axes."""
    named = as_dict(batch)
    names = [""] * len(batch) if named is None else [f"{name}: " for name in named]
    return tuple(
        (
            f"{name}{type(value).__name__}",
            str(getattr(value, "dtype", "")),
            len(getattr(value, "shape", ())),
        )
        for name, value in zip(names, values_of(batch), strict=True)
    )


def check_loader(of: str, loader: object) -> None:
    """Raise TypeError for what yields no batches: a class, samples, an array or several, a model.

    of: what it was given to. A dataset, an array, a table and a tuple (x, y) can be iterated over,
    but a loop over them yields samples, names or fields, which would be taken for batches.
    """
    is_single = isinstance(loader, (str, bytes, Mapping)) or hasattr(loader, "__array__")
    is_fields = isinstance(loader, tuple) and all(hasattr(each, "__array__") for each in loader)
    if isinstance(loader, type):
        what = f"the class {loader.__name__}: make one, as DataLoader(dataset, batch_size)"
    elif is_fields and loader != ():
        what = "a tuple of arrays: use DataLoader(ArrayDataset(*arrays), batch_size)"
    elif is_single or hasattr(loader, "named_parameters"):
        what = f"{shown(loader)}: use DataLoader(ArrayDataset(x, y), batch_size)"
    elif hasattr(loader, "__iter__"):
        return
    elif hasattr(loader, "__getitem__") and hasattr(loader, "__len__"):
        what = f"the samples of {shown(loader)}: use DataLoader(dataset, batch_size)"
    else:
        what = shown(loader)
    raise TypeError(f"{of}: loader must be batches, not {what}") from None


@contextmanager
def whole_epoch(loader: Iterable[Any]) -> Iterator[None]:
    """Require a loader at the start of an epoch, and restore its position after the block.

    So what is measured over it is over all of its samples, however the block ends. ValueError for
    a loader in the middle of an epoch.
    """
    require_start(loader)
    is_stateful = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
    before = loader.state_dict() if is_stateful else None  # type: ignore[attr-defined]

    def put_back() -> None:
        if is_stateful:
            loader.load_state_dict(before)  # type: ignore[attr-defined]

    with putting_back(put_back):
        yield


def why_nothing(loader: Iterable[Any]) -> str:
    """Return why a loader yields nothing, for the end of a message, if it is known."""
    if iter(loader) is not loader:
        return ""
    return (
        ": it is an iterator, which can be used only once; give a list, or an object whose "
        "__iter__ starts over"
    )


def batches_of_epoch(loader: object) -> int:
    """How many batches of its epoch a loader has handed out, if it says so."""
    found = getattr(loader, "batch", 0)  # a method of a dataset
    return found if isinstance(found, int) else 0


def require_start(loader: object) -> None:
    """Raise ValueError for a loader in the middle of an epoch."""
    if batches_of_epoch(loader):
        raise ValueError(
            "the loader is in the middle of an epoch, so earlier samples would be missing: call "
            "loader.seek(loader.epoch), or use another loader"
        )


class Batches:
    """The batches of a loader, epoch by epoch.

    loader: anything that is iterated over once per epoch. With `state_dict` and `load_state_dict`
        it finds its own place on resume. Otherwise earlier batches are yielded again and skipped,
        so an epoch must repeat itself after a resume: `set_epoch(epoch)`, if it exists, is called
        before each epoch for that. A fingerprint of the batches is saved; a loader that yields
        others on resume raises.
    weight_of: returns the weight of a batch; by default its number of samples, counted over the
        global batch if the loader splits rows among ranks.
    """

    def __init__(
        self, loader: Iterable[Any], weight_of: Callable[..., float] | None = None
    ) -> None:
        self.loader = loader
        self.weight_of = weight_of
        self.batch = 0  # batches of this epoch yielded so far
        self.samples = 0.0
        self.per_epoch = _length(loader)  # batches per epoch, if the loader has a length
        self._is_split = getattr(loader, "ranks", None) is not None
        self._iterator: Iterator[Any] = iter(())
        self._structure: tuple[tuple[str, str, int], ...] | None = None
        self._kind: tuple[Any, ...] = ()
        self._trace: BatchTrace | None = None if self._is_stateful else BatchTrace()
        self._own_bookmark: Callable[[], Callable[[], None]] | None
        self._own_bookmark = getattr(loader, "_bookmark", None)
        self._saved_trace: int | None = None  # of the batches skipped on resume

    @property
    def is_complete(self) -> bool:
        """Whether as many batches were yielded as the loader's length."""
        return self.batch == self.per_epoch

    def open(self, epoch: int) -> None:
        """Begin an epoch, or continue in the middle of it."""
        set_epoch = getattr(self.loader, "set_epoch", None)
        if set_epoch is not None and not self._is_stateful:
            set_epoch(epoch)
        self.per_epoch = _length(self.loader)  # of this epoch
        if self._is_stateful:
            self._iterator = iter(self.loader)
            return
        self._iterator = iter(self.loader)
        self._trace, found = BatchTrace(), 0
        for batch in islice(self._iterator, self.batch):
            self._trace.add(arguments(batch))
            found += 1
        if found < self.batch:
            raise ValueError(
                f"epoch {epoch} had yielded {self.batch} batches when it was saved, but the "
                "loader has fewer now: it is a different loader, or its epochs differ"
            )
        if self.batch and self._saved_trace not in (None, self._trace.value):
            raise ValueError(
                f"epoch {epoch} continues after {self.batch} batches, but the loader starts it "
                "with other batches than when it was saved: give it state_dict and "
                "load_state_dict, or a set_epoch(epoch) that sets its random numbers, or resume "
                "from the end of an epoch"
            )
        self._saved_trace = None

    def next(self, epoch: int) -> tuple[tuple[Any, ...], float] | None:
        """Return a batch and its weight, or None at the end of the epoch.

        Raises ValueError for an epoch without batches, and for a batch unlike the previous ones.
        """
        for batch in self._iterator:
            given = batch if type(batch) is tuple else arguments(batch)
            named = as_dict(given)
            values = given if named is None else tuple(named.values())
            self._check(given, None if named is None else tuple(named), values, epoch)
            if self.batch == self.per_epoch:
                raise ValueError(f"the loader has len() {self.per_epoch} but yields more")
            if self.weight_of is None:
                part = self.part if self._is_split else None
                weight = _samples_in(values) if part is None else float(part.samples)
            else:
                weight = weight_from(self.weight_of, given)
            if self._trace is not None:
                self._trace.add_values(values)
            self.batch += 1
            self.samples += weight
            return given, weight
        if not self.batch:
            raise ValueError(
                f"the loader yields nothing in epoch {epoch}{why_nothing(self.loader)}"
            )
        return None

    def bookmark(self) -> Bookmark:
        """Return where this is in the epoch; asked for before each step, so it costs little."""
        trace, own = self._trace, self._own_bookmark
        return (
            self.batch,
            self.samples,
            None if trace is None else trace.value,
            None if own is None else own(),
        )

    def go_back(self, bookmark: Bookmark, *, is_cut: bool) -> bool:
        """Go back there in the same epoch; return whether the loader could.

        is_cut: whether the loader was interrupted, and may have moved without a batch.
        """
        batch, samples, trace, rewind = bookmark
        if self._is_stateful and (is_cut or self.batch != batch):
            if rewind is None:
                return False
            rewind()
        self.batch, self.samples = batch, samples
        self._trace = None if trace is None else BatchTrace(trace)
        return True

    @property
    def part(self) -> Part | None:
        """The rows of the global batch yielded last, if the loader splits it among ranks."""
        loader: Any = self.loader
        found: Part | None = loader.part if self._is_split else None
        return found

    def samples_from(self, first: int) -> Callable[[], tuple[int, ...]] | None:
        """Return a function that looks up sample indices of the batches from `first` on.

        It is None if the loader does not know them. Call it during their epoch.
        """
        loader: Any = self.loader
        samples_of = getattr(loader, "samples_of", None)
        if samples_of is None:
            return None
        epoch = loader.epoch - (loader.batch == 0)  # if the next batch belongs to the next epoch
        last = loader.batch or len(loader)
        numbers = range(last - (self.batch - first), last)  # a loop may begin mid-epoch
        return lambda: tuple(int(n) for batch in numbers for n in samples_of(epoch, batch))

    def end(self) -> None:
        """Restart the count."""
        self.batch, self.samples = 0, 0.0

    def close(self) -> None:
        """Release the loader in the middle of an epoch."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def _check(
        self,
        batch: tuple[Any, ...],
        names: tuple[Any, ...] | None,
        values: tuple[Any, ...],
        epoch: int,
    ) -> None:
        kind: tuple[Any, ...] = tuple(
            [(type(v), getattr(v, "dtype", None), getattr(v, "ndim", 0)) for v in values]
        )
        kind = kind if names is None else (names, kind)
        if kind == self._kind:
            return
        found = structure(batch)
        if self._structure is not None and found != self._structure:
            raise ValueError(
                f"batch {self.batch} of epoch {epoch} holds {_told(found)}; earlier ones held "
                f"{_told(self._structure)}"
            )
        self._kind, self._structure = kind, found

    @property
    def is_same_each_time(self) -> bool:
        """Whether the loader promises to yield the same batches after a resume."""
        return self._is_stateful or hasattr(self.loader, "set_epoch")

    @property
    def _is_stateful(self) -> bool:
        return hasattr(self.loader, "load_state_dict") and hasattr(self.loader, "state_dict")

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch and the loader's state."""
        loader = self.loader.state_dict() if self._is_stateful else None  # type: ignore[attr-defined]
        trace = None if self._trace is None else self._trace.value
        return {"batch": self.batch, "samples": self.samples, "loader": loader, "trace": trace}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved place. Raises ValueError for another kind of loader."""
        check_names(self, state, ("batch", "samples", "loader"), optional=("trace",))
        if (state["loader"] is not None) != self._is_stateful:
            ways = ("by its state_dict", "by counting")
            saved, here = ways if self._is_stateful is False else ways[::-1]
            raise ValueError(
                f"the loader's position was saved {saved}, but here it is found {here}"
            )
        batch, count = int(state["batch"]), float(state["samples"])
        if self._is_stateful:
            self.loader.load_state_dict(state["loader"])  # type: ignore[attr-defined]
        self.batch, self.samples = batch, count
        self._saved_trace = state.get("trace")


def _length(loader: object) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def _told(structure: tuple[tuple[str, str, int], ...]) -> str:
    parts = [
        f"{name} of {dtype} with {axes} axes" if dtype else name for name, dtype, axes in structure
    ]
    return ", ".join(parts) or "nothing"
