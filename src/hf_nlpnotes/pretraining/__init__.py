"""Pretraining a masked language model: text, rows, masking, warm starts for small budgets, and what comes out of it.

A room for each technique:

- text: `texts` (reading), `overlap` (keeping evaluation text out), `vocabulary`, `packing`, `rows` (full rows);
- masks: the collator `DataCollatorForChineseBertMaskedLM` stands with the model; `masking_epoch` for the Trainer;
- warm start: `token_vectors`, `offset_heads`, `warm_start`, `every_position`, `fusion_start`;
- training: `sampled_masked_lm` (the loss), `muon` (the optimizer), `bfloat16_attention`,
  `trainer`;
- results: `held_out` (accuracy), `learning_curve`, `model_card`.

`hf_nlpnotes.recipes.pretraining` puts them together.
"""

from .every_position import (
    DataCollatorForEveryPosition,
    EveryPosition,
    EveryPositionLoss,
    sampled_softmax_loss,
)
from .fusion_start import start_fusion
from .held_out import HeldOut, held_out_rows, masked_accuracy
from .learning_curve import plot_learning_curves
from .masking_epoch import MaskingEpoch
from .muon import MuonAdamW, muon_adamw
from .offset_heads import (
    DEFAULT_OFFSETS,
    calibrated_gain,
    frequencies,
    offset_head_weights,
    position_vectors,
    value_output_weights,
    weight_on_offset,
)
from .packing import TokenStream, encode_lines, is_held_out, thin_out, word_starts
from .sampled_masked_lm import SampledBertForMaskedLM, SampledChineseBertForMaskedLM
from .token_vectors import cooccurrence_counts, positive_pmi, token_vectors, unigram_log_probabilities
from .trainer import AllTokensAtTheEnd, PretrainingTrainer
from .vocabulary import build_vocabulary
from .warm_start import free_heads, sharpen_heads, warm_start

__all__ = [
    "DEFAULT_OFFSETS",
    "AllTokensAtTheEnd",
    "DataCollatorForEveryPosition",
    "EveryPosition",
    "EveryPositionLoss",
    "HeldOut",
    "MaskingEpoch",
    "MuonAdamW",
    "PretrainingTrainer",
    "SampledBertForMaskedLM",
    "SampledChineseBertForMaskedLM",
    "TokenStream",
    "build_vocabulary",
    "calibrated_gain",
    "cooccurrence_counts",
    "encode_lines",
    "free_heads",
    "frequencies",
    "held_out_rows",
    "is_held_out",
    "masked_accuracy",
    "muon_adamw",
    "offset_head_weights",
    "plot_learning_curves",
    "position_vectors",
    "positive_pmi",
    "sampled_softmax_loss",
    "sharpen_heads",
    "start_fusion",
    "thin_out",
    "token_vectors",
    "unigram_log_probabilities",
    "value_output_weights",
    "warm_start",
    "weight_on_offset",
    "word_starts",
]
