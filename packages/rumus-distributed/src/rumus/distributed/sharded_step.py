"""`ShardedStep`: one step over the shards of a window of batches, with one sum over all ranks.

The gradient of a step is the weighted mean over shards. Each rank processes its shards one by one
and adds them up in the tree, and the ranks add up their sums in the same tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rumus.distributed.buffer_means import BufferMeans
from rumus.distributed.late_losses import LateLosses
from rumus.distributed.link import Link
from rumus.distributed.shard_logs import Finishes, ShardLogs
from rumus.distributed.shard_streams import ShardStreams
from rumus.distributed.tree import Tree
from rumus.optim import Accumulation
from rumus.tensor import Backend, GradientStore, Parameter, Tensor, tensor, zeros
from rumus.tensor.graph.assignment import WrittenAhead
from rumus.tensor.graph.buffer_update import BufferUpdate
from rumus.tensor.graph.means import noting_means
from rumus.tensor.memory.backend import Array
from rumus.tensor.memory.uninterrupted import Uninterrupted, put_back_after
from rumus.train import Trainer
from rumus.train.capture.captured_steps import LossFunction
from rumus.train.data.part import Part
from rumus.train.loop.stepper import Counted
from rumus.train.loop.weighing import Basis, Weighing, check_alike

# A batch's rows, and their shards.
Portion = tuple[tuple[Any, ...], Part]


class ShardedStep:
    """The steps of a trainer over shards.

    weight_of: returns the weight of a shard's rows; by default the number of terms their loss
        averages, or their number. streams, buffers: those that a forward pass changes.
    """

    def __init__(
        self,
        trainer: Trainer[Any],
        link: Link,
        streams: ShardStreams,
        buffers: Mapping[str, Tensor],
        weight_of: Callable[..., float] | None,
    ) -> None:
        self._trainer, self._link = trainer, link
        self._streams, self._buffers = streams, buffers
        self._weight_of, self._weighing = weight_of, Weighing()
        self._finishes: Finishes = {}
        self._losses = LateLosses()

    def run(
        self, loss_fn: LossFunction, portions: Sequence[Portion], meet: Callable[[], None]
    ) -> Tensor:
        """Run a step; return the loss. meet: the roll call before the sum over ranks."""
        with self._trainer.stepper.whole_step() as counted:
            self._streams.begin()
            self._losses.begin()
            self._weighing.begin()
            own = self._own(loss_fn, portions)
            self._losses.start()
            self._link.post(own.sums())  # the device works on this during the roll call
            meet()
            return self._joined(own, counted)

    def _joined(self, own: _Branch, counted: list[Counted]) -> Tensor:
        """Add up over all ranks, and update; return the loss."""
        stepper = self._trainer.stepper
        losses = self._losses.values()
        bases = self._weighing.of_step
        loss, weight = own.join(self._link, stepper.optimizer.parameters, losses, bases)
        noted = stepper.losses.note(self._as_tensor(loss), own.logs.joined(weight))
        counted.append((noted, weight))
        with own.gradients(weight) as grads:
            stepper.check_claimed(grads)
            stepper.update(grads)
        return noted

    def _as_tensor(self, loss: float) -> Tensor:
        return tensor(np.float32(loss), backend=self._trainer.backend)

    def _own(self, loss_fn: LossFunction, portions: Sequence[Portion]) -> _Branch:
        """The sums of this rank's shards."""
        tree = Tree[_Branch](_Branch.merge)
        for number in range(len(portions[0][1].rows)):
            tree.push(self._shard(number, loss_fn, portions))
        return tree.root()

    def _shard(self, number: int, loss_fn: LossFunction, portions: Sequence[Portion]) -> _Branch:
        """The sums of one shard over all batches of the window."""
        branch = _Branch(BufferMeans(self._buffers), ShardLogs(self._finishes))
        ahead = WrittenAhead()
        put_back_after(
            lambda: self._pass_all(number, loss_fn, portions, branch, ahead), ahead.put_back
        )
        branch.finish(self._trainer.optimizer.parameters)
        return branch

    def _pass_all(
        self,
        number: int,
        loss_fn: LossFunction,
        portions: Sequence[Portion],
        branch: _Branch,
        ahead: WrittenAhead,
    ) -> None:
        """Run the passes of a shard, each with the buffers assigned by the previous one."""
        stepper = self._trainer.stepper
        most = len(portions) * len(portions[0][1].rows)
        for place, (batch, part) in enumerate(portions):
            start, stop = part.rows[number]
            if start == stop:
                continue
            rows = [v[start:stop] if getattr(v, "shape", ()) else v for v in batch]
            with self._streams.of(part.first + number, place), noting_means() as means:
                loss, grads = stepper.passes(loss_fn, rows)
            if self._weight_of is None:
                weight = self._weighing.weigh_of_step(loss, means, float(stop - start))
            else:
                weight = float(self._weight_of(*rows))
            stepper.check_claimed(grads)
            stepper.optimizer.gradients(grads)  # raises if one is missing
            updates = branch.add(grads, weight)
            if weight > 0:
                with Uninterrupted():
                    ahead.write(updates)
                branch.losses[0].append((self._losses.note(loss, most), weight))
                branch.logs.add(stepper.log, weight)


class _Branch:
    """Weighted sums over some shards: of gradients, of buffers, and the losses of each."""

    def __init__(self, buffers: BufferMeans, logs: ShardLogs) -> None:
        self.gradient_sums = Accumulation()
        self.buffers, self.logs = buffers, logs
        # For each shard, the indices and the weights of its losses.
        self.losses: list[list[tuple[int, float]]] = [[]]

    def add(self, grads: GradientStore, weight: float) -> Sequence[BufferUpdate]:
        """Add the gradients of a batch's shard; return its pass's buffer updates."""
        updates = grads.take_updates()
        self.gradient_sums.add(grads, weight)
        if weight > 0:
            self.buffers.add(updates)
        return updates

    def finish(self, parameters: Iterable[Parameter]) -> None:
        """End a shard; one without rows adds zeros."""
        if not self.losses[0]:
            self._add_zeros(parameters)
        self.buffers.weigh(math.fsum(weight for _, weight in self.losses[0]))

    def _add_zeros(self, parameters: Iterable[Parameter]) -> None:
        store = GradientStore()
        for p in parameters:
            store.accumulate(p, zeros(p.shape, dtype=p.dtype, backend=p.backend))
        self.gradient_sums.add(store, 1.0)

    def merge(self, other: _Branch) -> _Branch:
        """Add another branch to this one."""
        self.gradient_sums.merge(other.gradient_sums)
        self.buffers.merge(other.buffers)
        self.losses += other.losses
        self.logs.merge(other.logs)
        return self

    def sums(self) -> list[tuple[Backend, Array]]:
        """Return the arrays to be added up, which may be changed in place."""
        return [*self.gradient_sums.sums(), *self.buffers.sums()]

    def join(
        self,
        link: Link,
        parameters: Sequence[Parameter],
        values: Sequence[float],
        bases: Sequence[Basis],
    ) -> tuple[float, float]:
        """Add up over all ranks; return the mean loss and the weight of the step.

        values: the losses of this rank, by index. bases: of its weights. Raises ValueError if
        nothing has a weight, or if the samples do not weigh the ranks' batches equally.
        """
        numbers = {p.id: number for number, p in enumerate(parameters)}
        arrays = [[numbers[p] for p in each] for each in self.gradient_sums.layout]
        own = [
            (_added(values[n] * w for n, w in shard), math.fsum(w for _, w in shard))
            for shard in self.losses
        ]
        found = link.gather((own, bases, self.buffers.changed, arrays, self.logs.shards))
        losses = [each for rank, *_ in found for each in rank]
        check_alike([basis for _, rank, *_ in found for basis in rank])
        self.logs.shards = [shard for *_, rank in found for shard in rank]
        weight = math.fsum(w for _, w in losses)
        if not weight > 0:
            raise ValueError("all batches of a step have weight 0: remove them from the loader")
        self.buffers.changed = [
            any(each) for each in zip(*(c for *_, c, _, _ in found), strict=True)
        ]
        if any(there != arrays for *_, there, _ in found):
            used = {n for *_, there, _ in found for each in there for n in each}
            self._lay_out_apart([parameters[n] for n in sorted(used)])
        for backend, array in self.sums():
            link.add_up(backend, array)
        return _added(x for x, _ in losses) / weight, weight

    def _lay_out_apart(self, used: Iterable[Parameter]) -> None:
        """Use the same arrays as the other ranks if shards use different optional parameters."""
        here = {p.id for p in self.gradient_sums.parameters}
        missing = [p for p in used if p.id not in here]
        if missing:
            self._add_zeros(missing)
        self.gradient_sums.lay_out_apart()

    def gradients(self, weight: float) -> GradientStore:
        """Return the mean gradients, and a function that writes the means of the buffers."""
        self.gradient_sums.weight = weight
        grads = self.gradient_sums.gradients()
        grads.propose(self.buffers.updates(weight))
        return grads


def _added(values: Iterable[float]) -> float:
    """The correctly rounded sum, independent of order; NaN or infinite if a term is."""
    all_of_them = list(values)
    if all(map(math.isfinite, all_of_them)):
        return math.fsum(all_of_them)
    return math.nan if any(map(math.isnan, all_of_them)) else sum(all_of_them)
