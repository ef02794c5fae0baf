"""`FusedOptimizer`: an update rule, run as one kernel over flat memory.

The parameters of a group are side by side in an arena, and so are their gradients and each part of
the state. A step is one kernel per group, however many parameters it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, Unpack

from rumus.optim.engine.description import description
from rumus.optim.engine.gradients import check_together
from rumus.optim.engine.kernels import Kernels
from rumus.optim.engine.loss_scale import Scaling
from rumus.optim.engine.precision import computed_in
from rumus.optim.engine.rule_state import RuleState
from rumus.optim.engine.segments import Segment, in_one_piece
from rumus.optim.engine.stage import Stage
from rumus.optim.engine.step_scalars import Common, StepScalars
from rumus.optim.engine.stepped import SteppedOptimizer
from rumus.optim.engine.update_rule import Signature, UpdateRule, check_parts
from rumus.optim.fused.compensation import COMPENSATION
from rumus.optim.fused.coupled_decay import CoupledDecay
from rumus.optim.fused.staging import staged
from rumus.optim.fused.unscaling import Unscaling
from rumus.optim.options.average import Average
from rumus.optim.options.clip import Clip
from rumus.optim.options.group import Claimable, M_co, decaying_matrices
from rumus.optim.options.hyperparameter import COMMON, RANGES, Hyper, Ranges, checked
from rumus.optim.options.options import StateDevice, StateDType
from rumus.optim.options.running import Running
from rumus.tensor import Tensor
from rumus.tensor.expression.arguments import checked_arguments
from rumus.tensor.expression.declared_type import shown
from rumus.tensor.expression.nearest_name import unknown_name
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted
from rumus.tensor.memory.updater import NonFinite

if TYPE_CHECKING:
    from rumus.optim.engine.porting import Library, PresetOptions
    from rumus.optim.rules import Rule

_RULES: Final = "rumus.optim.rules"


class FusedOptimizer(SteppedOptimizer[M_co]):
    """Turns any rule into an optimizer; SGD, Adam and AdamW are named examples.

    parameters: see `Optimizer`.
    rule: a function of `p`, `g`, the state, and scalars keyword-only, that returns new values (see
        `rumus.optim.rules`). The state starts at 0.
    lr, hyper: the rule's scalars: numbers, or functions of the step. They may be changed with
        `set`, and a group may have its own. lr and weight_decay are at least 0 and betas in [0, 1);
        other scalars of your own rule may have any names and any finite values. If the rule has no
        scalar weight_decay, one that is given replaces g by g + weight_decay p.
    maximize: replace g by -g.
    nonfinite: how a NaN, an infinity, or a number too large to square among the gradients is
        handled. "raise": NonFiniteGradientError, with the names, and nothing is changed. "skip":
        the gradients are drained and nothing else happens; `skipped` counts it and `blamed` has the
        names. "propagate": no check.
    master_weights: accept float16 parameters. Each gets a float32 copy in the state; the copy is
        updated, and the parameter is its rounded value. If others change the parameter, the copy
        follows at the next step, except for elements that still round to the parameter's.
    state_dtype: "float16", "float32" or "8bit", the storage of the state; arithmetic is in the
        parameters' dtype, at least float32. Under "float16", state computed from squares of
        gradients is not converted, since a gradient below 2e-4 would square to 0, and one above 256
        to infinity. "8bit": the state of parameters with 4096 or more elements is stored in one
        byte per element and a float32 for every 256. TypeError for rules where the effect is
        unknown; your own rules, and those listed in docs/optimizers.md, support it.
    state_device: "host" keeps the state in host memory, including master weights, averages and
        8-bit codes. The same kernel updates it over the bus, with the same bits. On a CPU it is
        there anyway. TypeError for a GPU whose kernels cannot use such memory.
    compensated: keep the rounding error of an update in an extra array, and add it to the next
        update, so that updates below half a unit in the last place of p are not lost. TypeError for
        a rule whose new p is not p, possibly times scalars, plus or minus something.
    cautious: elements move only if their update opposes the gradient, and further the fewer they
        are in the tensor; weight_decay is then decoupled. (Liang et al.: arXiv:2411.16085.)
        TypeError for a rule that measures whole tensors, as LAMB and Adafactor do, for one whose
        new p is not p plus or minus something, and for optimizers with an average of their own.
    cautious_weight_decay: weight_decay is decoupled, however the rule itself applies it, and acts
        only where the update moves an element toward 0: p - lr weight_decay p there. (Chen et al.:
        arXiv:2510.12402.) TypeError for a rule whose new p is not p, possibly times scalars, plus
        or minus something, and for optimizers with their own average.
    running: scalars of the rule that are not hyperparameters but depend on all steps so far.
    clip: how the update limits the gradients: `ClipNorm`, `ClipValue` or `AGC`. A non-finite norm
        is handled according to `nonfinite`.
    average: an `EMA` or `SWA` of the parameters that the update keeps in the state; `eval_params`
        swaps it in.

    A GPU decides on its own, and the host learns of it later: from `poll`, or when anything is read
    from that GPU, such as a loss. With "raise" no step is applied from the bad one on, and the
    error is raised by whatever learns of it first. `steps`, `skipped`, `blamed`, `state_dict`,
    `move` and `release` wait until all outcomes are known. On a GPU, schedules are evaluated for
    later steps in advance, and again when those steps come.

    >>> from rumus.optim import FusedOptimizer
    >>> from rumus.tensor import Expr, Parameter
    >>> def signum(p: Expr, g: Expr, m: Expr, *, lr: Expr, beta: Expr) -> dict[str, Expr]:
    ...     m = beta * m + (1 - beta) * g
    ...     return {"p": p - lr * m.sign(), "m": m}
    >>> w = Parameter([1.0], name="w")
    >>> optimizer = FusedOptimizer([w], signum, lr=0.25, beta=0.9)
    >>> optimizer.step((w * w).sum().backward())
    >>> w.tolist()
    [0.75]
    """

    packs_state: ClassVar[bool] = False  # whether a subclass is known to work well with "8bit"
    float16_remedy = "Pass master_weights=True to also keep a float32 copy of it, or: "
    given_names: ClassVar[tuple[str, ...]] = ()  # arrays that `_compute_given` writes for the rule
    other_scalars: ClassVar[frozenset[str]] = frozenset()  # scalars of some segments' kernels only
    own_scalars: ClassVar[frozenset[str]] = frozenset()  # the scalars that `_own_scalars` returns
    ranges: ClassVar[Ranges] = RANGES  # of hyperparameters, if the rule is rumus's
    is_ported = False  # whether `like` replaced the rule of its class

    def __init__(
        self,
        parameters: Claimable[M_co],
        rule: Rule,
        lr: Hyper = 1e-3,
        *,
        maximize: bool = False,
        nonfinite: NonFinite = "raise",
        master_weights: bool = False,
        state_dtype: StateDType | None = None,
        state_device: StateDevice | None = None,
        compensated: bool = False,
        cautious: bool = False,
        cautious_weight_decay: bool = False,
        running: Running | None = None,
        clip: Clip | None = None,
        average: Average | None = None,
        **hyper: Hyper | tuple[float, ...],
    ) -> None:
        if not callable(rule):
            raise TypeError(f"{type(self).__name__}: rule must be a function, not {shown(rule)}")
        self.rule = rule
        self.maximize = maximize
        self.clip = clip
        self.average = average
        self.stages = staged(
            master_weights=master_weights,
            state_dtype=state_dtype,
            state_device=state_device,
            clip=clip,
            nonfinite=nonfinite,
            maximize=maximize,
            cautious=cautious,
            cautious_weight_decay=cautious_weight_decay,
            compensated=compensated,
            average=average,
        )
        self._is_decoupled = cautious or cautious_weight_decay
        if state_dtype == "8bit" and not (self.packs_state or type(self) is FusedOptimizer):
            raise TypeError(
                f"{type(self).__name__}: the effect of 8-bit state on it is unknown; "
                'leave state_dtype="8bit" out, or use another, such as AdamW, Lion, SGD or Muon'
            )
        self.running = running or Running()
        is_own = not rule.__module__.startswith(_RULES)
        self._ranges = COMMON if is_own else self.ranges
        signature = Signature.of(rule, self.given_names, self._ranges)
        self.state_names = signature.state
        check_parts(rule.__name__, self.state_names, self.stages)
        scalars = signature.scalars | self.running.needed | self.other_scalars
        self.scalar_names = scalars - set(self.running.names) - self.own_scalars
        self.hyper = {**signature.defaults, **checked({"lr": lr, **hyper}, self._ranges)}
        with Uninterrupted():  # its parameters are claimed and laid out, or neither
            super().__init__(parameters, nonfinite)
            try:
                self._check_names()
                for stage in self.stages:
                    stage.attach(self)
                self._trace(self.hyper)
                self._state = RuleState.of(self._kernels.rule)
                self._check_common(self.hyper)
                if self._kernels.is_joint:
                    self._check_joint()
                self._take(self._laid_out({}))
            except BaseException:
                self.release()
                raise
            for segment in self.segments:
                segment.arena.adopt()
                segment.fits()

    @property
    def kind(self) -> str:
        """The optimizer's name in a saved state: its class, or the rule if that differs."""
        own = type(self).__name__
        kind = self.rule.__name__ if own == "FusedOptimizer" or self.is_ported else own
        for stage in self.stages:
            kind = f"{stage.wraps}({kind})" if stage.wraps else kind
        return kind

    def extend(self, stage: Stage) -> None:
        """Add a stage to every step's kernel, after the existing ones.

        stage: the stage to add; see `rumus.optim.engine.stage`.

        OwnershipError if this was released, TypeError if `stage` is a second wrapper or cannot work
        with the rule and stages that are there.
        """
        self.check_owning()
        self._check_alone("extend")
        if stage.wraps and (names := [s.wraps for s in self.stages if s.wraps]):
            raise TypeError(
                f"{self} is already wrapped by {names[0]}: go on with that one, or release() it "
                "and make both again"
            )
        if any(segment.division is not None for segment in self.segments):
            raise TypeError(f"the state of {self} is divided: wrap the optimizer first")
        check_parts(self.rule.__name__, self.state_names, [stage])
        self._settle()
        stages = [*self.stages, stage]
        for segment in self.segments:  # trace every kernel first, since this may raise
            there = {*segment.state, *segment.scratch, *stage.arrays}
            (segment.rule or self._kernels.rule).kernel(stages, there)
        states = [self._part(stage, segment) for segment in self.segments]
        with Uninterrupted():
            stage.attach(self)
            self.stages = stages
            self._trace(self.hyper)
            for segment, state in zip(self.segments, states, strict=True):
                segment.state |= state
                stage.start(segment)
            self._take(self.segments)

    @classmethod
    def like(
        cls,
        library: Library,
        parameters: Claimable[M_co],
        lr: Hyper | None = None,
        **options: Unpack[PresetOptions],
    ) -> Self:
        """Return this optimizer with another library's defaults and mathematics.

        library: "torch", "keras", "optax", "mlx", "burn" or "tinygrad".
        parameters: to own; see `Optimizer`.
        lr, options: override the library's defaults, under rumus's names. If the library means
            something else by the optimizer's name, the rule is a different one, and `kind` is its
            name.

        ValueError for a library without a preset for this optimizer, or for a missing `lr` without
        a default; TypeError for an option that its rule does not have.

        >>> from rumus.optim import AdamW
        >>> from rumus.tensor import Parameter
        >>> optimizer = AdamW.like("keras", [Parameter([1.0], name="w")], lr=0.01)
        >>> optimizer.kind, optimizer.hyper["weight_decay"], optimizer.hyper["eps"]
        ('adam_outer_eps_decoupled', 0.004, 1e-07)
        """
        from rumus.optim.engine.porting import chosen, taken_decay  # late: few programs use presets

        rule, rate, given = chosen(cls.__name__, library, lr, options)
        if rule is None:
            return cls(parameters, lr=rate, **given)
        if taken_decay(given) == "matrices":
            parameters = decaying_matrices(parameters)
        ported = cls.__new__(cls)
        ported.is_ported = True
        FusedOptimizer.__init__(ported, parameters, rule, rate, **given)
        return ported

    @checked_arguments
    def set(self, **hyper: Hyper | tuple[float, ...]) -> None:
        """Change hyperparameters from the next step on, except where a group has its own.

        hyper: new values by name, numbers or functions of the step.

        TypeError for one that the rule does not have, ValueError for a value out of range; nothing
        is changed then.
        """
        self.check_owning()
        values = checked(hyper, self._ranges)
        self._check_known(values)
        new = {**self.hyper, **values}
        self._check_common(new)
        if self._decays(new) == self._decays(self.hyper):
            self.hyper = self._scalars.hyper = new
            return
        self._settle()
        with Uninterrupted():
            self._trace(new)
            self.hyper = new
            self._give_kernels(self.segments)

    def _check_known(self, names: Mapping[str, object]) -> None:
        for name in names:
            if name not in self.scalar_names and name != "weight_decay":
                known = {*self.scalar_names, "weight_decay"}
                raise TypeError(
                    f"{self.kind} has no hyperparameter {name!r}{unknown_name(name, known)}"
                )

    def _check_names(self) -> None:
        for given in (self.hyper, *(group.hyper for group in self.groups)):
            self._check_known(given)
            checked(given, self._ranges)
        for group in self.groups:
            if missing := sorted(self.scalar_names - set(self.hyper) - set(group.hyper)):
                raise TypeError(f"{self.kind} needs a value for {missing[0]!r}")

    def _check_common(self, hyper: Mapping[str, Hyper]) -> None:
        """Refuse groups that differ in scalars from which shared numbers are computed."""
        self._common.check(self.kind, self.groups, hyper)

    @property
    def _common(self) -> Common:
        return Common(self._kernels.common, tuple(self._state.numbers))

    def _check_joint(self) -> None:
        """Refuse parameters that cannot be summed jointly, or that are optional."""
        what = f"{self.kind}: its rule has a global_sum()"
        found = [p for group in self.groups for _, p in group.named]
        check_together([(p, p.backend) for p in found], what)
        if len({computed_in(p.dtype) for p in found}) > 1:
            raise TypeError(f"{what}, but its parameters are float32 and float64: use one dtype")
        if any(group.optional for group in self.groups):
            raise ValueError(f"{what}, which needs all gradients: leave optional=True out")

    def _decays(self, hyper: Mapping[str, Hyper]) -> bool:
        """Whether weight_decay p is added to the gradient, because the rule has no weight decay."""
        given = (hyper, *(group.hyper for group in self.groups))
        some = any(values.get("weight_decay", 0.0) != 0.0 for values in given)
        return some and not self._is_decoupled and "weight_decay" not in self.scalar_names

    def _trace(self, hyper: Mapping[str, Hyper]) -> None:
        """Build the rule with the current stages, and its usual kernel."""
        others = [stage for stage in self.stages if not isinstance(stage, CoupledDecay)]
        self.stages = [*others, *([CoupledDecay()] if self._decays(hyper) else [])]
        known = self.scalar_names | set(self.running.names) | self.own_scalars
        rule = UpdateRule(self.rule, self.state_names, known, self.given_names)
        self._kernels = Kernels(rule, self.stages)
        self.kernel = self._kernels.usual

    def _give_kernels(self, segments: list[Segment]) -> None:
        """Give segments their kernels, with scalars from the current hyperparameters."""
        self._kernels.give(segments)
        beside = tuple(kernel for stage in self.stages for kernel in stage.beside())
        for segment in segments:
            segment.beside = beside
        in_one_piece([s for s in segments if any(len(a.shape) > 1 for a in s.scratch.values())])
        own = [self._own_scalars(segment) for segment in segments]
        names = self.scalar_names | {"weight_decay"}
        is_added = any(isinstance(stage, CoupledDecay) for stage in self.stages)
        self._scalars = StepScalars(
            self.kind, segments, self.stages, self.hyper, self._ranges, self.running, own,
            frozenset(names), not (is_added or self._is_decoupled or names == self.scalar_names),
            self._common,
        )  # fmt: skip

    def _own_scalars(self, segment: Segment) -> Mapping[str, float]:
        """The scalars of a segment that are not hyperparameters and constant over steps."""
        return {}

    def _take(self, segments: list[Segment]) -> None:
        for stage in self.stages:
            stage.place(segments, self.scaling)
        self.segments = segments
        self._following = [stage for stage in self.stages if stage.follows]
        self._is_following = bool(self._following) or self._ignores_parameters
        self._give_kernels(segments)

    def _scale_by(self, scaling: Scaling) -> None:
        """Divide gradients by this scale from now on."""
        self.scaling = scaling
        self.stages = [Unscaling(scaling), *self.stages]
        self._trace(self.hyper)
        self._take(self.segments)

    def _check_scalable(self) -> None:
        """Refuse a loss scale where it would not be taken into account."""
        self.check_owning()
        if self.nonfinite == "propagate":
            raise ValueError(
                f"{self}: a loss scale is adapted by checking gradients, but "
                'nonfinite="propagate" turns the check off; make it with "skip" or "raise"'
            )

    @property
    def grad_norm(self) -> Tensor:
        """The joint 2-norm of the last step's gradients, before clipping.

        A scalar tensor, which stays on the GPU until you read it. Refused steps have a norm, too.
        ValueError if `clip` needs no norm, or before the first step.
        """
        from rumus.optim.fused.clip_factors import joint_norm

        return joint_norm(self.stages, self)

    def torch_options(self, values: Mapping[str, float]) -> Mapping[str, Any]:
        """Return the options of PyTorch's groups whose names differ from the hyperparameters here.

        values: the hyperparameters of a group at a step.
        """
        return {}

    def describe(self) -> str:
        """Return a table of the groups, with shapes, roles and hyperparameters.

        It warns of a decoupled weight decay that is lost in float32 rounding, and lists options
        that change how parameters or state are stored.
        """
        vanishes = "weight_decay" in self.scalar_names and not self._is_exact
        return description(self, self.hyper, vanishes, notes=self._notes())

    @property
    def _is_exact(self) -> bool:
        """Whether no update is lost in rounding."""
        return any(COMPENSATION in stage.arrays for stage in self.stages)

    def _notes(self) -> list[str]:
        dtypes = dict.fromkeys(p.dtype for p in self.parameters)
        layouts = map(self._state.layout(self.stages), dtypes)
        lines = [line for each in layouts for stage in self.stages for line in stage.notes(each)]
        return list(dict.fromkeys(lines))

    # The step

    def _prepare(self, gradients: Mapping[int, Array]) -> None:
        for stage in self.stages:
            stage.prepare(gradients)
        self._compute_given(gradients)

    def _scalars_at(self, number: int, steps: Iterable[int]) -> Iterator[tuple[float, ...]]:
        return self._scalars.at(number, steps)

    def _follow(self, number: int) -> None:
        if self._is_following:
            self.segments[number].follow(self._following)

    def _compute_given(self, gradients: Mapping[int, Array]) -> None:
        """Before each step, write the arrays that kernels read in addition to gradients and state.

        gradients: flat, by segment number. Only `Segment.scratch` is written, so that the step can
            still be refused.
        """
