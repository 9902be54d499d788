"""Writing ChineseBERT as other folders: official checkpoints for the Auto classes, any model with its code.

- [`convert_official`] writes an official checkpoint as a folder that the Auto classes load, weight by weight.
- [`export_remote_code`] writes a folder that loads with `trust_remote_code=True` where this package is absent.

Nothing is left half-written: both fill a sibling folder and move it into place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import logging

from .official_chinesebert import (
    GLYPHS,
    FolderOrHub,
    OfficialLayout,
    full_name,
    gather_pinyin_tables,
    is_official_folder,
    official_layout,
    read_json,
    read_layout,
    read_weights,
    refuse_pointer,
)
from .paddle_chinesebert import PADDLE_WEIGHTS, read_paddle_config

__all__ = ["OfficialLayout", "convert_official", "export_remote_code", "is_official_folder", "official_layout"]

logger = logging.get_logger(__name__)

_QUESTION_ANSWERING = "ChineseBertForQuestionAnswering"
# Weights that tell a head -> class; "classifier" needs the architecture's name.
_HEADS = {"cls.predictions.": "ChineseBertForMaskedLM", "qa_outputs.": _QUESTION_ANSWERING}
_CLASSIFIERS = tuple(
    f"ChineseBertFor{task}" for task in ("SequenceClassification", "TokenClassification", "MultipleChoice")
)
_STRAYS = re.compile(r"(^|\.)position_ids$|^cls\.seq_relationship\.")  # buffers and a head that BERT no longer has
_AUTO_MODELS = {
    "AutoConfig": "configuration_chinesebert.ChineseBertConfig",
    "AutoModel": "modeling_chinesebert.ChineseBertModel",
    **{
        f"AutoModelFor{task}": f"modeling_chinesebert.ChineseBertFor{task}"
        for task in (
            *("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"),
        )
    },
}
_AUTO_TOKENIZER = ("tokenization_chinesebert", "ChineseBertTokenizer")


def convert_official(
    src: str | os.PathLike[str], dst: str | os.PathLike[str], overwrite: bool = False, **hub_options: Any
) -> Path:
    """Write an official checkpoint as a folder that `AutoModel` and `AutoTokenizer` load (after `import hf_nlpnotes`).

    Weights are copied bit by bit. The glyph table becomes one byte a pixel where that is exact, a quarter of its size;
    a table that was trained stays as it is. The folder needs nothing of the original.

    Args:
        src: folder or hub name: in the official layout, of the PyPI package `chinesebert`, or of PaddleNLP's port
            (`model_state.pdparams` with its configuration and tokenizer files).
        dst: folder to write.
        overwrite: replace `dst` when it holds a model.
        **hub_options: `revision`, `cache_dir`, `token`, `local_files_only`, … as of `from_pretrained`.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: `src` or a file of it is absent.
        OSError: the hub does not answer or has no such name.
        FileExistsError: `dst` exists and is not empty.
        ValueError: `src` is no ChineseBERT; a file is damaged, a Git LFS pointer, or contradicts another one.
    """
    # Here, because these modules read official folders by this one.
    from . import modeling_chinesebert as modeling
    from .configuration_chinesebert import ChineseBertConfig

    files = FolderOrHub(src, hub_options)
    if Path(src).resolve() == Path(dst).resolve():
        raise ValueError(f"{dst} is the folder to read: write to another one, the original is not replaced")
    _check_target(Path(dst), overwrite)  # before minutes of reading
    files.check()
    layout = official_layout(src, **hub_options) or _paddle_layout(files)
    if layout is None:
        raise ValueError(
            f"{files.source} is no ChineseBERT in a foreign layout. Expected a folder or hub name whose config.json "
            "says model_type bert, with pytorch_model.bin, vocab.txt and config/pinyin_map.json, or "
            "model_state.pdparams of the Paddle port; folders with model_type chinesebert load as they are"
        )
    state = {full_name(name): value for name, value in read_weights(layout.weights).items()}
    architecture, state = _architecture(layout, state)
    head = {"token_classifier": "mlp"} if "classifier.dense_layer.weight" in state else {}
    config = ChineseBertConfig(**{**layout.config, **head, "architectures": [architecture]})
    with torch.device("meta"):
        models = (getattr(modeling, architecture)(config), modeling.ChineseBertModel(config))
    state = _complete(layout, state, models)
    untied = _drop_tied(state, models[0].all_tied_weights_keys)
    config.tie_word_embeddings = not untied
    config.dtype = state["bert.embeddings.word_embeddings.weight"].dtype
    with _whole_folder(dst, overwrite) as folder:
        config.save_pretrained(folder)
        weights = folder / "model.safetensors"
        save_file({name: value.contiguous() for name, value in state.items()}, weights, {"format": "pt"})
        weights.chmod((folder / "config.json").stat().st_mode)  # safetensors writes for the owner alone
        _save_tokenizer(files, folder)
    return Path(dst)


def _paddle_layout(files: FolderOrHub) -> OfficialLayout | None:
    weights = files.find(PADDLE_WEIGHTS)
    if weights is None:
        return None
    config = read_paddle_config(files.find("model_config.json") or files.require("config.json"))
    return read_layout(files, config, (weights,))


def _architecture(layout: OfficialLayout, state: dict[str, torch.Tensor]) -> tuple[str, dict[str, torch.Tensor]]:
    """Class of the head whose weights are there, the bare encoder where there is none; the weights by its names."""
    stated = next(iter(layout.config["architectures"]), "")
    if stated == _QUESTION_ANSWERING:  # the Paddle port calls its layer a classifier
        state = {re.sub(r"^classifier\.", "qa_outputs.", name): value for name, value in state.items()}
    for prefix, architecture in _HEADS.items():
        if any(name.startswith(prefix) for name in state):
            return architecture, state
    if not any(name.startswith("classifier.") for name in state):
        return "ChineseBertModel", state
    if stated not in _CLASSIFIERS:
        raise ValueError(
            f"{layout.source} has weights of a classifier, but config.json does not say of which kind (architectures: "
            f"{stated or 'none'}): set its architectures to one of {', '.join(_CLASSIFIERS)}"
        )
    return stated, state


def _complete(
    layout: OfficialLayout, state: dict[str, torch.Tensor], models: Sequence[PreTrainedModel]
) -> dict[str, torch.Tensor]:
    """The weights of `models` (on the meta device), with the tables that the official layout keeps in other files.

    Raises:
        ValueError: weights of the encoder or the head are missing or have another shape.
    """
    state = dict(state)
    if layout.glyphs is not None:
        state[GLYPHS] = torch.from_numpy(layout.glyphs.reshape(len(layout.glyphs), -1))
    state["bert.embeddings.pinyin_table"] = torch.from_numpy(layout.pinyin_table.rows.copy())
    state["bert.embeddings.default_pinyin_ids"] = torch.from_numpy(layout.default_pinyin_ids)
    expected = {full_name(name): value for model in models for name, value in model.state_dict().items()}
    buffers = {full_name(name): value.dtype for model in models for name, value in model.named_buffers()}
    _check_weights(layout, state, expected, tied=set(models[0].all_tied_weights_keys))
    return {name: value.to(buffers.get(name, value.dtype)) for name, value in state.items() if name in expected}


def _check_weights(
    layout: OfficialLayout, state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tied: set[str]
) -> None:
    files = ", ".join(path.name for path in layout.weights)
    wrong = [
        f"{name} {tuple(value.shape)}, expected {tuple(expected[name].shape)}"
        for name, value in state.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if wrong:
        raise ValueError(f"{layout.source}: config.json does not fit the weights in {files}: {'; '.join(wrong[:5])}")
    optional = {name for name in expected if name.startswith("bert.pooler.")} | tied
    missing = sorted(expected.keys() - state.keys() - optional)
    if missing:
        raise ValueError(
            f"{layout.source}: {files} lacks {len(missing)} weights of the model that config.json describes, the "
            f"first are {', '.join(missing[:5])}"
        )
    unused = sorted(name for name in state.keys() - expected.keys() if not _STRAYS.search(name))
    if unused:
        logger.warning(
            "%s: %d weights have no place in the model and are left out: %s", layout.source, len(unused), unused
        )


def _drop_tied(state: dict[str, torch.Tensor], tied: dict[str, str]) -> list[str]:
    """Remove weights that are a copy of the one they are tied to; return the names of those that differ."""
    untied = []
    for name, source in tied.items():
        if name in state and source in state:
            if torch.equal(state[name], state[source]):
                del state[name]
            else:
                untied.append(name)
    return untied


def _save_tokenizer(files: FolderOrHub, folder: Path) -> None:
    from .tokenization_chinesebert import ChineseBertTokenizer

    stated = read_json(path) if (path := files.find("tokenizer_config.json")) else {}
    options = {name: stated[name] for name in ("do_lower_case", "model_max_length") if name in stated}
    with tempfile.TemporaryDirectory() as original:  # the tokenizer's files alone, in the official layout
        shutil.copyfile(files.require("vocab.txt"), Path(original, "vocab.txt"))
        gather_pinyin_tables(files, Path(original))
        ChineseBertTokenizer.from_pretrained(original, **options).save_pretrained(folder)


def _check_target(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} exists and is no folder")
    occupied = target.is_dir() and any(target.iterdir())
    if occupied and not overwrite:
        raise FileExistsError(
            f"{target} exists and is not empty: choose another folder, or pass overwrite=True to replace it"
        )
    if occupied and not (target / "config.json").is_file():
        raise FileExistsError(f"{target} holds no model (no config.json): it is not replaced, delete it yourself")


@contextmanager
def _whole_folder(dst: str | os.PathLike[str], overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which becomes `dst` when the block ends without an error and else disappears."""
    target = Path(dst)
    _check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        # mkdtemp makes a private folder; a model's folder gets the permissions that a new one would have.
        inner = temporary / "new"
        inner.mkdir()
        yield inner
        if target.exists():
            target.replace(temporary / "old")  # so that the name is never without a whole folder for long
        inner.replace(target)
    except BaseException:
        if (temporary / "old").exists() and not target.exists():
            (temporary / "old").replace(target)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def export_remote_code(model: Any, tokenizer: Any, dst: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a folder that loads with `trust_remote_code=True` where this package is not installed.

    Beside weights, configuration and tokenizer the folder holds the modules that define them, and `auto_map` entries
    that lead the Auto classes there. They need transformers, torch, NumPy, safetensors and, for the tokenizer,
    pypinyin. Where this package is imported, its own model classes load the folder, with or without
    `trust_remote_code`.

    Args:
        model: a ChineseBERT model, or a folder that holds one.
        tokenizer: its tokenizer; `None` to take the one in the model's folder.
        dst: folder to write.
        overwrite: replace `dst` when it holds a model.

    Returns:
        The folder.

    Raises:
        TypeError: the model or the tokenizer is no ChineseBERT's.
        FileNotFoundError: the folder holds no model or no tokenizer.
        FileExistsError: `dst` exists and is not empty.
    """
    with _whole_folder(dst, overwrite) as folder:
        _save_or_copy(model, folder)
        if tokenizer is not None:
            if type(tokenizer).__name__ != _AUTO_TOKENIZER[1]:
                raise TypeError(f"expected a {_AUTO_TOKENIZER[1]}, got a {type(tokenizer).__name__}")
            tokenizer.save_pretrained(folder)
        for name, stated, auto_map in (
            ("config.json", "model_type", _AUTO_MODELS),
            ("tokenizer_config.json", "tokenizer_class", {"AutoTokenizer": [None, ".".join(_AUTO_TOKENIZER)]}),
        ):
            path = folder / name
            if not path.is_file():
                raise FileNotFoundError(f"there is no {name} in {model}: pass a model with its tokenizer")
            settings = read_json(path)
            if "chinesebert" not in str(settings.get(stated)).lower():
                raise TypeError(f"{name} says {stated} {settings.get(stated)!r}, expected a ChineseBERT's")
            settings["auto_map"] = auto_map
            path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for module in _remote_modules():
            shutil.copyfile(module, folder / module.name)
    return Path(dst)


def _save_or_copy(model: Any, folder: Path) -> None:
    if not isinstance(model, (str, os.PathLike)):
        if getattr(getattr(model, "config", None), "model_type", None) != "chinesebert":
            raise TypeError(f"expected a ChineseBERT model or the folder of one, got a {type(model).__name__}")
        model.save_pretrained(folder)
        return
    source = Path(model)
    if not (source / "config.json").is_file():
        raise FileNotFoundError(f"{source} holds no model: there is no config.json")
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith("."):
            refuse_pointer(path)
            shutil.copyfile(path, folder / path.name)


def _remote_modules() -> list[Path]:
    """The modules of this folder that the classes above need, themselves included."""
    here = Path(__file__).parent
    entries = {here / f"{reference.partition('.')[0]}.py" for reference in _AUTO_MODELS.values()}
    entries.add(here / f"{_AUTO_TOKENIZER[0]}.py")
    return sorted(entries | {Path(path) for entry in entries for path in get_relative_import_files(entry)})
