"""Howard and Ruder's three techniques together: gradual unfreezing, discriminative rates, slanted triangular rates.

In their ablation on IMDb (table 7) gradual unfreezing alone leaves 6.37 % of errors, the three together 5.00 %.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from hf_nlpnotes.training.parameter_groups import ULMFIT_DECAY, layer_wise_optimizer
from hf_nlpnotes.training.slanted_triangular import SlantedTriangular

from .presets import GradualUnfreeze, PhaseSteps


def ulmfit(
    args: TrainingArguments,
    phase_steps: PhaseSteps = None,
    *,
    layers_per_phase: int = 1,
    layer_decay: float = ULMFIT_DECAY,
    head_learning_rate: float | None = None,
    cut_frac: float = 0.1,
    ratio: float = 32.0,
) -> dict[str, Any]:
    """Return the keyword arguments of a Trainer that fine-tunes as ULMFiT does (Howard & Ruder 2018, section 3.3).

    The paper's model has four groups. For one of twelve layers take a larger `layer_decay` (0.8 to 0.95), or the
    lowest layers hardly learn, and phases of several layers, or of a part of the training.

    Args:
        args: the arguments that the Trainer has too; `learning_rate` is the peak of the head's.
        phase_steps: length of a phase, as in `GradualUnfreeze`.
        layers_per_phase: layers that each phase adds.
        layer_decay: learning rate of a layer over that of the layer above it.
        head_learning_rate: peak of the head's rate, if not `args.learning_rate`.
        cut_frac: part of the steps in which the rate rises.
        ratio: how many times smaller than the peak the lowest rate is.

    Example:
        ```python
        Trainer(model, args, train_dataset=data, **ulmfit(args))
        ```
    """
    return {
        "optimizer_cls_and_kwargs": layer_wise_optimizer(args, layer_decay, head_learning_rate),
        "callbacks": [
            SlantedTriangular(cut_frac, ratio),
            GradualUnfreeze(phase_steps, layers_per_phase=layers_per_phase),
        ],
    }
