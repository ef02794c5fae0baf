"""`Module`: a model is an object whose attributes are its parameters and its parts.

Nothing is registered: what a module holds is read from its attributes when it is asked for, so an
assignment is a declaration, and `__init__` needs no call to the base class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rumus.nn.fitting import LoadReport, Rename, fit
from rumus.nn.names import Names
from rumus.nn.other_names import LAYER, MODULE, STATE
from rumus.nn.side_effects import assigned, is_inner, outermost
from rumus.nn.state import OwnState
from rumus.nn.tree import describe
from rumus.nn.weights_file import read_weights, write_weights
from rumus.tensor import (
    Backend,
    Generator,
    Parameter,
    Parameters,
    Tensor,
    float16,
    gpu_backend,
    move_parameters,
)
from rumus.tensor.expression.arguments import check_arguments, checked_arguments
from rumus.tensor.graph.assignment import running_pass
from rumus.tensor.graph.evaluation import current_evaluation
from rumus.tensor.memory.recording import depends_on
from rumus.tensor.memory.uninterrupted import Uninterrupted

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")


class Forward(Protocol[P, R_co]):
    """Whatever has a `forward`: how a type checker knows what calling a module takes and gives."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute."""
        ...


class Module:
    """The base of every layer and model. Write `__init__` and `forward`; call the model.

    Its attributes say what it is made of: a `Parameter` is trained; a `Module` is a part; any other
    tensor without a graph is a buffer, which is saved and moved but not trained; a `Generator` is a
    source of random numbers. Several modules go into a `ModuleList`, a `ModuleDict` or a
    `Sequential`: a plain list or dict that holds modules or parameters is refused with a TypeError.

    What is reached by two ways (tied weights) is one thing: it appears once, under the first name.

    While the module trains, a buffer that `forward` assigns, `self.mean = 0.9 * self.mean + ...` in
    the same shape and dtype, belongs to the step: the pass sees the new value, which is written
    when the step counts, and once. A pass without a step leaves it. Whatever else `forward` changes
    (numbers, lists, dicts, NumPy arrays) it changes at once, and a SideEffectWarning says so. In
    evaluation an assignment is an assignment.

    >>> from rumus.nn import Linear, Module
    >>> from rumus.tensor import Generator, Tensor, zeros
    >>> class Classifier(Module):
    ...     def __init__(self, generator: Generator) -> None:
    ...         self.hidden = Linear(4, 8, generator=generator)
    ...         self.output = Linear(8, 3, generator=generator)
    ...
    ...     def forward(self, x: Tensor) -> Tensor:
    ...         return self.output(self.hidden(x).relu())
    >>> model = Classifier(Generator(0))
    >>> model(zeros((5, 4))).shape
    (5, 3)
    >>> model.parameters().names
    ('hidden.weight', 'hidden.bias', 'output.weight', 'output.bias')
    """

    @property
    def training(self) -> bool:
        """Whether it trains or evaluates, as `train()` and `eval()` say; at first it trains.

        Within a validation of `Trainer` every module evaluates, unless it is switched there.
        """
        evaluation = current_evaluation()
        if evaluation is not None:
            return evaluation.is_training(self)
        return bool(vars(self).get("training", True))

    @training.setter
    def training(self, mode: bool) -> None:
        evaluation = current_evaluation()
        if evaluation is not None:
            evaluation.set_training(self, mode)
        else:
            vars(self)["training"] = mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; each subclass writes its own. TypeError where it has none."""
        raise TypeError(f"{type(self).__name__} has no forward; write one, or call its parts")

    def __call__(self: Forward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call `forward`; a type checker sees the arguments and the result of the subclass's."""
        depends_on(self, "training")
        module: Any = self
        if is_inner(module):
            return _called(self, args, kwargs)
        return outermost(module, lambda: _called(self, args, kwargs))

    if not TYPE_CHECKING:  # for a type checker only what is declared may be set

        def __new__(cls, *args: object, **given: object) -> Self:  # noqa: D102
            if given and cls.__module__.startswith("rumus."):
                LAYER.check_keywords(given)
            check_arguments(cls, args, given)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            # A subclass's own name, and itself, so that Python can add which name is the nearest.
            MODULE.refuse(name, self)

        def __setattr__(self, name: str, value: object) -> None:
            is_plain = isinstance(value, (Tensor, np.ndarray)) and not isinstance(value, Parameter)
            if is_plain and isinstance(vars(self).get(name), Parameter):
                raise TypeError(
                    f"{type(self).__name__}.{name} is a parameter, which {type(value).__name__} "
                    f"would take out of training: write into it with {name}.assign(value), or set "
                    "a Parameter"
                )
            if running_pass() is not None:
                assigned(self, name, value)
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return describe(self)

    # What it is made of

    def named_members(self) -> Iterable[tuple[str, object]]:
        """Return what the module holds, by name: its attributes. Containers return their items."""
        return vars(self).items()

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over the parts, one level deep, with their names.

        TypeError for a plain list, tuple, set or dict that holds modules or parameters.
        """
        for name, value in self.named_members():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple, set, dict)):
                _refuse_hidden(self, name, value)

    def replace_child(self, name: str, module: Module) -> None:
        """Put another module in the place of a part, one level deep. KeyError if there is none.

        name: of the attribute, or the position in a container.
        module: what comes there.

        >>> from rumus.nn import Linear, Sequential
        >>> model = Sequential(Linear(2, 3), Linear(3, 1000))
        >>> model.replace_child("1", Linear(3, 10))
        >>> model[1].outputs
        10
        """
        if name not in dict(self.named_children()):
            raise KeyError(f"{type(self).__name__} has no part {name!r}")
        self._put_child(name, module)

    def _put_child(self, name: str, module: Module) -> None:
        """Put a part where one of this name is; containers have their own way."""
        setattr(self, name, module)

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Iterate over this module (named "") and everything below, each before its parts."""
        seen: set[int] = set()
        waiting: list[tuple[str, Module]] = [("", self)]
        while waiting:
            path, module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            below = [(join(path, name), child) for name, child in module.named_children()]
            waiting.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Iterate over this module and everything below."""
        return (module for _, module in self.named_modules())

    def _find(self, kind: type[V]) -> Iterator[tuple[str, V]]:
        """Every attribute of a type in the tree, each object once, under its first name."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in module.named_members():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield join(path, name), value

    def parameters(self) -> Parameters[Self]:
        """Return the parameters with their dotted paths, for an optimizer.

        Each parameter is named by its path, so that errors can say which it is. One that already
        bears a longer path ending in this one, from a larger model, keeps it.
        """
        found: Parameters[Self] = Parameters(self._find(Parameter))
        for path, parameter in found.items():
            if not parameter.name.endswith(f".{path}"):
                parameter.name = path
        return found

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Iterate over (dotted path, parameter)."""
        return self.parameters().items()

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over (dotted path, tensor) of what is state but not trained.

        A tensor that was computed from parameters (it requires a gradient) is no state.
        """
        for path, value in self._find(Tensor):
            if not isinstance(value, Parameter) and not value.requires_grad:
                yield path, value

    def buffers(self) -> Iterator[Tensor]:
        """Iterate over the buffers."""
        return (buffer for _, buffer in self.named_buffers())

    def named_generators(self) -> Iterator[tuple[str, Generator]]:
        """Iterate over (dotted path, generator): whose `state()` an exact resume has to save."""
        return self._find(Generator)

    # Saving

    def _state(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def _own_state(self) -> OwnState:
        tensors = self._state()
        first = {id(value): name for name, value in tensors.items()}
        aliases: dict[str, str] = {}
        ignored: set[str] = set()
        for path, module in _every_path(self):
            ignored.update(join(path, name) for name in module.ignored_state())
            for name, value in module.named_members():
                known = first.get(id(value))
                if known is not None and known != join(path, name):
                    aliases[join(path, name)] = known
        return OwnState(type(self).__name__, tensors, aliases, ignored - tensors.keys())

    def ignored_state(self) -> frozenset[str]:
        """Return names that other programs save with such a layer, and that mean nothing here."""
        return frozenset()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all parameters, then all buffers, by dotted path."""
        return {path: value.numpy() for path, value in self._state().items()}

    @STATE.as_keywords
    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> Self:
        """Copy arrays into the parameters and buffers, all of them or none.

        state: an array for each name of `state_dict()`, of the same shape and dtype. Either name of
        tied weights will do, and both if they have the same numbers. The counters of PyTorch's
        batch norms (`num_batches_tracked`) may be there.
        StateMismatchError lists every name that is missing or unexpected and every shape and dtype
        that differs; nothing was written then. `load_weights` takes what fits less closely.
        """
        own = self._own_state()
        own.assign({name: own.staged(name, a) for name, a in own.check(state).items()})
        return self

    @checked_arguments
    def load_weights(
        self,
        weights: Mapping[str, ArrayLike],
        *,
        rename: Rename | None = None,
        strict: bool = True,
    ) -> LoadReport:
        """Copy the weights of another program into the parameters and buffers.

        weights: arrays by name, or what NumPy makes arrays of, such as `model.state_dict()` of
            PyTorch on the CPU. Floating dtypes are converted to those of the model; tied weights
            may come under any of their names, or all.
        rename: from the name of a tensor there to that here, None for what is to be left out; a
            table of `nn.names`, such as `names.GPT2`, knows whole layouts.
        strict: False to load what fits, and learn from the result what did not: names that are
            missing or unexpected, and other shapes.

        StateMismatchError, and nothing was written, if strict and anything did not fit; and always
        for two different tensors for one name, for dtypes that do not convert, for numbers that
        overflow, and if no name fits at all.

        >>> from rumus.nn import Linear
        >>> report = Linear(2, 3).load_weights({"fc.bias": [1.0, 2.0, 3.0]}, strict=False,
        ...                                    rename=lambda name: name.removeprefix("fc."))
        >>> report.loaded, report.missing
        (('bias',), ('weight',))
        """
        own = self._own_state()
        found, report = fit(own, weights, rename, strict=strict)
        own.assign(found)
        return report

    @checked_arguments
    def load_file(
        self,
        path: str | os.PathLike[str],
        *,
        rename: Rename | None = None,
        strict: bool = True,
    ) -> LoadReport:
        """Load a safetensors file, the index of several, or a folder with either.

        path: see `read_weights`.
        rename, strict: see `load_weights`, as well as the result and the errors.

        WeightsFileError for a damaged or incomplete file, OSError if it cannot be read.

        >>> import tempfile
        >>> from rumus.nn import Linear
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Linear(3, 2).save_file(f"{folder}/linear.safetensors")
        ...     Linear(3, 2).load_file(f"{folder}/linear.safetensors").fits
        True
        """
        return self.load_weights(read_weights(path), rename=rename, strict=strict)

    def save_file(self, path: str | os.PathLike[str], *, rename: Names | None = None) -> None:
        """Write parameters and buffers to a safetensors file, under the names of `state_dict()`.

        path: is the old file or the new one, whatever happens.
        rename: a table of `nn.names`, for the names of another program.

        OSError if it cannot be written.
        """
        state = self.state_dict()
        write_weights(path, state if rename is None else rename.foreign(state))

    # Changing the whole tree

    @checked_arguments
    def train(self, mode: bool = True) -> Self:
        """Switch everything to training or evaluation, and return the module.

        mode: False for evaluation.
        """
        with Uninterrupted():
            for _, module in list(self.named_modules()):
                module.training = mode
        return self

    def eval(self) -> Self:
        """Switch everything to evaluation: dropout does nothing. Return the module."""
        return self.train(False)

    @checked_arguments
    def requires_grad_(self, flag: bool = True) -> Self:
        """Say for all parameters whether `backward` makes gradients for them.

        flag: False to freeze them.
        """
        with Uninterrupted():
            for parameter in self.parameters():
                parameter.requires_grad = flag
        return self

    def freeze(self) -> Self:
        """Take all parameters out of training; `requires_grad_()` takes them back in."""
        return self.requires_grad_(False)

    def to(self, backend: Backend) -> Self:
        """Move parameters and buffers in place, and return the module.

        What optimizers keep for the parameters moves along. A buffer becomes another tensor.

        backend: where to, such as `rumus.gpu.default_backend()` or `NumpyBackend()`.
        """
        if isinstance(backend, str):
            raise TypeError(
                f"to() takes a backend, not {backend!r}: to_gpu() moves to the GPU, and "
                "to(rumus.tensor.cpu()) to the CPU"
            )
        moved = {id(buffer): buffer.to(backend) for _, buffer in self.named_buffers()}
        with Uninterrupted():
            move_parameters(list(self.parameters()), backend)
            for _, module in list(self.named_modules()):
                for name, value in list(module.named_members()):
                    if id(value) in moved:
                        setattr(module, name, moved[id(value)])
        return self

    def to_dtype(self, dtype: DTypeLike) -> Self:
        """Convert all parameters to a floating dtype in place, and return the module.

        Buffers stay as they are: running statistics need their float32. float16 is for storage:
        layers compute with it in float32 and round what they return.

        dtype: float16, float32 or float64.

        OwnershipError, and nothing has changed, for a parameter that an optimizer owns: convert
        before it is made.

        >>> import numpy as np
        >>> from rumus.nn import Linear
        >>> from rumus.tensor import tensor
        >>> model = Linear(3, 2).to_dtype(np.float16)
        >>> model(tensor([[1.0, 2.0, 3.0]], dtype=np.float16)).dtype
        dtype('float16')
        """
        parameters = list(self.parameters())
        with Uninterrupted():
            for parameter in sorted(parameters, key=lambda p: p.owner is None):
                parameter.convert(dtype)  # those that are refused come first
        return self

    def half(self) -> Self:
        """Convert all parameters to float16; see `to_dtype`."""
        return self.to_dtype(float16)

    def to_gpu(self) -> Self:
        """Move to the GPU. ImportError says what to install where `rumus.gpu` is missing."""
        return self.to(gpu_backend())


def _called(module: Forward[P, R_co], args: Any, kwargs: Any) -> R_co:
    try:
        return module.forward(*args, **kwargs)
    except AttributeError as error:
        if isinstance(error.obj, np.ndarray):
            raise _met_an_array(type(module).__name__) from error
        raise


def _every_path(
    module: Module, path: str = "", above: tuple[Module, ...] = ()
) -> Iterator[tuple[str, Module]]:
    """Each module under each of its paths; one that holds itself is not entered again."""
    if any(module is outer for outer in above):
        return
    yield path, module
    for name, child in module.named_children():
        yield from _every_path(child, join(path, name), (*above, module))


def join(path: str, name: str) -> str:
    """Return the dotted path of what is called `name` in the module at `path`."""
    return f"{path}.{name}" if path else name


def runs(module: Module, forward: Callable[..., Any]) -> bool:
    """Whether calling a module runs this `forward`, and nothing of a subclass or of its own.

    Only then may it be computed together with others; else it is called like any module.
    """
    is_called = type(module).__call__ is Module.__call__
    return is_called and getattr(module.forward, "__func__", None) is forward


def _refuse_hidden(module: Module, name: str, held: Iterable[object]) -> None:
    """Raise TypeError if a plain container holds what would silently not be trained."""
    for item in held.values() if isinstance(held, dict) else held:
        if isinstance(item, (Module, Parameter)):
            what = "modules" if isinstance(item, Module) else "parameters"
            instead = "ModuleDict" if isinstance(held, dict) else "ModuleList or Sequential"
            raise TypeError(
                f"{type(module).__name__}.{name} is a {type(held).__name__} of {what}, which would "
                f"not be found; use a {instead}, or attributes of their own"
            )


def check_tensor(name: str, x: object) -> None:
    """Raise TypeError for a NumPy array, which a module that computes nothing would let through."""
    if isinstance(x, np.ndarray):
        raise _met_an_array(name)


def _met_an_array(name: str) -> TypeError:
    return TypeError(
        f"{name} computes with tensors and met a NumPy array: call it with tensor(x), of "
        "rumus.tensor"
    )
