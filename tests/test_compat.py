"""Names that differ between releases of transformers: the one that we choose is the installed release's own."""

import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, TrainingArguments

from hf_nlpnotes._compat import CHECKPOINTING


def test_activation_checkpointing_is_switched_on_under_its_name(tmp_path) -> None:
    """A name that the release has left behind would warn, which fails a test here."""
    options = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": False}}
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **options)
    assert arguments.gradient_checkpointing
    model = BertModel(BertConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1))
    getattr(model, f"{CHECKPOINTING}_enable")(arguments.gradient_checkpointing_kwargs)
    assert getattr(model, f"is_{CHECKPOINTING}")


@pytest.mark.skipif(not transformers.__version__.startswith("5.17."), reason="later releases load to the CPU")
def test_a_checkpoint_is_loaded_to_the_cpu_of_a_process(tmp_path) -> None:
    torch.save({"step": torch.tensor([1.0, 2.0])}, tmp_path / "optimizer.pt")
    loaded = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu", 0), weights_only=True)
    assert loaded["step"].tolist() == [1, 2]
