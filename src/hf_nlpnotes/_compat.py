"""What one supported release of transformers names otherwise than another. No other module asks which one is there."""

from typing import Final

from transformers import TrainingArguments

# The option of `TrainingArguments` that computes a layer's activations again in the backward pass. `<name>_kwargs` are
# its options, `<name>_enable()` is what a model has for it. Newer releases warn about the older name.
CHECKPOINTING: Final = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)
