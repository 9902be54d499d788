"""Embeddings and whole forward of a base ChineseBERT against plain BERT's, both stock size, batch 8 × 128.

The peer is transformers' `BertModel` (sdpa) with the same encoder weights. Both encoders must answer the same on the
same vectors, and the folded embeddings must equal the fusion, before anything is timed.

    python benchmarks/embedding_speed.py
"""

from __future__ import annotations

import sys

import torch
from _harness import Ratio, interleave, median_ratio, parser, report
from transformers import BertConfig, BertModel

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertModel

BATCH, LENGTH = 8, 128
EMBEDDING_CALLS = 20  # one call takes a millisecond or two: too short to time alone


def build() -> tuple[ChineseBertModel, BertModel, dict[str, torch.Tensor]]:
    """Build both models with the same encoder, and a batch."""
    torch.manual_seed(0)
    config = ChineseBertConfig()
    ours = ChineseBertModel(config).eval()
    ours.embeddings.glyph_embeddings.embedding.weight.random_(0, 256)
    ours.embeddings.glyph_map.weight.data.mul_(0.01)
    peer = BertModel(BertConfig(vocab_size=config.vocab_size)).eval()
    peer.load_state_dict({name: ours.state_dict()[name] for name in peer.state_dict()})
    for model in (ours, peer):
        model.set_attn_implementation("sdpa")
    shape = (BATCH, LENGTH)
    batch = {
        "input_ids": torch.randint(config.vocab_size, shape),
        "pinyin_ids": torch.randint(config.pinyin_table_size, shape),
        "token_type_ids": torch.zeros(shape, dtype=torch.long),
        "attention_mask": torch.ones(shape, dtype=torch.long),
    }
    return ours, peer, batch


def check(ours: ChineseBertModel, peer: BertModel, batch: dict[str, torch.Tensor]) -> None:
    """Refuse to time unlike work."""
    with torch.enable_grad():  # the fusion itself
        fused = ours.get_fused_embeddings(batch["input_ids"], batch["pinyin_ids"]).detach()
    rest = {name: batch[name] for name in ("token_type_ids", "attention_mask")}
    expected = peer(inputs_embeds=fused, **rest).last_hidden_state
    torch.testing.assert_close(ours(**batch).last_hidden_state, expected, rtol=0, atol=1e-4)


def main() -> int:
    """Time both and report."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    ours, peer, batch = build()
    plain = {name: tensor for name, tensor in batch.items() if name != "pinyin_ids"}
    tokens = {name: tensor for name, tensor in batch.items() if name != "attention_mask"}
    plain_tokens = {name: tensor for name, tensor in tokens.items() if name != "pinyin_ids"}

    def embed(embeddings: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        for _ in range(EMBEDDING_CALLS):
            embeddings(**inputs)

    with torch.no_grad():
        check(ours, peer, batch)
        embedding = interleave(
            [lambda: embed(ours.embeddings, tokens), lambda: embed(peer.embeddings, plain_tokens)],
            rounds=max(options.rounds, 5) * 4,
        )
        forward = interleave([lambda: ours(**batch), lambda: peer(**plain)], rounds=max(options.rounds, 5) * 3)
    return report(
        [
            Ratio("forward_base", median_ratio(*forward), goal=1.0, at_most=True),
            Ratio("embedding_base", median_ratio(*embedding), goal=1.5, at_most=True),
        ],
        as_json=options.json,
        packages=["torch", "transformers"],
    )


if __name__ == "__main__":
    sys.exit(main())
