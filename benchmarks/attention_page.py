"""Size of an attention page beside bertviz's, on the same weights.

    pip install --target DIR ipython && pip install --no-deps --target DIR bertviz==1.4.1
    python benchmarks/attention_page.py --bertviz DIR

A BERT of 12 layers and 12 heads with random parameters, large enough for its heads to differ, reads one sentence of
128 tokens. Both pages hold all its weights; ours holds the queries and keys of one layer too. Before the sizes, the
weights in both pages are read back and compared with the model's: bertviz's to 1e-6, ours to 1/510. A page of 512
tokens is made as well.
"""

import importlib
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import Ratio, no_ratio, parser, report
from numpy.typing import NDArray
from transformers import BertConfig, BertModel, set_seed

from hf_nlpnotes.attention import AttentionMaps, head_statistics, head_view
from hf_nlpnotes.attention.capture import capture_inputs

TOKENS = 128
LONG = 512
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def captured(model: BertModel, tokens: int) -> AttentionMaps:
    """Attention on one sentence of random tokens."""
    ids = torch.randint(model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0))
    return capture_inputs(model, {"input_ids": ids})


def base_model() -> BertModel:
    """A BERT as large as the base model where attention is concerned."""
    set_seed(0)
    config = BertConfig(vocab_size=1000, intermediate_size=64, initializer_range=0.06)
    return BertModel(config, add_pooling_layer=False).eval()


def weights_in_our_page(document: str, maps: AttentionMaps) -> NDArray[np.float64]:
    """Weights of a page, (layers, heads, queries, keys), read as the page's own script reads them."""
    digits = {
        char: place for place, char in enumerate(char for char in map(chr, range(35, 127)) if char not in "&<>\\")
    }
    found = []
    (data,) = DATA.findall(document)
    for index, layer in enumerate(json.loads(data)["layers"]):
        packed = layer["weights"]
        numbers = np.array([digits[char] for char in packed["data"]], dtype=np.uint64).reshape(-1, 5)
        words = (numbers * np.array([85**power for power in (4, 3, 2, 1, 0)], dtype=np.uint64)).sum(1)
        raw = np.frombuffer(zlib.decompress(words.astype(">u4").tobytes()[: packed["size"]]), dtype=np.uint8)
        heads, queries, keys = maps[index].weights.shape
        shifts = raw[: heads * queries].reshape(heads, queries, 1)
        codes = raw[2 * heads * queries :].reshape(heads, keys, queries).swapaxes(1, 2)
        found.append(codes / (255.0 * 2.0**shifts))
    return np.stack(found)


def bertviz_page(path: str, maps: AttentionMaps) -> str:
    """The head view of bertviz as it would be saved."""
    sys.path.insert(0, path)
    try:
        view = importlib.import_module("bertviz").head_view
    except ImportError as error:
        no_ratio(f"bertviz cannot be imported from {path}: {error}")
    finally:
        sys.path.remove(path)
    attention = [torch.from_numpy(layer.weights.copy())[None] for layer in maps.layers]
    page: Any = view(attention, list(maps.tokens.tokens), html_action="return")
    return str(page.data)


def check(ours: str, theirs: str, maps: AttentionMaps) -> None:
    """Raise if one of the pages does not hold the model's weights."""
    expected = maps.weights()
    found = np.array(
        json.JSONDecoder().raw_decode(theirs[theirs.index('{"attention": [{') :])[0]["attention"][0]["attn"]
    )
    if np.abs(found - expected).max() > 1e-6:
        raise ValueError("bertviz's page has other weights than the model")
    if np.abs(weights_in_our_page(ours, maps) - expected).max() > 1 / 510 + 1e-6:
        raise ValueError("our page has other weights than the model")


def main() -> int:
    """Make the pages, compare what they hold, print their sizes."""
    options = parser(__doc__)
    options.add_argument("--bertviz", metavar="PATH", help="folder that bertviz was installed into")
    args = options.parse_args()
    if args.bertviz is None or not Path(args.bertviz).is_dir():
        no_ratio(f"bertviz is the peer: name the folder that has it with --bertviz (got {args.bertviz})")
    torch.set_num_threads(1)

    model = base_model()
    maps = captured(model, TOKENS)
    ours, theirs = head_view(maps, layer=4, head=3).html, bertviz_page(args.bertviz, maps)
    check(ours, theirs, maps)
    entropies = np.stack([layer.entropy for layer in head_statistics(maps)])
    sizes = len(ours.encode()), len(theirs.encode())
    shell = sizes[0] - len(DATA.findall(ours)[0].encode())
    long = len(head_view(captured(model, LONG), layer=4, head=3).html.encode())
    if not args.json:
        print(f"entropy of the heads: {entropies.min():.2f} to {entropies.max():.2f} of {np.log(TOKENS):.2f} nats")
        print(f"{TOKENS} tokens: ours {sizes[0] / 1e6:.3f} MB, bertviz {sizes[1] / 1e6:.1f} MB")
    details = {"bytes": sizes[0], "peer_bytes": sizes[1], "tokens": TOKENS}
    ratios = [
        Ratio("attention page, bertviz / ours", sizes[1] / sizes[0], 100, at_most=False, details=details),
        Ratio(f"attention page of {TOKENS} tokens, MB", sizes[0] / 1e6, 1.2, at_most=True),
        Ratio("attention page without its data, kB", shell / 1e3, 20, at_most=True),
        Ratio(f"attention page of {LONG} tokens, MB", long / 1e6, 20, at_most=True),
    ]
    return report(ratios, as_json=args.json, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main())
