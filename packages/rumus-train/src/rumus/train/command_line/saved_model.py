"""`load_model`: the model of a saved run, ready for prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, overload

from rumus.tensor.expression.arguments import checked_arguments
from rumus.train.base.configuration import load_configuration
from rumus.train.checkpoints.checkpoint_errors import CheckpointError
from rumus.train.checkpoints.saved_model import WhichStep, check_is_there, saved_weights
from rumus.train.command_line.script import load_script
from rumus.train.command_line.train import COMMAND, Command
from rumus.train.loop.prediction import only_model
from rumus.train.loop.training import Training
from rumus.train.views.run_folder import CONFIG


class Loadable(Protocol):
    """A module: what `rumus.nn` makes."""

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take arrays by dotted path, all or none."""
        ...

    def eval(self) -> Self:
        """Switch to evaluation mode."""
        ...

    def freeze(self) -> Self:
        """Stop requiring gradients."""
        ...


ModelT = TypeVar("ModelT", bound=Loadable)


@overload
def load_model(
    path: str | Path,
    model: ModelT,
    *,
    name: str | None = None,
    step: WhichStep = "best",
    average: bool = True,
) -> ModelT: ...


@overload
def load_model(
    path: str | Path,
    model: Callable[[], ModelT],
    *,
    name: str | None = None,
    step: WhichStep = "best",
    average: bool = True,
) -> ModelT: ...


@overload
def load_model(
    path: str | Path,
    model: None = None,
    *,
    name: str | None = None,
    step: WhichStep = "best",
    average: bool = True,
) -> Any: ...


@checked_arguments
def load_model(
    path: str | Path,
    model: Any = None,
    *,
    name: str | None = None,
    step: WhichStep = "best",
    average: bool = True,
) -> Any:
    """Return a model with the saved weights of a run, in evaluation mode and without gradients.

    It needs no optimizer and builds no graph: `model(x)` may be called from several threads.

    path: a run folder, its folder of checkpoints, or one checkpoint.
    model: a module of the same structure, or a function that returns one. It may be omitted for a
        run of `rumus train`: the run's script then builds it from the run's configuration.
    name: the module's name in the trainer's `state`, if there are several.
    step: "best" for the best validation (the newest checkpoint if there was none), "latest", or the
        number of a saved step.
    average: load the optimizer's average (EMA, schedule-free), which validations used, instead of
        the trained parameters.

    Raises FileNotFoundError if there is no such folder; NoCheckpointError if there is no checkpoint
    in it; StateMismatchError, listing every difference, for a model of another structure;
    CheckpointError if it is unclear which module to load or how to build it.

    >>> import tempfile
    >>> import numpy as np
    >>> from rumus.train import Checkpoints, load_model
    >>> class Scale:  # in place of a module of rumus.nn
    ...     def load_state_dict(self, state):
    ...         self.weight = state["weight"]
    ...         return self
    ...     def eval(self):
    ...         return self
    ...     freeze = eval
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Checkpoints(folder).save(1, {"model": {"weight": np.array([2.0])}})
    ...     load_model(folder, Scale()).weight
    array([2.])
    """
    check_is_there(Path(path))
    if model is None:
        return model_of(training_of(Path(path)), path, name=name, step=step, average=average)
    weights = saved_weights(path, name=name, step=step, average=average)
    is_made = hasattr(model, "load_state_dict") and not isinstance(model, type)
    found = model if is_made else model()
    return found.load_state_dict(weights).eval().freeze()


def model_of(
    training: Training,
    path: str | Path,
    *,
    name: str | None = None,
    step: WhichStep = "best",
    average: bool = True,
) -> Any:
    """Return the model of a training with the weights of a run, detached from its optimizer."""
    weights = saved_weights(path, name=name, step=step, average=average)
    state = training.trainer.state
    found = only_model(state) if name is None else state[name]
    training.trainer.optimizer.release()
    return found.load_state_dict(weights).eval().freeze()


def training_of(path: Path) -> Training:
    """Return the training of a run folder, rebuilt by its script.

    Raises CheckpointError if the folder does not name the script.
    """
    run = next((each for each in (path, *path.parents[:2]) if (each / COMMAND).is_file()), None)
    if run is None:
        raise CheckpointError(
            f"{path} was not written by rumus train, so its model cannot be rebuilt: call "
            "load_model(path, model) with a model of the same structure"
        )
    run = run.absolute()
    command = load_configuration(Command, run / COMMAND)
    with chdir(command.directory if command.directory.is_dir() else Path.cwd()):
        script = load_script(command.script)
        config = script.configure(run / CONFIG if script.kind is not None else None, ())
        return script.training(config)
