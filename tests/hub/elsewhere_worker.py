"""Load what was pushed where hf_nlpnotes cannot be imported: `elsewhere_worker.py REPORT TEXTS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


class Blocker:
    """Makes the package look as if it were not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "hf_nlpnotes":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())  # type: ignore[arg-type]  # a finder needs no more than this method

# Below the blocker, on purpose:
import torch  # noqa: E402
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline  # noqa: E402


def refused(name: str) -> str:
    """The message with which the stock classes refuse a repository."""
    try:
        AutoModel.from_pretrained(name)
    except Exception as error:  # noqa: BLE001 -- the kind is part of the result
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    """Write what was found."""
    torch.set_num_threads(1)
    name, trusted = "someone/remote-code", {"trust_remote_code": True}
    model = AutoModelForSequenceClassification.from_pretrained(name, **trusted).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, **trusted)
    classify = pipeline("text-classification", model=name, **trusted)
    texts = json.loads(sys.argv[2])
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    found = {
        "modules": [type(thing).__module__.partition(".")[0] for thing in (model, tokenizer, classify.model)],
        "logits": logits.tolist(),
        "labels": [answer["label"] for answer in classify(texts)],
        "refused": {name: refused(f"someone/{name}") for name in ("base", "layers", "crf", "spans")},
        "imported": "hf_nlpnotes" in sys.modules,
    }
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
