"""Right gradients under accumulation and on several processes, for models whose loss ignores `num_items_in_batch`.

The Trainer tells a model how many labels a whole step has, over all batches that are accumulated and all processes,
and expects the sum of the losses divided by that number. It believes that every model whose `forward` takes `**kwargs`
does so. Most fine-tuning heads take them and return the mean over their own batch all the same: the loss and the
gradients are then accumulation steps × processes times too large, without any message. Adam hides that in its step,
clipping and every other optimizer do not.

    correct_loss_scaling(model)     # before the Trainer is made
    trainer = Trainer(model=model, ...)

The cure is one attribute, `accepts_loss_kwargs = False`, which the Trainer reads when it is made; the probe of
`loss_probe` tells who needs it.
"""

import inspect
import logging
import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import TrainingArguments

from .loss_probe import honours_num_items, takes_labels, unwrapped

logger = logging.getLogger(__name__)

# Models that a callback has asked about already.
_asked: "weakref.WeakKeyDictionary[nn.Module, bool]" = weakref.WeakKeyDictionary()


def correct_loss_scaling(model: Any, batch: Mapping[str, Any] | None = None) -> bool:
    """Make the Trainer scale the loss of `model` rightly; a model that is right stays as it is.

    Args:
        model: A model (also wrapped by PEFT, DDP or torch.compile), before the Trainer is made; or a Trainer, before
            it trains. Of a model, the Trainer notices nothing later than that.
        batch: Inputs with labels for one call, where the probe cannot make them up.

    Returns:
        Whether there was something to mend.

    Raises:
        ValueError: The probe cannot run the model (see `honours_num_items`): pass a batch.
        TypeError: `model` is neither a module nor a Trainer.
    """
    trainer, module = _trainer_and_model(model)
    if not _is_told(trainer, module) or honours_num_items(module, batch):
        return False
    unwrapped(module).accepts_loss_kwargs = False  # type: ignore[assignment]  # a plain attribute, not a module
    if trainer is not None:
        trainer.model_accepts_loss_kwargs = False
    return True


def loss_factor(args: TrainingArguments) -> int:
    """Return how many times too large the gradients become where the number of items is ignored."""
    devices = args.world_size if args.average_tokens_across_devices else 1
    return args.gradient_accumulation_steps * max(devices, args.n_gpu)


def warn_of_wrong_loss_scaling(model: Any, args: TrainingArguments) -> bool:
    """Log one warning if the Trainer would scale the loss of `model` wrongly with `args`; for callbacks.

    It names the model and the cure, once a model and on the first process only. Nothing is logged where nothing goes
    wrong: without accumulation on one process, with label smoothing (the Trainer's own loss), for heads without
    `labels`. Where the probe cannot run the model, that is logged at level INFO.

    Args:
        model: The model as a callback gets it, or the Trainer.
        args: The Trainer's arguments.

    Returns:
        Whether the scaling is wrong.

    Raises:
        TypeError: `model` is neither a module nor a Trainer.
    """
    trainer, module = _trainer_and_model(model)
    factor = loss_factor(args)
    if factor == 1 or args.label_smoothing_factor or not _is_told(trainer, module) or not takes_labels(module):
        return False
    base = unwrapped(module)
    if base in _asked:
        return _asked[base]
    name = type(base).__name__
    try:
        wrong = not honours_num_items(module)
    except ValueError as error:
        logger.info("The scaling of the loss of %s is not known: %s", name, error)
        wrong = False
    _asked[base] = wrong
    if wrong and args.process_index == 0:
        logger.warning(
            "%s ignores num_items_in_batch: the Trainer makes its loss and gradients %d times too large. Call "
            "hf_nlpnotes.training.correct_loss_scaling(model) before the Trainer is made, or "
            "correct_loss_scaling(trainer) before it trains.",
            name,
            factor,
        )
    return wrong


def _trainer_and_model(model: Any) -> tuple[Any, nn.Module]:
    if isinstance(model, nn.Module):
        return None, model
    if hasattr(model, "model_accepts_loss_kwargs") and isinstance(getattr(model, "model", None), nn.Module):
        return model, model.model
    raise TypeError(f"expected a torch module or a Trainer, got {type(model).__name__}")


def _is_told(trainer: Any, module: nn.Module) -> bool:
    """Whether the Trainer passes `num_items_in_batch` to this model, by its own rule."""
    if trainer is not None:
        return bool(trainer.model_accepts_loss_kwargs)
    base = unwrapped(module)
    if hasattr(base, "accepts_loss_kwargs"):
        return bool(base.accepts_loss_kwargs)
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(base.forward).parameters.values())
