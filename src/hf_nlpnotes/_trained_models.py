"""Models loaded for a task where their heads were trained for it: a new head would answer at random, in silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# Files of an adapter and of a prompt, which may stand alone: they name their model.
STANDING_ALONE: Final = ("adapter_config.json", "prompt.json")


def load_trained(head: str, name: str, *, work: str, way_out: str, **options: Any) -> tuple[Any, Any]:
    """A model whose head has been trained, and its tokenizer.

    Args:
        head: what the head is for, as the Auto classes name it: "TokenClassification", "QuestionAnswering", …
        name: folder or name on the hub, of a model or an adapter.
        work: what the model must have learnt to do, for the message.
        way_out: what the message advises.
        **options: for `from_pretrained`.

    Raises:
        ValueError: the checkpoint has another head, or no weights for this one.
        OSError: it cannot be loaded.
    """
    import transformers

    # Heads for different things may have weights of the same names: ask for the class too.
    found = head_of(name, **options)
    if found is not None and found != head:
        kind = f"a model for {found}" if found else "an encoder without a head"
        raise _untrained(name, work, f"it is {kind}", way_out)
    with naming_the_model(name):
        auto_class = getattr(transformers, f"AutoModelFor{head}")
        try:
            model, report = auto_class.from_pretrained(name, output_loading_info=True, **options)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise ValueError(
                f"the model {name!r} is an adapter with another number of labels than its base model, and stores"
                " nothing of them: merge the two (merge_and_unload, then save_pretrained), and name that folder"
            ) from error
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
    # Of an adapter, buffers that no checkpoint has are reported, too.
    missing = set(report["missing_keys"]) - {key for key, _ in model.named_buffers()}
    if missing:
        raise _untrained(name, work, f"its checkpoint has no {', '.join(sorted(missing))}", way_out)
    return model, tokenizer


def _untrained(name: str, work: str, why: str, way_out: str) -> ValueError:
    return ValueError(f"the model {name!r} was not trained to {work}: {why}; {way_out}")


def head_of(name: str, **options: Any) -> str | None:
    """What a checkpoint's head is for: "MaskedLM", "SequenceClassification", …; "" without one, None if not told.

    Args:
        name: folder or name on the hub; of a folder with an adapter or a prompt alone nothing is told.
        **options: for `AutoConfig.from_pretrained`.

    Raises:
        OSError: its configuration cannot be loaded.
    """
    from transformers import AutoConfig

    folder = Path(name)
    if not (folder / "config.json").is_file() and any((folder / file).is_file() for file in STANDING_ALONE):
        return None
    with naming_the_model(name):
        config = AutoConfig.from_pretrained(name, **options)
    for architecture in config.architectures or ():
        if "LMHead" in architecture or architecture.endswith("ForPreTraining"):
            return "MaskedLM" if architecture.endswith("ForPreTraining") else "CausalLM"
        return architecture.rpartition("For")[2] if "For" in architecture else ""
    return None


@contextmanager
def naming_the_model(name: str) -> Iterator[None]:
    """Name the model in errors of loading it.

    Args:
        name: of the model.
    """
    try:
        yield
    except OSError as error:
        raise OSError(f"the model {name!r} cannot be loaded: {error}") from error
