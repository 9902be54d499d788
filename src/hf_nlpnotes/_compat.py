"""What one supported release of transformers names or does otherwise than others. No other module asks which it is."""

import re
from typing import Any, Final

import torch
from transformers import TrainingArguments, __version__

# The option of `TrainingArguments` that computes a layer's activations again in the backward pass. `<name>_kwargs` are
# its options, `<name>_enable()` is what a model has for it. Newer releases warn about the older name.
CHECKPOINTING: Final = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)


def _on_a_numbered_cpu(storage: Any, location: str) -> Any:
    return storage if re.fullmatch(r"cpu:\d+", location) else None


# transformers 5.17 has each of several processes load a checkpoint to its device. That of a CPU is "cpu:0", of which
# torch knows "cpu" alone.
if __version__.startswith("5.17."):
    torch.serialization.register_package(100, lambda _: None, _on_a_numbered_cpu)
