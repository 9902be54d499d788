"""Pretraining a small masked language model: vocabulary, packing, and warm starts for small budgets.

Every technique is a room of its own: `vocabulary`, `packing`, `token_vectors`, `offset_heads`, `every_position`,
`fusion_start`. `examples/pretrain_chinesebert.py` puts them together.
"""

from .every_position import EveryPosition, sampled_softmax_loss
from .fusion_start import fuse_distinct, start_fusion
from .offset_heads import (
    DEFAULT_OFFSETS,
    calibrated_gain,
    frequencies,
    offset_head_weights,
    position_vectors,
    value_output_weights,
    weight_on_offset,
)
from .packing import TokenStream, cut_windows, encode_lines, is_held_out, read_windows, thin_out, word_starts
from .token_vectors import cooccurrence_counts, positive_pmi, token_vectors, unigram_log_probabilities
from .vocabulary import build_vocabulary

__all__ = [
    "DEFAULT_OFFSETS",
    "EveryPosition",
    "TokenStream",
    "build_vocabulary",
    "calibrated_gain",
    "cooccurrence_counts",
    "cut_windows",
    "encode_lines",
    "frequencies",
    "fuse_distinct",
    "is_held_out",
    "offset_head_weights",
    "position_vectors",
    "positive_pmi",
    "read_windows",
    "sampled_softmax_loss",
    "start_fusion",
    "thin_out",
    "token_vectors",
    "unigram_log_probabilities",
    "value_output_weights",
    "weight_on_offset",
    "word_starts",
]
