"""Checkpoints of the ports of ChineseBERT to Paddle, read without Paddle.

PaddleNLP (`paddlenlp.transformers.chinesebert`) and https://github.com/jiaqianjing/ChineseBERT-Paddle keep weights as
`model_state.pdparams`: a pickle of NumPy arrays. A pickle can run code, so the reader here builds arrays, strings and
containers and refuses everything else. Linear layers are transposed there, and encoder layers have other names.
"""

from __future__ import annotations

import json
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

PADDLE_WEIGHTS = "model_state.pdparams"

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


class _Type:
    """What a pickle says of an array's type. NumPy's own reader takes the file's word for how memory is laid out."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    @property
    def numpy(self) -> np.dtype[Any] | None:
        """The type, if it is one of numbers."""
        if not re.fullmatch(r"[fiu][1248]", self.name):
            return None
        return np.dtype({"<": "<", ">": ">", "|": "|", "=": "="}[self.order] + self.name)


class _Array:
    """What a pickle says of an array; NumPy gets to see its type, shape and bytes once they are known to fit."""

    def __init__(self) -> None:
        self.shape: Any = (0,)
        self.type: Any = _Type("f4")
        self.order: Literal["C", "F"] = "C"
        self.content: Any = b""

    def __setstate__(self, state: Any) -> None:
        self.shape, self.type, fortran, self.content = state[-4:]
        self.order = "F" if fortran else "C"

    @property
    def numpy(self) -> np.ndarray | None:
        """The array, if it is one of numbers, perhaps a view of the content.

        Raises:
            ValueError, TypeError: type, shape and content do not fit.
        """
        dtype = self.type.numpy
        if dtype is None:
            return None
        # Python 2 wrote bytes as text.
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        array = np.frombuffer(content, dtype).reshape(self.shape, order=self.order)
        return array.astype(dtype.newbyteorder("="), copy=False)  # torch knows the machine's own byte order only


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, *axes: Any) -> _Array:
    """An array of pickle protocol 5, whose memory is in the order C or F."""
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array has the memory order {order!r} {axes}, expected 'C' or 'F'")
    array = _Array()
    array.__setstate__((shape, kind, order == "F", content))
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes that a pickle of protocol 2 has as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes in the encoding {encoding!r}, expected 'latin1'")
    return text.encode("latin1")


_STAND_INS = {  # all that a pickle of named arrays refers to, from protocol 2 to 5 -> what is taken in its place
    "numpy.ndarray": _Array,
    "numpy.dtype": _Type,
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray.scalar": lambda *_: None,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
    "collections.OrderedDict": OrderedDict,
    "builtins.tuple": tuple,
    "builtins.bytearray": bytearray,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and containers; any other callable is an error, so that no code of the file runs."""

    def find_class(self, module: str, name: str) -> Any:
        module = re.sub(r"^numpy\._core\.", "numpy.core.", module)  # renamed in NumPy 2
        known = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if known not in _STAND_INS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not part of an array")
        return _STAND_INS[known]


def read_paddle_weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a `.pdparams` file under the names and in the orientation of torch's BERT.

    Raises:
        ValueError: the file is truncated or damaged, or holds something else than arrays.
    """
    try:
        with path.open("rb") as file:
            saved = _ArrayUnpickler(file, encoding="latin1").load()
        arrays = _named_arrays(saved)
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path} cannot be read as weights of Paddle ({type(error).__name__}: {error}). Expected a whole pickle "
            "of NumPy arrays, as paddle.save(model.state_dict(), …) writes; anything else is not loaded, because it "
            "could run code"
        ) from error
    state = {
        _translate(name): torch.from_numpy(np.array(array.T if _is_linear(name, array) else array))
        for name, array in arrays.items()
    }
    if "bert.embeddings.word_embeddings.weight" not in state:
        raise ValueError(f"{path} holds no embeddings.word_embeddings.weight: is it a ChineseBERT?")
    return state


def _named_arrays(saved: Any) -> dict[str, np.ndarray]:
    """The arrays of numbers that an unpickled file has by name."""
    if not isinstance(saved, dict):
        raise TypeError(f"it holds a {type(saved).__name__}, not a dictionary of arrays")
    arrays = {}
    for name, value in saved.items():
        # Since Paddle 2.1: (name, array).
        array = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if isinstance(array, _Array) and (numbers := array.numpy) is not None:  # else a table of internal names
            arrays[name] = numbers
    return arrays


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
