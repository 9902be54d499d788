"""Training: parts that plug into the stock Trainer.

| what | names |
|---|---|
| what trains when | `Unfreezing` and its presets, `UnfreezingSchedule` (`training.unfreezing`) |
| learning rates | `layer_wise_optimizer`, `SlantedTriangular`; with gradual unfreezing: `ulmfit` |
| frozen encoders | `FeatureExtraction`, `extract_features` |
| averages of weights | `SelfEnsemble`, `SelfDistillation` |
| several tasks | `carry_encoder`, `MultiTaskModel`, `MultiTaskDataset`, `TaskSampling` |
| gradients under accumulation | `correct_loss_scaling` |
| folders that are whole or not there | `whole_folder`, `last_whole_checkpoint`, … |
| the end of one of several processes | `leave_process_group` |
"""

from .checkpoints import claim_folder, is_whole, last_whole_checkpoint, whole_folder
from .feature_vectors import extract_features
from .frozen_trunk import FeatureExtraction
from .loss_scaling import correct_loss_scaling
from .model_card import model_card
from .multi_task import MultiTaskModel
from .multi_task_collator import MultiTaskCollator
from .multi_task_data import MultiTaskDataset, TaskDataset, task_datasets
from .multi_task_sampling import TaskSampling, task_probabilities
from .parameter_groups import layer_learning_rates, layer_wise_optimizer
from .processes import leave_process_group
from .self_distillation import SelfDistillation, distillation_loss
from .self_ensemble import Averaging, SelfEnsemble
from .slanted_triangular import SlantedTriangular, slanted_triangular_schedule
from .two_stage import CarryReport, carry_encoder, encoder_of, record_lineage
from .unfreezing import (
    LISA,
    ChainThaw,
    GradualUnfreeze,
    LinearProbeThenFineTune,
    Phase,
    Plateau,
    SequentialUnfreeze,
    Unfreezing,
    UnfreezingSchedule,
    ulmfit,
)

__all__ = [
    "LISA",
    "Averaging",
    "CarryReport",
    "ChainThaw",
    "FeatureExtraction",
    "GradualUnfreeze",
    "LinearProbeThenFineTune",
    "MultiTaskCollator",
    "MultiTaskDataset",
    "MultiTaskModel",
    "Phase",
    "Plateau",
    "SelfDistillation",
    "SelfEnsemble",
    "SequentialUnfreeze",
    "SlantedTriangular",
    "TaskDataset",
    "TaskSampling",
    "Unfreezing",
    "UnfreezingSchedule",
    "carry_encoder",
    "claim_folder",
    "correct_loss_scaling",
    "distillation_loss",
    "encoder_of",
    "extract_features",
    "is_whole",
    "last_whole_checkpoint",
    "layer_learning_rates",
    "layer_wise_optimizer",
    "leave_process_group",
    "model_card",
    "record_lineage",
    "slanted_triangular_schedule",
    "task_datasets",
    "task_probabilities",
    "ulmfit",
    "whole_folder",
]
