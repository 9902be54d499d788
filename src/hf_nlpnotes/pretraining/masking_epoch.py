"""Masks that change from epoch to epoch in the stock `Trainer`.

The masks of `DataCollatorForChineseBertMaskedLM` are a function of the example and of the epoch's number. Nothing in
the `Trainer` tells a collator that number, so a callback does, before an epoch's batches are asked for and also when
a run is resumed in the middle of one. So a resumed run sees the very batches of an uninterrupted one, with any number
of processes and of workers, even such as outlive an epoch.
"""

from __future__ import annotations

from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EpochCollator(Protocol):
    """A collator whose batches depend on the number of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Take over the number of the epoch, from 0."""


class MaskingEpoch(TrainerCallback):
    """Tells the collator which epoch begins: ``Trainer(…, data_collator=collate, callbacks=[MaskingEpoch(collate)])``.

    Args:
        collator: the `Trainer`'s own, most often a `DataCollatorForChineseBertMaskedLM`.

    Raises:
        TypeError: the collator has no `set_epoch`.
        ValueError: when training begins, if the `Trainer` would drop the words and seeds that the examples bring.
    """

    def __init__(self, collator: EpochCollator) -> None:
        if not callable(getattr(collator, "set_epoch", None)):
            raise TypeError(f"expected a collator with set_epoch(epoch), got {type(collator).__name__}")
        self.collator = collator
        self._next = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the epoch from the checkpoint, where there is one; see that the columns arrive.

        Raises:
            ValueError: the Trainer would drop the columns that the collator needs.
        """
        if args.remove_unused_columns and getattr(self.collator, "segmenter", "") is None:
            raise ValueError(
                "remove_unused_columns=True: the Trainer would drop the columns word_ids and mask_seed, and without"
                " words every character would be one; pass remove_unused_columns=False in the TrainingArguments"
            )
        # 1.5 in the middle of the second epoch, 1.0 at its begin. From here on we count ourselves: after an epoch that
        # another callback ended early, state.epoch still has the old number.
        self._next = int(state.epoch or 0)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch before its batches are asked for."""
        self.collator.set_epoch(self._next)
        self._next += 1


__all__ = ["MaskingEpoch"]
