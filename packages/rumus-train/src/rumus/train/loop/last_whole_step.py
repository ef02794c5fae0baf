"""`LastWholeStep`: where a run is, or goes back to, if an error ends it in the middle of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rumus.train.base.random_sources import states_of_program
from rumus.train.loop.spikes import SpikeWatch

if TYPE_CHECKING:
    from rumus.train.loop.run import Run


class LastWholeStep:
    """Knows of a step that has begun whether it happened, wherever it was ended.

    A signal's handler, `sys.exit` and Ctrl-C raise between any two instructions. The optimizer
    writes a step as a whole, and gives it an outcome: what is not there yet did not happen.

    run: whose steps they are.
    spikes: of the run.
    """

    def __init__(self, run: Run, spikes: SpikeWatch | None) -> None:
        self._run, self._spikes = run, spikes
        self._began: tuple[Any, ...] | None = None

    def begin(self) -> None:
        """Note where the run is, before the next batch is asked for: it costs little."""
        run, spikes = self._run, self._spikes
        self._began = (
            run.batches.bookmark(),
            run.trainer.optimizer.outcome,
            run.position.step,
            None if spikes is None else spikes.bookmark(),
        )

    def end(self) -> None:
        """Note that the step is counted, or will not be repeated."""
        self._began = None

    def go_there(self, error: BaseException, *, is_cut: bool) -> str | None:
        """Let the run be where all batches that were taken have been trained.

        Return why that cannot be, or None.

        error: what ends the run; gets a note if the step that is to be repeated will differ.
        is_cut: whether the loader was interrupted, wherever it was.
        """
        if self._began is None:
            return None
        bookmark, outcome, step, of_spikes = self._began
        run = self._run
        if run.trainer.optimizer.outcome is not outcome:
            run.position.step = step + 1
            if self._spikes is not None and not self._spikes.knows(step + 1):
                return "whether its loss was a spike was not yet known"
            return None
        run.position.step, run.position.exhausted = step, False
        if self._spikes is not None:
            self._spikes.go_back(of_spikes)
        if not run.batches.go_back(bookmark, is_cut=is_cut):
            return (
                "its loader has a place of its own (state_dict) and cannot give the batches of the "
                "step again that was not finished"
            )
        if run.position.random != states_of_program():
            error.add_note(
                "what its step drew from random, numpy.random or torch is not put back: it "
                "draws other numbers when it is repeated"
            )
        return None
