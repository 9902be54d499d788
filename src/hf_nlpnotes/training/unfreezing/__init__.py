"""Unfreezing: which layers train when, on one process or many."""

from .callback import Unfreezing
from .plot import plot_schedule
from .presets import (
    LISA,
    ChainThaw,
    GradualUnfreeze,
    LinearProbeThenFineTune,
    SequentialUnfreeze,
    chain_thaw,
    gradual_unfreeze,
    linear_probe_then_fine_tune,
    lisa,
    sequential_unfreeze,
)
from .schedule import Epoch, Fraction, LayerSample, Phase, Plateau, Progress, Step, UnfreezingSchedule
from .schedule_file import read_schedule, write_schedule
from .trainable import set_trainable
from .ulmfit import ulmfit

__all__ = [
    "LISA",
    "ChainThaw",
    "Epoch",
    "Fraction",
    "GradualUnfreeze",
    "LayerSample",
    "LinearProbeThenFineTune",
    "Phase",
    "Plateau",
    "Progress",
    "SequentialUnfreeze",
    "Step",
    "Unfreezing",
    "UnfreezingSchedule",
    "chain_thaw",
    "gradual_unfreeze",
    "linear_probe_then_fine_tune",
    "lisa",
    "plot_schedule",
    "read_schedule",
    "sequential_unfreeze",
    "set_trainable",
    "ulmfit",
    "write_schedule",
]
