"""In a process of its own: load every adapter of a folder by the stock call, and print what the models say.

    python methods_worker.py FOLDER

FOLDER has `base-HEAD`, models, and `HEAD-METHOD`, adapters. The last line printed is a JSON object from the name of
an adapter to the sums of its outputs.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from peft import PeftModel

from hf_nlpnotes.adapters import prepare_prompt_learning


def inputs(head: str) -> dict[str, torch.Tensor]:
    """Two texts of ten tokens, the second one padded."""
    ids = torch.arange(2, 22).view(2, 10)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    batch = {"input_ids": ids, "pinyin_ids": ids % 8, "attention_mask": mask}
    if head == "MultipleChoice":
        batch = {name: value[:, None].repeat(1, 2, 1) for name, value in batch.items()}
    return batch


def output(model: torch.nn.Module, head: str) -> list[float]:
    """All scores of a model in a row."""
    with torch.no_grad():
        found = model.eval()(**inputs(head))
    scores = [found.start_logits, found.end_logits] if head == "QuestionAnswering" else [found.logits]
    return torch.cat([score.flatten() for score in scores]).tolist()


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    outputs = {}
    for path in sorted(folder.iterdir()):
        head, _, _ = path.name.partition("-")
        if head == "base":
            continue
        base = getattr(transformers, f"AutoModelFor{head}").from_pretrained(folder / f"base-{head}")
        outputs[path.name] = output(prepare_prompt_learning(PeftModel.from_pretrained(base, str(path))), head)
    print(json.dumps(outputs))


if __name__ == "__main__":
    main()
