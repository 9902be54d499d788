"""Feature extraction: a frozen encoder, or a frozen lower part of one, under the stock Trainer.

    Trainer(model, …, callbacks=[FeatureExtraction])                            # only the head trains
    Trainer(model, …, callbacks=[FeatureExtraction(8)])                         # embeddings and layers 0 to 7 frozen
    Trainer(model, …, callbacks=[FeatureExtraction(8, cache="memory")])         # …and computed once an example

One of the two ways of using a pretrained model in Qiu et al. (2020), https://arxiv.org/abs/2003.08271; Peters et al.
(2019), https://arxiv.org/abs/1903.05987, compare it with fine-tuning. It is right for many small tasks on one encoder,
before a fine-tuning ("probe, then tune"), and where time is short; it fails where the top of the encoder holds little
of what the task needs.

Freezing k of n layers saves their backward pass and their updates: a step costs k + 3 (n - k) layer-forwards instead
of 3 n, and with the cache, from the second epoch on, 3 (n - k). The cache needs rows × length × hidden size × 4 bytes
in float32, 2 in bfloat16.
"""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.training_args import ParallelMode
from transformers.utils import logging

from hf_nlpnotes._compat import CHECKPOINTING

from .frozen_trunk_cache import TrunkCache
from .frozen_trunk_parts import FrozenMode, find_trunk
from .frozen_trunk_store import FolderStore, MemoryStore, StateStore
from .loss_scaling import warn_of_wrong_loss_scaling
from .unfreezing.checks import check_arguments

logger = logging.get_logger(__name__)

_MANY = 0.5  # above this share of rows computed after the first epoch, the cache is not doing its work
_CURE = {
    True: "Pad to one length or a few (pad_to_multiple_of=32), or take exact=False",
    False: "Examples that change from epoch to epoch (random masking) cannot be cached",
}


class FeatureExtraction(TrainerCallback):
    """Freezes embeddings and lower layers for a whole training, without dropout in them, and caches their outputs.

    Frozen parameters have no gradient: no weight decay, no momentum, no part in the clipping norm. The optimizer's
    groups stay as they are. After the training everything is as before: what required gradients requires them again.

    Args:
        layers: How many layers are frozen, from the bottom, the embeddings with them; 0: the embeddings alone; None:
            all. What runs above the last layer (pooler, last norm, head) trains.
        cache: None: the frozen layers run at every step. "memory": their outputs are computed once for each example
            and kept in this process. Anything else is a folder: they are kept there in files, for later trainings, for
            a resumed one, and for all processes of this one. The cache is found by the content of the examples and by
            a fingerprint of the frozen weights and all else that decides the numbers, so it cannot be out of date, and
            it does not matter in what order examples come, or through how many workers.
        exact: With True, losses and weights are those without the cache, bit for bit: an output is used again only in
            a batch of the same shape. Pad to one length or to a few (`padding="max_length"`, `pad_to_multiple_of=32`),
            or little will be found again. With False each example is computed once, whatever the shapes; the outputs
            are equal up to rounding (some 1e-6 in float32).
        max_bytes: Each process adds nothing to its cache beyond this; what is not in it is computed.

    Attributes:
        trunk_cache: The cache during and after a training, with its counts `rows` and `computed`; None without one.

    Raises:
        TypeError: `layers` is not a whole number, `cache` is neither None nor a path, `exact` is not a bool.
        ValueError: when training begins: the model has fewer layers; its frozen part has no single output, draws
            random numbers or feeds the head on other ways, FSDP, DataParallel or a compiled model (with a cache);
            DeepSpeed, FSDP 1, a static graph, reentrant activation checkpointing.
    """

    def __init__(
        self,
        layers: int | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        exact: bool = True,
        max_bytes: int | None = None,
    ) -> None:
        if not _is_whole(layers):
            raise TypeError(f"layers must be None (all) or a whole number, got {layers!r}")
        if layers is not None and layers < 0:
            raise ValueError(f"layers must be None (all) or at least 0, got {layers}")
        if not isinstance(cache, str | os.PathLike | None):
            raise TypeError(f'cache must be None, "memory" or a folder, got {cache!r}')
        if cache is not None and not os.fspath(cache):
            raise ValueError('cache is an empty string: expected None, "memory" or a folder')
        if not isinstance(exact, bool):
            raise TypeError(f"exact must be True or False, got {exact!r}")
        if not _is_whole(max_bytes) or (max_bytes is not None and max_bytes < 0):
            raise ValueError(f"max_bytes must be None or a whole number of bytes, got {max_bytes!r}")
        self.layers = layers
        self.exact = exact
        self.trunk_cache: TrunkCache | None = None
        self._store: StateStore | None = None
        if cache is not None:
            self._store = MemoryStore(max_bytes) if cache == "memory" else FolderStore(cache, max_bytes)
        self._mode: FrozenMode | None = None
        self._input_gradients = False
        self._epoch = (0, 0)  # rows and computed rows when the epoch began
        self._epochs = 0
        self._warned = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Freeze, and put the cache in place."""
        assert model is not None
        self._undo()  # of a training that was broken off, perhaps of another model
        _refuse(args, model, with_cache=self._store is not None)
        warn_of_wrong_loss_scaling(model, args)
        mode = FrozenMode(model, find_trunk(model, self.layers))
        cache = None
        if self._store is not None:
            precision = f"bf16={args.bf16} fp16={args.fp16}"
            cache = TrunkCache(model, mode, self._store, exact=self.exact, extra=precision)
        # Else the frozen layers would be run backward as well, and recomputed for it.
        self._input_gradients = bool(getattr(model, "_require_grads_hooks", None))
        if self._input_gradients:
            model.disable_input_require_grads()  # type: ignore[operator]  # a method of PreTrainedModel
        self._mode = mode
        mode.attach()
        if cache is not None:
            cache.attach()
        self.trunk_cache = cache
        self._epochs = 0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find what the other processes have written."""
        if self.trunk_cache is not None and self._store is not None:
            self._store.sync()
            self._epoch = (self.trunk_cache.rows, self.trunk_cache.computed)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write, and say once when next to nothing is found again."""
        if self.trunk_cache is None or self._store is None:
            return
        self._store.sync()
        self._epochs += 1
        rows, computed = self.trunk_cache.rows - self._epoch[0], self.trunk_cache.computed - self._epoch[1]
        if self._epochs > 1 and rows and computed / rows > _MANY and not self._warned:
            self._warned = True
            logger.warning(
                "FeatureExtraction: %d of %d rows of this epoch were not found in the cache. %s; with several "
                "processes give the cache a folder; see also max_bytes.",
                computed,
                rows,
                _CURE[self.exact],
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write, so that a training resumed from this checkpoint finds all that came before it."""
        if self._store is not None:
            self._store.sync()

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Undo everything."""
        if self.trunk_cache is not None and self._store is not None:
            self._store.sync()
            counts = self.trunk_cache.computed, self.trunk_cache.rows
            logger.info("FeatureExtraction: %d of %d rows went through the frozen layers.", *counts)
        self._undo()

    def _undo(self) -> None:
        if self._mode is None:
            return
        mode, self._mode = self._mode, None
        if self.trunk_cache is not None:
            self.trunk_cache.detach()
        mode.detach()
        if self._input_gradients:
            mode.model.enable_input_require_grads()  # type: ignore[operator]  # a method of PreTrainedModel


def _is_whole(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _refuse(args: TrainingArguments, model: nn.Module, *, with_cache: bool) -> None:
    """Raise where freezing after the Trainer has wrapped the model would go wrong, in silence or not."""
    check_arguments(args, model)
    if with_cache and any(isinstance(module, FSDPModule) for module in model.modules()):
        raise ValueError("a cache does not work under FSDP, where no process has the whole weights: use DDP")
    if with_cache and args.parallel_mode == ParallelMode.NOT_DISTRIBUTED and args.n_gpu > 1:
        raise ValueError(
            "a cache does not work under DataParallel, which copies the model at every step. Use torchrun (DDP)"
        )
    if with_cache and getattr(args, "torch_compile", False):
        raise ValueError("a cache does not work in a compiled model: set torch_compile=False, or take cache=None")
    checkpointing = getattr(args, CHECKPOINTING) or any(
        getattr(part, "gradient_checkpointing", False) for part in model.modules()
    )
    options = getattr(args, f"{CHECKPOINTING}_kwargs") or {}
    if checkpointing and options.get("use_reentrant", False):
        raise ValueError(
            "reentrant activation checkpointing needs inputs that require gradients, which a frozen trunk does not "
            f'give: set {CHECKPOINTING}_kwargs={{"use_reentrant": False}}'
        )
