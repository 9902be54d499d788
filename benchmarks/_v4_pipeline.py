"""Transformers 4's question-answering pipeline as a process: run by `qa_pipeline.py` in that environment's Python.

The arguments are the model's folder and one more folder to import from. Each line of the input is a JSON object with
`rows` and `options`; each line of the output has the CPU seconds and the answers.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Serves until the input ends."""
    folder, path = sys.argv[1:]
    if path:
        sys.path.append(path)
    import torch
    import transformers
    from transformers import AutoModelForQuestionAnswering, BertTokenizerFast, pipeline

    torch.set_num_threads(1)
    model = AutoModelForQuestionAnswering.from_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab_file=f"{folder}/vocab.txt", model_max_length=512)
    answer = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")
    print(json.dumps({"version": transformers.__version__}), flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        questions, contexts = ([row[name] for row in work["rows"]] for name in ("question", "context"))
        start = time.process_time()
        answers = answer(question=questions, context=contexts, **work["options"])
        seconds = time.process_time() - start
        print(json.dumps({"seconds": seconds, "answers": answers}), flush=True)


if __name__ == "__main__":
    main()
