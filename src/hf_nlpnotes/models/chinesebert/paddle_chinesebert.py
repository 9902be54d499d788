"""Checkpoints of the ports of ChineseBERT to Paddle, read without Paddle.

PaddleNLP (`paddlenlp.transformers.chinesebert`) and https://github.com/jiaqianjing/ChineseBERT-Paddle keep weights as
`model_state.pdparams`: a pickle of NumPy arrays. A pickle can run code, so the reader here builds arrays, strings and
containers and refuses everything else. Linear layers are transposed there, and encoder layers have other names.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

PADDLE_WEIGHTS = "model_state.pdparams"

_NUMPY_CORE = "numpy._core." if hasattr(np, "_core") else "numpy.core."
_ALLOWED = {  # all that a pickle of named arrays needs, from protocol 2 to 5
    *("numpy.ndarray", "numpy.dtype", "_codecs.encode", "collections.OrderedDict"),
    *("builtins.tuple", "__builtin__.tuple", "builtins.bytearray", "__builtin__.bytearray"),
    *(_NUMPY_CORE + name for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")),
}
_NAMES = (  # pattern there -> name here
    (r"^(chinesebert|bert)\.", ""),
    (r"\.layer_norm\.(weight|bias)$", r".LayerNorm.\1"),
    (r"^encoder\.layers\.", "encoder.layer."),
    (r"\.self_attn\.q_proj\.", ".attention.self.query."),
    (r"\.self_attn\.k_proj\.", ".attention.self.key."),
    (r"\.self_attn\.v_proj\.", ".attention.self.value."),
    (r"\.self_attn\.out_proj\.", ".attention.output.dense."),
    (r"\.norm1\.", ".attention.output.LayerNorm."),
    (r"\.norm2\.", ".output.LayerNorm."),
    (r"\.linear1\.", ".intermediate.dense."),
    (r"\.linear2\.", ".output.dense."),
    (r"^cls\.predictions\.transform\.", "cls.predictions.transform.dense."),
    (r"^cls\.predictions\.LayerNorm\.", "cls.predictions.transform.LayerNorm."),
    (r"^cls\.predictions\.decoder_weight$", "cls.predictions.decoder.weight"),
    (r"^cls\.predictions\.decoder_bias$", "cls.predictions.bias"),
    (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),
)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and containers; any other callable is an error, so that no code of the file runs."""

    def find_class(self, module: str, name: str) -> Any:
        module = re.sub(r"^numpy\._?core\.", _NUMPY_CORE, module)  # renamed in NumPy 2
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not part of an array")
        return super().find_class(module, name)


def read_paddle_weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a `.pdparams` file under the names and in the orientation of torch's BERT.

    Raises:
        ValueError: the file is truncated or damaged, or holds something else than arrays.
    """
    try:
        with path.open("rb") as file:
            saved = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path} cannot be read as weights of Paddle ({type(error).__name__}: {error}). Expected a whole pickle "
            "of NumPy arrays, as paddle.save(model.state_dict(), …) writes; anything else is not loaded, because it "
            "could run code"
        ) from error
    if not isinstance(saved, dict):
        raise ValueError(f"{path} should hold a dictionary of arrays, it holds a {type(saved).__name__}")
    state = {}
    for name, value in saved.items():
        array = value[1] if isinstance(value, tuple) and len(value) == 2 else value  # since Paddle 2.1: (name, array)
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiu":  # else a table of internal names
            state[_translate(name)] = torch.from_numpy(np.array(array.T if _is_linear(name, array) else array))
    if "bert.embeddings.word_embeddings.weight" not in state:
        raise ValueError(f"{path} holds no embeddings.word_embeddings.weight: is it a ChineseBERT?")
    return state


def _translate(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _is_linear(name: str, array: np.ndarray) -> bool:
    return array.ndim == 2 and name.endswith(".weight") and not re.search(r"embeddings?\.weight$", name)


def read_paddle_config(path: Path) -> dict[str, Any]:
    """`model_config.json` (or the later `config.json`) of a Paddle folder as a dictionary of BERT's options."""
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        options: dict[str, Any] = {}
        while isinstance(stated, dict):  # a head keeps the model's options as its first argument
            options = {**{name: value for name, value in stated.items() if name != "init_args"}, **options}
            arguments = stated.get("init_args")
            stated = arguments[0] if isinstance(arguments, list) and arguments else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): download it again") from error
    if options.get("pool_act", "tanh") != "tanh":
        raise ValueError(f"{path}: pool_act is {options['pool_act']!r}; BERT's pooler has tanh")
    architectures = options.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    named = options.pop("init_class", None) or first
    if not isinstance(named, str):
        raise ValueError(f"{path}: the model's class is {named!r}, expected a name: download the file again")
    _, has_head, task = named.partition("For")
    head = f"ChineseBertFor{task.replace('Pretraining', 'MaskedLM')}" if has_head else "ChineseBertModel"
    labels = options.pop("num_classes", None)
    kept = {name: value for name, value in options.items() if name not in ("pool_act", "name_or_path", "dropout")}
    return {**kept, "architectures": [head], **({"num_labels": labels} if labels else {})}
