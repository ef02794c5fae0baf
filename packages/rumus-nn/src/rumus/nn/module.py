"""`Module`: a model is an object whose attributes are its parameters and submodules.

Nothing is registered: a module's contents are read from its attributes on demand, so an assignment
is a declaration, and `__init__` need not call the base class.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType, FunctionType, MemberDescriptorType, NoneType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, ParamSpec, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rumus.nn.fitting import LoadReport, Rename, fit
from rumus.nn.names import Names
from rumus.nn.other_names import LAYER, MODULE, SETTING, STATE
from rumus.nn.setting import Settings, decided, own_names
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
from rumus.tensor.expression.arguments import (
    check_argument,
    check_arguments,
    check_call,
    checked_arguments,
    checked_first,
    constructor_names,
    is_told,
    place_arguments,
)
from rumus.tensor.expression.called_attribute import note_called_attribute
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.dtype import as_dtype
from rumus.tensor.expression.nearest_name import is_misspelled
from rumus.tensor.expression.of_class import of_class
from rumus.tensor.expression.other_names import is_of_method
from rumus.tensor.expression.user_warning import warn_user
from rumus.tensor.graph.assignment import running_pass
from rumus.tensor.graph.evaluation import current_evaluation
from rumus.tensor.graph.other_names import TO
from rumus.tensor.graph.shaping import require_backend
from rumus.tensor.memory.late_array import host_copy
from rumus.tensor.memory.recording import depends_on
from rumus.tensor.memory.uninterrupted import Uninterrupted

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")
_CONTAINERS: Final = (list, tuple, set, frozenset, dict, deque, SimpleNamespace)
_DEEPEST: Final = 4  # of containers in each other that are looked into
# To freeze, or to end a training, in other libraries.
_COMMANDS: Final = frozenset({"requires_grad", "trainable", "stop_training"})
_MOST: Final = 1000  # items of a container in a container that are looked at: data has more


class Forward(Protocol[P, R_co]):
    """Anything with a `forward`: gives type checkers the signature of a module's call."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute."""
        ...


class Module:
    """The base of every layer and model. Write `__init__` and `forward`; call the model.

    Its attributes are its contents: a `Parameter` is trained; a `Module` is a submodule; any other
    tensor without a graph is a buffer, which is saved and moved but not trained; a `Generator` is a
    source of random numbers. Several modules go into a `ModuleList`, a `ModuleDict` or a
    `Sequential`: a plain list or dict that holds modules or parameters raises a TypeError.

    An object reached by two paths (tied weights) appears once, under the first name.

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

    # What may be assigned to a layer after construction, with its check.
    _settings: ClassVar[Settings] = {}

    @property
    def _is_training(self) -> bool:
        evaluation = current_evaluation()
        if evaluation is not None:
            return evaluation.is_training(self)
        mode: bool = vars(self).get("training", True)
        return mode

    @property
    def training(self) -> bool:
        """Whether it is in training mode, set by `train()` and `eval()`; initially True.

        Setting it does as these do, with all modules within: `model.training = before`.

        During a validation of `Trainer` every module is in evaluation mode, unless switched there.
        """
        depends_on(self, "_is_training")
        return self._is_training

    @training.setter
    def training(self, mode: bool) -> None:
        if not isinstance(mode, (bool, np.bool_)):
            raise TypeError(f"training must be True or False, not {mode!r}")
        self._switch(bool(mode))

    def _switch(self, mode: bool) -> None:
        evaluation = current_evaluation()
        with Uninterrupted():
            for _, module in list(self.named_modules()):
                if evaluation is not None:
                    evaluation.set_training(module, mode)
                else:
                    vars(module)["training"] = mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's result; each subclass defines its own. TypeError if it has none."""
        raise TypeError(f"{type(self).__name__} has no forward; write one, or call its parts")

    def __call__(self: Forward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call `forward`; type checkers see the subclass's signature."""
        depends_on(self, "_is_training")
        module: Any = self
        if is_inner(module):
            return _called(self, args, kwargs)
        return outermost(module, lambda: _called(self, args, kwargs))

    if not TYPE_CHECKING:  # type checkers allow setting only what is declared

        def __init_subclass__(cls, **given: object) -> None:
            super().__init_subclass__(**given)
            place_arguments(cls)

        def __new__(cls, *args: object, **given: object) -> Self:  # noqa: D102
            if given and cls.__module__.startswith("rumus."):
                LAYER.check_keywords(given)
                if "dtype" in given:  # also of a layer that makes no parameters
                    as_dtype(given["dtype"])  # type: ignore[arg-type]
            check_arguments(cls, args, given)
            return super().__new__(cls)

        def __getattr__(self, name: str) -> NoReturn:
            # The subclass's name and the object, so that Python can suggest the nearest name.
            MODULE.refuse(name, self)

        def __setattr__(self, name: str, value: object) -> None:
            if name in type(self)._settings:
                check_argument(self, name, value)
                value = type(self)._settings[name](self, name, value)
            elif name in (own := vars(self)):
                _check_replaced(self, name, own[name], value)
            elif self._has_item(name):
                self.replace_child(name, value)
                return
            elif type(self).__module__.startswith("rumus."):
                _check_new(self, name, value)
            elif isinstance(value, bool) and is_misspelled(name, "training"):
                _tell_misspelled(self, name, "training")
            if name in _COMMANDS:
                _check_command(self, name)
            if running_pass() is not None:
                assigned(self, name, value)
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return describe(self)

    # What it is made of

    def named_members(self) -> Iterable[tuple[str, object]]:
        """Return the module's contents by name: its attributes. Containers return their items."""
        own = vars(self)
        kind: Any = type(self)
        if names := _slots(kind):
            own = {**{name: getattr(self, name) for name in names if hasattr(self, name)}, **own}
        return own.items()

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Iterate over the direct submodules, with their names.

        TypeError for a plain list, tuple, set or dict that holds modules or parameters.
        """
        for name, value in self.named_members():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, _CONTAINERS) or _is_of_objects(value):
                _refuse_hidden(self, name, value)

    @checked_arguments
    def replace_child(self, name: str, module: Module) -> None:
        """Replace a direct submodule. KeyError if there is none.

        name: of the attribute, or its position in a container.
        module: the replacement.

        >>> from rumus.nn import Linear, Sequential
        >>> model = Sequential(Linear(2, 3), Linear(3, 1000))
        >>> model.replace_child("1", Linear(3, 10))
        >>> model[1].outputs
        10
        """
        if not isinstance(module, Module):
            hint = " (make it first: ReLU() and not ReLU)" if isinstance(module, type) else ""
            raise TypeError(f"replace_child: module must be a Module, not {module!r}{hint}")
        if name not in dict(self.named_children()):
            raise KeyError(f"{type(self).__name__} has no part {name!r}")
        self._put_child(name, module)

    def _has_item(self, name: str) -> bool:
        """Whether it is a container with a submodule of this name that is no attribute."""
        return False

    def _put_child(self, name: str, module: Module) -> None:
        """Set the submodule of this name; containers override this."""
        setattr(self, name, module)

    @checked_arguments
    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Iterate over this module (named "") and all submodules, each before its own."""
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

    @checked_arguments
    def modules(self) -> Iterator[Module]:
        """Iterate over this module and all submodules."""
        return (module for _, module in self.named_modules())

    def _find(self, kind: type[V]) -> Iterator[tuple[str, V]]:
        """All attributes of a type in the tree, each object once, under its first name."""
        seen: set[int] = set()
        names: set[str] = set()
        for path, module in self.named_modules():
            for name, value in module.named_members():
                if isinstance(value, kind) and id(value) not in seen:
                    whole = join(path, name)
                    if whole in names:
                        raise ValueError(
                            f"two parts of {type(self).__name__} are called {whole!r}, and would "
                            "be saved as one: rename the one that has a dot in its name"
                        )
                    seen.add(id(value))
                    names.add(whole)
                    yield whole, value

    @checked_arguments
    def parameters(self) -> Parameters[Self]:
        """Return the parameters with their dotted paths, for an optimizer.

        Each parameter is named by its path, for error messages. One that already has a longer path
        ending in this one, from a larger model, keeps it.
        """
        found: Parameters[Self] = Parameters(self._find(Parameter))
        for path, parameter in found.items():
            if not parameter.name.endswith(f".{path}"):
                parameter.name = path
        return found

    @checked_arguments
    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Iterate over (dotted path, parameter)."""
        return self.parameters().items()

    @checked_arguments
    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over (dotted path, tensor) of the untrained state.

        A tensor computed from parameters (which requires a gradient) is not state.
        """
        for path, value in self._find(Tensor):
            if not isinstance(value, Parameter) and not value.requires_grad:
                yield path, value

    @checked_arguments
    def buffers(self) -> Iterator[Tensor]:
        """Iterate over the buffers."""
        return (buffer for _, buffer in self.named_buffers())

    @checked_arguments
    def named_generators(self) -> Iterator[tuple[str, Generator]]:
        """Iterate over (dotted path, generator), whose `state()` an exact resume must save."""
        return self._find(Generator)

    # Saving

    def _state(self) -> dict[str, Tensor]:
        # A class may override what these methods return, for an optimizer: all of it is saved.
        parameters, buffers = Module.parameters(self), Module.named_buffers(self)
        return {**dict(parameters.items()), **dict(buffers)}

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
        """Return names that other programs save with such a layer, and that are ignored here."""
        return frozenset()

    @checked_arguments
    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all parameters, then all buffers, by dotted path."""
        return {path: host_copy(v._array, v._backend) for path, v in self._state().items()}

    @STATE.as_keywords
    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> Self:
        """Copy arrays into the parameters and buffers, all or none.

        state: an array for each name of `state_dict()`, of the same shape and dtype. Tied weights
        may use either name, or both if their numbers are equal. The counters of PyTorch's batch
        norms (`num_batches_tracked`) are allowed. StateMismatchError lists all missing and
        unexpected names and all differing shapes and dtypes; nothing is written then.
        `load_weights` is less strict.
        """
        _check_mapping("load_state_dict", state)
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

        weights: arrays by name, or objects that NumPy converts, such as a `model.state_dict()` of
            PyTorch on the CPU. Floating dtypes are converted to the model's; tied weights may have
            any of their names, or all.
        rename: from the name of a tensor there to its name here, None to leave it out; a table from
            `nn.names`, such as `names.GPT2`, covers a whole layout.
        strict: False to load what fits and report the rest in the result: missing and unexpected
            names, and other shapes.

        StateMismatchError, with nothing written, if strict and anything does not fit; and always
        for two different tensors for one name, for dtypes that do not convert, for numbers that
        overflow, and if no name fits at all.

        >>> from rumus.nn import Linear
        >>> report = Linear(2, 3).load_weights({"fc.bias": [1.0, 2.0, 3.0]}, strict=False,
        ...                                    rename=lambda name: name.removeprefix("fc."))
        >>> report.loaded, report.missing
        (('bias',), ('weight',))
        """
        _check_mapping("load_weights", weights)
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
        rename, strict: see `load_weights`, also for the result and the errors.

        WeightsFileError for a damaged or incomplete file, OSError if it cannot be read.

        >>> import tempfile
        >>> from rumus.nn import Linear
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Linear(3, 2).save_file(f"{folder}/linear.safetensors")
        ...     Linear(3, 2).load_file(f"{folder}/linear.safetensors").fits
        True
        """
        return self.load_weights(read_weights(path), rename=rename, strict=strict)

    @checked_first
    def save_file(self, path: str | os.PathLike[str], *, rename: Names | None = None) -> None:
        """Write parameters and buffers to a safetensors file, under the names of `state_dict()`.

        path: replaced atomically.
        rename: a table from `nn.names`, for the names of another program.

        OSError if it cannot be written.
        """
        state = self.state_dict()
        write_weights(path, state if rename is None else rename.foreign(state))

    # Changing the whole tree

    @checked_arguments
    def train(self, mode: bool = True) -> Self:
        """Switch all modules to training or evaluation, and return this one.

        mode: False for evaluation.
        """
        self._switch(bool(mode))
        return self

    @checked_arguments
    def eval(self) -> Self:
        """Switch all modules to evaluation: dropout does nothing. Return this one."""
        return self.train(False)

    @checked_arguments
    def requires_grad_(self, flag: bool = True) -> Self:
        """Set for all parameters whether `backward` computes their gradients.

        flag: False to freeze them.
        """
        with Uninterrupted():
            for parameter in self.parameters():
                parameter.requires_grad = flag
        return self

    @checked_arguments
    def freeze(self) -> Self:
        """Stop training all parameters; `requires_grad_()` undoes it."""
        return self.requires_grad_(False)

    @TO.before_call
    def to(self, backend: Backend) -> Self:
        """Move parameters and buffers in place, and return the module.

        The parameters' optimizer state moves too. A buffer becomes a new tensor.

        backend: the destination, such as `rumus.gpu.default_backend()` or `NumpyBackend()`.
        """
        require_backend(backend)
        moved = {id(buffer): buffer.to(backend) for _, buffer in Module.named_buffers(self)}
        with Uninterrupted():
            move_parameters(list(Module.parameters(self)), backend)
            for _, module in list(self.named_modules()):
                for name, value in list(module.named_members()):
                    if id(value) in moved:
                        setattr(module, name, moved[id(value)])
        return self

    @checked_arguments
    def to_dtype(self, dtype: DTypeLike) -> Self:
        """Convert all parameters to a floating dtype in place, and return the module.

        Buffers are not converted: running statistics need float32. float16 is for storage: layers
        compute in float32 and round their results.

        dtype: float16, float32 or float64.

        OwnershipError, with nothing changed, for a parameter that an optimizer owns: convert before
        making the optimizer.

        >>> import numpy as np
        >>> from rumus.nn import Linear
        >>> from rumus.tensor import tensor
        >>> model = Linear(3, 2).to_dtype(np.float16)
        >>> model(tensor([[1.0, 2.0, 3.0]], dtype=np.float16)).dtype
        dtype('float16')
        """
        parameters, found = list(Module.parameters(self)), as_dtype(dtype)
        with Uninterrupted():
            for parameter in sorted(parameters, key=lambda p: p.owner is None):
                parameter.convert(found)  # raise before changing anything
        return self

    @checked_arguments
    def half(self) -> Self:
        """Convert all parameters to float16; see `to_dtype`."""
        return self.to_dtype(float16)

    @checked_arguments
    def to_gpu(self) -> Self:
        """Move to the GPU. ImportError says what to install if `rumus.gpu` is missing."""
        return self.to(gpu_backend())


def _check_mapping(of: str, given: object) -> None:
    """Raise TypeError for what has no arrays by name, such as a model or a path."""
    if not hasattr(given, "keys") or isinstance(given, type):
        instead = " (load_file reads files)" if isinstance(given, (str, os.PathLike)) else ""
        raise TypeError(
            f"{of} takes arrays by name, as of state_dict(), not {shown(given)}{instead}"
        )


def _check_replaced(module: Module, name: str, held: object, value: object) -> None:
    """Raise an error for a value that cannot take the place of what a module has.

    TypeError for one that would take a parameter or a module out of the model; AttributeError for
    what a layer of rumus has read when it was made, and reads no more.
    """
    kind = type(module).__name__
    if isinstance(held, Parameter) and not isinstance(value, (Parameter, Module, NoneType)):
        raise TypeError(
            f"{kind}.{name} is a parameter, which {type(value).__name__} would take out of "
            f"training: write into it with {name}.assign(value), or set a Parameter"
        )
    if isinstance(held, Module) and isinstance(value, (int, float, np.number, str)):
        what = "text" if isinstance(value, str) else "number"
        raise TypeError(
            f"{kind}.{name} is a module, {type(held).__name__}, and no {what}: "
            f"set an attribute of {name}, or another module"
        )
    if isinstance(held, Module) and isinstance(value, type) and issubclass(value, Module):
        raise TypeError(
            f"{kind}.{name} is a module, and {value.__name__} a class: make one, as "
            f"{value.__name__}(...)"
        )
    cls: Any = type(module)
    is_ours = cls.__module__.startswith("rumus.")
    if not is_ours or name.startswith("_") or isinstance(vars(Module).get(name), property):
        return
    if name not in own_names(cls):  # it is the user's
        return
    if isinstance(held, Tensor) and isinstance(value, Tensor) and value.shape != held.shape:
        raise ValueError(
            f"{kind}.{name} has the shape {held.shape}, decided when the layer is made, and not "
            f"{value.shape}: make another {kind}"
        )
    if isinstance(held, Tensor) and not isinstance(value, (Tensor, Module, NoneType)):
        raise TypeError(f"{kind}.{name} is a tensor, not {shown(value)}: set tensor(...) or None")
    if not isinstance(held, (Tensor, Module, NoneType)) and not callable(held):
        raise decided(module, name)
    if held is None and not isinstance(value, (Tensor, Module, NoneType)) and not callable(value):
        raise decided(module, name)


def _has_advice(cls: type, name: str) -> bool:
    """Whether another library's name has one here, and the class takes that."""
    advice = SETTING.rows.get(name)
    return advice is not None and (not advice.isidentifier() or advice in constructor_names(cls))


def _check_new(module: Module, name: str, value: object) -> None:
    """Raise AttributeError for an attribute that a layer of rumus would never read from users.

    That is an argument of its constructor, what another library calls an attribute, what its class
    says of all such layers, or anything but a function in place of a method. Others are the user's;
    a UserWarning tells of a number, text or parameter whose name is that of a setting or weight but
    for one letter.
    """
    cls: Any = type(module)
    if isinstance(getattr(cls, name, None), FunctionType) and not callable(value):
        raise AttributeError(
            f"{cls.__name__}.{name} is a method, not {shown(value)}", name=name, obj=module
        )
    is_argument = name in constructor_names(cls)
    is_of_class = isinstance(getattr(cls, name, None), (bool, int, str, tuple))
    is_taken = is_argument or _has_advice(cls, name)
    is_free = not is_of_class and (not is_taken or hasattr(cls, name))
    is_setting = isinstance(value, (bool, int, float, str, tuple, NoneType, Parameter))
    if is_free and (not is_setting or name.startswith("_") or hasattr(cls, name)):
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name == "__setattr__":
        frame = frame.f_back
    if frame is not None and frame.f_globals.get("__name__", "").startswith("rumus."):
        return
    if is_free:
        own = {"training", *(vars(module).keys() & own_names(cls)), *constructor_names(cls)}
        if meant := next((each for each in sorted(own) if is_misspelled(name, each)), None):
            _tell_misspelled(module, name, meant)
        return
    if is_of_class:
        raise decided(module, name)
    if not is_argument:
        SETTING.refuse(name, module)
    raise AttributeError(
        f"{cls.__name__!r} object has no attribute {name!r}: that is decided when it is made",
        name=name,
        obj=module,
    )


def _tell_misspelled(module: Module, name: str, meant: str) -> None:
    warn_user(f"{type(module).__name__} does not read {name!r}; did you mean {meant!r}?")


def _called(module: Forward[P, R_co], args: Any, kwargs: Any) -> R_co:
    try:
        return module.forward(*args, **kwargs)
    except (AttributeError, TypeError) as error:
        if _is_about_an_array(error):
            raise _met_an_array(type(module).__name__) from error
        if isinstance(error, TypeError) and not is_told(error):
            note_called_attribute(error)
            _check_forward(module, args, kwargs)
        raise


def _check_forward(module: Any, args: Any, kwargs: Any) -> None:
    """Raise a TypeError that names what a layer of rumus does not take."""
    if module.forward.__module__.startswith("rumus."):
        check_call(type(module).__name__, module.forward, args, kwargs)


def _is_about_an_array(error: BaseException | None) -> bool:
    """Whether a NumPy array lacks an attribute, perhaps said in other words since."""
    while error is not None:
        if isinstance(error, AttributeError) and isinstance(error.obj, np.ndarray):
            return True
        error = error.__context__
    return False


def _every_path(module: Module) -> Iterator[tuple[str, Module]]:
    """Each module under each of its paths; a cycle is not entered again."""
    above: set[int] = set()
    waiting: list[tuple[str, Module, bool]] = [("", module, False)]
    while waiting:
        path, part, is_done = waiting.pop()
        if is_done:
            above.remove(id(part))
        elif id(part) not in above:
            yield path, part
            above.add(id(part))
            waiting.append((path, part, True))
            below = [(join(path, name), child, False) for name, child in part.named_children()]
            waiting.extend(reversed(below))


def join(path: str, name: str) -> str:
    """Return the dotted path of `name` in the module at `path`."""
    return f"{path}.{name}" if path else name


def runs(module: Module, forward: Callable[..., Any]) -> bool:
    """Whether calling a module runs exactly this `forward`, without overrides.

    Only then may it be fused with others; otherwise it is called like any module.
    """
    is_called = type(module).__call__ is Module.__call__
    return is_called and getattr(module.forward, "__func__", None) is forward


def _refuse_hidden(module: Module, name: str, held: Any) -> None:
    """Raise TypeError if a plain container holds modules or parameters: they would go untrained."""
    waiting = [(held, item, 1) for item in _items(held)]
    while waiting:
        within, item, depth = waiting.pop()
        if isinstance(item, (Module, Parameter)):
            what = "modules" if isinstance(item, Module) else "parameters"
            where = "" if within is held else f" in a {type(within).__name__}"
            instead = "ModuleList or Sequential"
            if isinstance(held, (dict, SimpleNamespace)):
                instead = "ModuleDict"
            raise TypeError(
                f"{type(module).__name__}.{name} is a {type(held).__name__} of {what}{where}, "
                f"which would not be found; use a {instead}, or attributes of their own"
            )
        is_nested = isinstance(item, _CONTAINERS) or _is_of_objects(item)
        if is_nested and depth < _DEEPEST:
            inside = list(_items(item))
            waiting += [(item, each, depth + 1) for each in inside if len(inside) <= _MOST]


def _is_of_objects(value: object) -> bool:
    """Whether it is a NumPy array of Python objects."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


def _items(held: Any) -> Iterable[object]:
    if isinstance(held, SimpleNamespace):
        held = vars(held)
    if isinstance(held, np.ndarray):
        held = held.ravel()
    return held.values() if isinstance(held, dict) else held


@of_class
def _slots(cls: type) -> tuple[str, ...]:
    """The names of the attributes that a class of the user's keeps in `__slots__`."""
    named = (pair for base in cls.__mro__ for pair in vars(base).items())
    return tuple(name for name, member in named if isinstance(member, MemberDescriptorType))


def _check_command(module: Module, name: str) -> None:
    """Raise AttributeError for an assignment from outside that would freeze or end nothing."""
    if name in vars(module) or hasattr(type(module), name):
        return
    if not is_of_method(sys._getframe(2), module):  # the frame behind `__setattr__`
        MODULE.refuse(name, module)


def check_tensor(name: str, x: object) -> None:
    """Raise TypeError for a NumPy array, which a module without computation would pass through."""
    if isinstance(x, np.ndarray):
        raise _met_an_array(name)
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: x must be a tensor, not {shown(x)}: call it with tensor(x)")


def _met_an_array(name: str) -> TypeError:
    return TypeError(
        f"{name} computes with tensors and met a NumPy array: call it with tensor(x), of "
        "rumus.tensor"
    )
