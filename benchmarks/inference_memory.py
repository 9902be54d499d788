"""Peak memory of a folded base ChineseBERT against plain BERT's: both loaded from disk, batch 8 × 128.

Each is measured in a fresh process (`ru_maxrss`), three times in turn. The folded model may need the folded table
more than BERT: the figure is its peak, through BERT's peak and that table. `folded` is what a model in eval mode does
by itself. `whole` folds the whole vocabulary first, which reads every weight: pages of the checkpoint's file, which
the system may take back but which count, and which BERT leaves unread for the tokens that do not occur.

    python benchmarks/inference_memory.py
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from _harness import Ratio, parser, report
from transformers import BertConfig, BertModel

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertModel

BATCH, LENGTH = 8, 128


def measure(kind: str, folder: str) -> None:
    """Load, infer and print the peak and the size of the whole folded table, in bytes: what a fresh process does."""
    torch.set_num_threads(1)
    ids = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH)
    table = 0
    with torch.no_grad():
        if kind == "bert":
            BertModel.from_pretrained(folder)(ids)
        else:
            model = ChineseBertModel.from_pretrained(folder)
            if kind == "whole":
                model.fold_embeddings(release=True)
            model(ids, torch.zeros_like(ids))
            table = 0 if model.embeddings.folded is None else model.embeddings.folded.nbytes
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, table]))


def peak(kind: str, folder: Path) -> tuple[int, int]:
    """Run `measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    first, second = json.loads(done.stdout.splitlines()[-1])
    return first, second


def main() -> int:
    """Save both models, measure and report."""
    options = parser(__doc__)
    options.add_argument("--measure", nargs=2, metavar=("KIND", "FOLDER"), help="(used by the script itself)")
    arguments = options.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = Path(folder, "ours"), Path(folder, "bert")
        config = ChineseBertConfig()
        ChineseBertModel(config).save_pretrained(ours)
        BertModel(BertConfig(vocab_size=config.vocab_size)).save_pretrained(peer)
        rounds = [[peak("bert", peer), peak("folded", ours), peak("whole", ours)] for _ in range(3)]
    bert, folded, whole = (statistics.median(figures[kind][0] for figures in rounds) for kind in range(3))
    table = rounds[0][2][1]  # the same size where its rows come as they are needed
    megabytes = {"bert": bert / 1e6, "folded": folded / 1e6, "whole": whole / 1e6, "table": table / 1e6}
    if not arguments.json:
        print("peak in MB:", ", ".join(f"{name} {figure:.0f}" for name, figure in megabytes.items()))
    return report(
        [
            Ratio("memory_folded", folded / (bert + table), goal=1.0, at_most=True, details=megabytes),
            Ratio("memory_whole", whole / (bert + table), goal=1.0, at_most=True, details=megabytes),
        ],
        as_json=arguments.json,
        packages=["torch", "transformers"],
    )


if __name__ == "__main__":
    sys.exit(main())
