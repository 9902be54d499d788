"""Train one step on every process, before and after `correct_loss_scaling`; the first process writes the norms."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.loss_scaling import correct_loss_scaling, loss_factor, warn_of_wrong_loss_scaling


def main(folder: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    quiet: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "intermediate_size": 32}
    ids = torch.randint(5, 40, (8, 6), generator=torch.Generator().manual_seed(3))
    data = [{"input_ids": row, "labels": i % 2} for i, row in enumerate(ids)]
    result: dict[str, Any] = {}
    for mended in (False, True):
        args = TrainingArguments(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=1,
            learning_rate=0.0,
            max_grad_norm=1e9,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
        )
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(**sizes, **quiet))
        result["warned"] = warn_of_wrong_loss_scaling(model, args)
        if mended:
            correct_loss_scaling(model)
        trainer = Trainer(model=model, args=args, train_dataset=data)
        trainer.train()
        norm = next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry)
        result["after" if mended else "before"] = float(norm)
    result |= {"world_size": args.world_size, "factor": loss_factor(args)}
    if args.process_index == 0:
        (folder / "norms.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_process_group()
