"""Which of an encoder's hidden states a task reads, and how several become one.

A selection has a short form for command lines and configuration files:

| written                    | hidden states             | size of the result |
|----------------------------|---------------------------|--------------------|
| `embeddings`               | what the first layer reads | hidden             |
| `layer:3`                  | output of the third layer | hidden             |
| `top`, `layer:-1`          | output of the last layer  | hidden             |
| `last:4:mean`, `last:4:max` | of the last four layers  | hidden             |
| `last:4:concat`            | side by side, lowest first | 4 · hidden        |
| `layers:0,6,12:mean`       | those of the list         | hidden             |
| `mix`, `all:mix`           | all, in a `ScalarMix`     | hidden             |
| `last:4:mix`               | the last four in a `ScalarMix` | hidden        |

Numbers are those of `output_hidden_states` in transformers: 0 is the embeddings, 1 the first layer, and negative ones
count from the top, -1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

COMBINATIONS = ("mean", "max", "concat", "mix")
"""How several hidden states become one."""

_FORMS = (
    "'embeddings', 'top', 'layer:N', 'mix', or 'last:K:HOW', 'layers:N,N,…:HOW', 'all:HOW' "
    f"with HOW one of {', '.join(COMBINATIONS)}"
)


@dataclass(frozen=True)
class LayerSelection:
    """Some of an encoder's hidden states, and how they are combined.

    Args:
        layers: Numbers of the hidden states as in `output_hidden_states`, or None for all of them.
        combine: "mean", "max", "concat" or "mix"; None for a single layer.

    Raises:
        ValueError: no layers, a layer twice, one layer with `combine` or several without, or an unknown `combine`.
        TypeError: layers that are no whole numbers.

    >>> LayerSelection.parse("last:4:mean")
    LayerSelection(layers=(-4, -3, -2, -1), combine='mean')
    >>> LayerSelection.parse("last:4:mean").indices(12)
    (9, 10, 11, 12)
    >>> str(LayerSelection(None, "mix"))
    'mix'
    """

    layers: tuple[int, ...] | None
    combine: str | None = None

    def __post_init__(self) -> None:
        if self.combine is not None and self.combine not in COMBINATIONS:
            raise ValueError(f"Layers are combined by one of {', '.join(COMBINATIONS)}, got {self.combine!r}")
        if self.layers is None:
            if self.combine is None:
                raise ValueError("All layers are selected: say how they are combined, as in 'all:mean' or 'mix'")
            return
        object.__setattr__(self, "layers", tuple(self.layers))
        for layer in self.layers:
            if isinstance(layer, bool) or not isinstance(layer, int):
                raise TypeError(f"Layers are whole numbers, got {layer!r}")
        if not self.layers:
            raise ValueError(f"No layer is selected: expected {_FORMS}")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"The layers {list(self.layers)} name one of them twice")
        if self.combine is None and len(self.layers) > 1:
            raise ValueError(
                f"The layers {list(self.layers)} are several: say how they are combined, one of "
                f"{', '.join(COMBINATIONS)}, as in 'last:{len(self.layers)}:mean'"
            )

    @classmethod
    def parse(cls, selection: str | LayerSelection) -> LayerSelection:
        """Read the short form; a selection is returned as it is.

        Args:
            selection: the short form, or a selection.

        Raises:
            ValueError: the string is of no known form; the message lists them.
            TypeError: neither a string nor a selection.
        """
        if isinstance(selection, LayerSelection):
            return selection
        if not isinstance(selection, str):
            raise TypeError(f"A selection of layers is a string or a LayerSelection, got {selection!r}")
        which, *rest = selection.strip().lower().split(":")
        if which in ("embeddings", "top", "mix") and not rest:
            return {"embeddings": cls((0,)), "top": cls((-1,)), "mix": cls(None, "mix")}[which]
        if which == "layer" and len(rest) == 1 and _is_number(rest[0]):
            return cls((int(rest[0]),))
        if which == "all" and len(rest) == 1:
            return cls(None, rest[0])
        if which == "last" and len(rest) in (1, 2) and re.fullmatch(r"[1-9]\d*", rest[0]):
            return cls(tuple(range(-int(rest[0]), 0)), *rest[1:])
        if which == "layers" and len(rest) in (1, 2) and all(map(_is_number, rest[0].split(","))):
            return cls(tuple(map(int, rest[0].split(","))), *rest[1:])
        raise ValueError(f"{selection!r} is no selection of layers: expected {_FORMS}")

    def __str__(self) -> str:
        """The short form, which `parse` reads."""
        if self.layers is None:
            return "mix" if self.combine == "mix" else f"all:{self.combine}"
        if self.combine is None:
            (layer,) = self.layers
            return {0: "embeddings", -1: "top"}.get(layer, f"layer:{layer}")
        if self.layers == tuple(range(-len(self.layers), 0)):
            return f"last:{len(self.layers)}:{self.combine}"
        return f"layers:{','.join(map(str, self.layers))}:{self.combine}"

    def indices(self, num_layers: int) -> tuple[int, ...]:
        """The numbers of the hidden states in an encoder of `num_layers` layers: 0 to `num_layers`, ascending.

        Raises:
            ValueError: the encoder has no such layer, or two numbers mean the same one.
        """
        if self.layers is None:
            return tuple(range(num_layers + 1))
        for layer in self.layers:
            if not -num_layers - 1 <= layer <= num_layers:
                raise ValueError(
                    f"'{self}' selects layer {layer}, and the encoder has {num_layers}: expected 0 (the embeddings) "
                    f"to {num_layers}, or -1 (the top) to {-num_layers - 1}"
                )
        found = sorted(layer % (num_layers + 1) for layer in self.layers)
        if len(set(found)) < len(found):
            raise ValueError(f"'{self}' selects a layer twice in an encoder of {num_layers} layers: {found}")
        return tuple(found)

    def width(self, num_layers: int) -> int:
        """How many times the hidden size the result has: the number of layers if they are concatenated, else 1.

        Args:
            num_layers: layers of the encoder.
        """
        return len(self.indices(num_layers)) if self.combine == "concat" else 1

    def select(self, hidden_states: Sequence[torch.Tensor]) -> torch.Tensor:
        """Apply the selection to the whole tuple `output_hidden_states` gives; not for "mix", which has weights.

        Args:
            hidden_states: L + 1 tensors `(batch, seq, hidden)`, the embeddings first.

        Returns:
            `(batch, seq, hidden)`, or `(batch, seq, layers · hidden)` for "concat".

        Raises:
            ValueError: the selection is a mix, or there is no such layer.
        """
        if self.combine == "mix":
            raise ValueError(f"'{self}' has weights to be learned: call a ScalarMix on the hidden states")
        chosen = [hidden_states[index] for index in self.indices(len(hidden_states) - 1)]
        if self.combine is None:
            return chosen[0]
        if self.combine == "concat":
            return torch.cat(chosen, dim=-1)
        stacked = torch.stack(chosen)
        return stacked.mean(dim=0) if self.combine == "mean" else stacked.max(dim=0).values


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


__all__ = ["COMBINATIONS", "LayerSelection"]
