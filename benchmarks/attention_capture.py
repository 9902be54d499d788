"""CPU time of capturing attention, beside an eager forward of the same model: the work that can't be avoided.

A random BERT of base size on 128 tokens; with `--fallback` a DeBERTa-v2 of the same size, whose attention is caught
from the products that feed its softmaxes. The captured weights are first compared with the model's own output.

    python benchmarks/attention_capture.py
"""

from __future__ import annotations

import sys

import _harness
import numpy as np
import torch
from transformers import AutoModel, BertConfig, DebertaV2Config, PreTrainedModel

from hf_nlpnotes.attention import capture_inputs

SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TOLERANCE = 1e-6


def main() -> int:
    """Compare the weights, time both, print the ratio."""
    parser = _harness.parser(__doc__)
    parser.add_argument("--tokens", type=int, default=128, help="length of the input (default: 128)")
    parser.add_argument("--fallback", action="store_true", help="a model that does not use the interface")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModel.from_config(config(fallback=options.fallback), attn_implementation="eager").eval()
    ids = torch.randint(5, 1000, (1, options.tokens))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    compare(model, inputs)

    def forward() -> object:
        with torch.no_grad():
            return model(**inputs)

    mine, eager = _harness.interleave(
        [lambda: capture_inputs(model, inputs), forward], rounds=options.rounds, collect=not options.no_gc
    )
    name = "attention capture through the fallback" if options.fallback else "attention capture"
    ratio = _harness.Ratio(
        name,
        _harness.median_ratio(mine, eager),
        1.2,
        at_most=True,
        details={"capture_seconds": mine, "eager_seconds": eager, "tokens": options.tokens},
    )
    return _harness.report([ratio], as_json=options.json, packages=["transformers", "torch"])


def config(*, fallback: bool) -> BertConfig | DebertaV2Config:
    """Return the config of base size."""
    if not fallback:
        return BertConfig(**SIZES)
    return DebertaV2Config(
        **SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=256, share_att_key=True
    )


def compare(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> None:
    """Raise where the captured weights are not the model's own."""
    with torch.no_grad():
        expected = model(**inputs, output_attentions=True).attentions
    for layer, weights in zip(capture_inputs(model, inputs).layers, expected, strict=True):
        np.testing.assert_allclose(layer.weights, weights[0].numpy(), atol=TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
