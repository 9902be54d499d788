"""The `zero-shot-prompt` pipeline: text classification by filling a prompt, with no training data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from transformers.pipelines.base import Pipeline

from hf_nlpnotes.model_inputs import longest_input
from hf_nlpnotes.prompting.causal_scoring import CausalPromptEncoder, fills_masks, is_causal
from hf_nlpnotes.prompting.config import PROMPT_FILE, PromptConfig
from hf_nlpnotes.prompting.encoding import PromptEncoder
from hf_nlpnotes.prompting.label_words import ready_label_words
from hf_nlpnotes.prompting.soft_prompts import save_tensors
from hf_nlpnotes.prompting.static_prior import StaticVectors
from hf_nlpnotes.prompting.template import Template
from hf_nlpnotes.prompting.verbalizer import Verbalizer

from ._prompt_bias import check_causal, check_label_is_last, has_contrast
from ._prompt_inputs import Kind, column_values, items_of
from ._prompt_options import are_per_text, checked, merged, options_of, prompt_of
from ._prompt_plan import Plan
from ._prompt_readers import CausalReader, MaskReader, Reader, SoftTokens
from ._prompt_samples import Sample
from ._prompt_scores import LabelScorer
from ._prompt_sources import source_of

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "{label}：{text}"
"""Suits topics and opinions alike; a template in the words of the task may do better."""

_UPLOAD_OPTIONS = frozenset(
    ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr", "tags", "token")
)

_KEPT_PLANS = 8
"""How many sets of options a pipeline remembers, so that calls in a loop do not tokenize the label words again."""


class ZeroShotPromptPipeline(Pipeline):
    """Classification by a prompt: the label whose words the masked language model expects most is the answer.

    The text is put into a template with masks where the label word goes, `[MASK][MASK]：国足今晚出战`, and every label
    is scored by the log-probability of its words there, however many tokens they have. Called with `candidate_labels`
    it answers as the stock `zero-shot-classification` does, at the cost of one forward pass a text and word length
    instead of one a label.

    A causal language model has no masks: each label word is written into the template, and its score is the
    log-likelihood of the prompt from the label on (see `hf_nlpnotes.prompting.causal_scoring`). Templates end with
    `{label}` there, as a rule.

    Args:
        model, tokenizer, device, batch_size, …:
            As in every pipeline; a masked or causal language model and its fast tokenizer, or a
            `PromptForSequenceClassification`, which brings both. The options in a `prompt.json` of the model's folder
            hold where no others are given.
        prompt (`str` or `PromptConfig`, *optional*):
            A stored prompt: a folder or repository with a `prompt.json`, in place of the model's own. Where no
            `model` is given, it is the one that the prompt names, or whose weights or adapter lie beside it.
        template (`str`, `Template`, a list of them, or `{template: weight}`, defaults to `DEFAULT_TEMPLATE`):
            The prompt, with one `{label}` and the columns of the input: `"{text}这是{label}评。"`. Several templates
            vote with the weighted mean of their scores.
        demonstrations (`Sequence[Mapping[str, str]]`, *optional*):
            Labelled examples for `{demos:2}` in a template: its columns, and `"label"`.
        verbalizer (`Mapping`, `Sequence[str]`, `Verbalizer` or `"ready"`, *optional*):
            The words of each label: `{"体育": ["体育", "足球"], "财经": "财经"}`, or with weights
            `{"体育": {"体育": 2, "足球": 1}}`. A label without words is its own word. `"ready"` takes the words of
            `hf_nlpnotes.prompting.READY_LABEL_WORDS` for the labels it knows, those that the vocabulary can spell.
        candidate_labels (`str`, `Sequence[str]` or `Sequence[Sequence[str]]`, *optional*):
            The labels, as a list or separated by commas; or a list of labels for each text.
        labels_column (`str`, *optional*):
            The column of the inputs that has the labels of each.
        hierarchy (`str`, *optional*):
            What stands between the levels of a label: with `"/"`, 体育/足球 is 足球 among the kinds of 体育.
        multi_label (`bool`, defaults to `False`):
            Whether several labels may be right. Each is then judged by itself: its score is the sigmoid of how much
            more its words are expected than in the texts of the calibration.
        calibration (`str`, defaults to `"contextual"`):
            `"none"`, `"contextual"`, `"domain"`, `"batch"` or `"prior"`: see `hf_nlpnotes.prompting.calibration`.
        calibration_texts (`Sequence`, *optional*):
            Texts to calibrate on: content-free ones for `contextual` and `domain`, an unlabelled sample for `batch`
            and `prior` (default: the inputs of the call, all of them, whatever the batch size).
        label_prior (`Mapping[str, float]` or `Sequence[float]`, *optional*):
            For `prior`: how frequent the labels are. Default: equally.
        bias (`Mapping[str, float]`, *optional*):
            What to subtract from each label's score, measured before; takes the place of measuring it.
        prior_weight (`float`, defaults to 0):
            Weight of the static similarity of text and label words beside the network's scores; 1 is as much. It
            takes its scale from the texts of the call.
        scoring (`str`, defaults to `"parallel"`):
            How words of several tokens are read: `"parallel"`, `"left-to-right"` or `"max-first"`.
        rerank (`int`, *optional*):
            How many of the best labels to look at again, with the pseudo-log-likelihood of their words; the others
            stay below them. One row a token of their words in a forward pass. 0 turns off a stored one.
        max_length (`int`, *optional*):
            Most tokens of an input. Default: what the model takes. Texts are cut where their slot says, templates
            never.
        top_k (`int`, *optional*):
            Return the best labels only; `None` returns all.

    Every option may be given when the pipeline is made or in a call.

    ```python
    classify = pipeline("zero-shot-prompt")
    classify("国足今晚出战世预赛", candidate_labels=["体育", "财经"])
    # {"sequence": "国足今晚出战世预赛", "labels": ["体育", "财经"], "scores": [0.9, 0.1]}
    ```
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = None  # a trained prompt brings its own

    def __init__(
        self, model: Any, tokenizer: Any = None, *args: Any, prompt: str | PromptConfig | None = None, **kwargs: Any
    ) -> None:
        self._options: dict[str, Any] = {}
        self._plans: dict[Any, Plan] = {}
        source = source_of(model, tokenizer, prompt, kwargs.get("task", ""), kwargs.get("dtype"))
        _refuse_unsuitable(source.model)
        source.model.eval()  # one that has just been trained would answer at random
        super().__init__(source.model, source.tokenizer, *args, **kwargs)
        self.tokenizer: Any
        self._stored, self.soft_prompt = source.prompt, source.soft_prompt
        self._adapter = model if hasattr(model, "prompted") else None
        self._is_causal = is_causal(source.model)
        if source.prompt is not None:
            self._options = merged(options_of(source.prompt), self._options)
        # A wrong template or label is told now, not at the first text.
        plan = self._plan(self._options)
        labels = self._options.get("candidate_labels", plan.own_labels())
        if labels is not None and not are_per_text(labels):
            plan.label_set(labels)

    def _sanitize_parameters(
        self, local_files_only: bool | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        self._options = checked(options)  # from the constructor; a call has its own way
        return {}, {}, {}

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Classify one text or many.

        Args:
            inputs (`str`, `Mapping[str, str]`, or a list, generator or data set of them):
                The text, or the columns that the template names.
            candidate_labels (`str`, `Sequence[str]` or `Sequence[Sequence[str]]`, *optional*):
                The labels; also as the second positional argument. Without it the verbalizer's labels are used.
            batch_size (`int`, *optional*):
                Prompts a forward pass; does not change the answers. Texts are put into batches by their length, 32
                batches ahead in a generator or data set.
            num_workers (`int`, *optional*):
                Accepted, as in every pipeline; texts are read in this process.
            **kwargs:
                Any option of the class.

        Returns:
            One answer for one text, a list for a list, an iterator for a generator or data set. With
            `candidate_labels` an answer is `{"sequence", "labels", "scores"}`, best first. With the labels of a
            verbalizer it is what `text-classification` gives: `{"label", "score"}`, the single best one wrapped in a
            list for a single string, and a list of the best with `top_k`.

        Raises:
            `ValueError`: see the message; it names the value and the way out.
            `TypeError`: a text that is no string.
        """
        if len(args) == 1 and "candidate_labels" not in kwargs:
            kwargs["candidate_labels"] = args[0]
        elif args:
            raise ValueError(f"Unable to understand the extra arguments {args}: options are given by name.")
        kwargs.pop("num_workers", None)
        batch_size = kwargs.pop("batch_size", None)
        batch_size = _batch_size(self._batch_size if batch_size is None else batch_size)
        # As text-classification does: a single string gives a list even for the single best label.
        wrapped = isinstance(inputs, str) and "top_k" not in kwargs
        options = merged(self._options, checked(kwargs))
        plan = self._plan(options)
        kind, items = items_of(inputs)
        samples = self._samples(items, kind, plan, options)
        answers = self._answers(samples, plan, options, batch_size)
        if kind == "stream":
            return answers
        if kind == "list":
            return list(answers)
        (answer,) = answers
        return [answer] if wrapped and not _is_zero_shot(options) else answer

    def _plan(self, options: Mapping[str, Any]) -> Plan:
        """The templates of a call, as encoders, and its words."""
        if self._is_causal:
            check_causal(options)
        templates = PromptConfig(template=options.get("template", DEFAULT_TEMPLATE)).templates
        limits = [longest_input(self.model, self.tokenizer), options.get("max_length")]
        max_length = min((limit for limit in limits if limit is not None), default=None)
        given = options.get("verbalizer")
        verbalizer = None if given is None or given == "ready" else Verbalizer.of(given)
        demonstrations = options.get("demonstrations")
        shown = tuple(tuple(row.items()) if isinstance(row, Mapping) else row for row in demonstrations or ())
        hierarchy = options.get("hierarchy")
        key = repr((templates, max_length, given == "ready", verbalizer, shown, hierarchy, len(self.tokenizer)))
        if key not in self._plans:
            readers = self._readers(templates, max_length, demonstrations)
            ready = None
            if given == "ready":
                can_spell = readers[0].can_spell

                def ready(labels: Sequence[str]) -> Mapping[str, Any]:
                    """The ready words that the vocabulary can spell; where it can spell none, the label itself."""
                    table = ready_label_words(labels).items()
                    return {label: [w for w in words if can_spell(w)] or label for label, words in table}

            while len(self._plans) >= _KEPT_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = Plan(readers, verbalizer, ready, hierarchy)
        return self._plans[key]

    def _readers(
        self, templates: Sequence[tuple[Template, float]], max_length: int | None, demonstrations: Any
    ) -> tuple[Reader, ...]:
        def vectors() -> StaticVectors:
            return StaticVectors.of(self.model, self.tokenizer)

        if self._is_causal:
            return tuple(
                CausalReader(
                    CausalPromptEncoder(template, self.tokenizer, max_length), weight, demonstrations, vectors
                )
                for template, weight in templates
            )
        trained = self._stored is not None and [one for one, _ in templates] == [t for t, _ in self._stored.templates]
        readers: list[Reader] = []
        first = 0
        for template, weight in templates:
            encoder = PromptEncoder(template, self.tokenizer, max_length)
            soft = SoftTokens(self.soft_prompt, first) if trained and self.soft_prompt is not None else None
            readers.append(MaskReader(encoder, weight, demonstrations, vectors, soft))
            first += len(encoder.soft_tokens)
        return tuple(readers)

    def _samples(self, items: Iterable[Any], kind: Kind, plan: Plan, options: Mapping[str, Any]) -> Iterator[Sample]:
        """The texts of a call with their labels; labels for all are checked at once."""
        column, labels = options.get("labels_column"), options.get("candidate_labels", plan.own_labels())
        if column is None and labels is None:
            raise ValueError(
                "No labels: give candidate_labels=['体育', '财经'], or a verbalizer with the words of each label."
            )
        if column is not None:
            return (_sample(item, plan, _labels_in(item, column)) for item in items)
        if not are_per_text(labels):
            plan.label_set(labels)
            return (_sample(item, plan, labels) for item in items)
        if kind != "stream" and len(labels) != len(list(items)):
            raise ValueError(
                f"candidate_labels has {len(labels)} lists of labels for {len(list(items))} texts: give one list for"
                " each text, or one list of labels for all."
            )
        return (_sample(item, plan, own) for item, own in _with_labels(items, labels))

    def _answers(
        self, samples: Iterator[Sample], plan: Plan, options: Mapping[str, Any], batch_size: int
    ) -> Iterator[Any]:
        zero_shot, top_k = _is_zero_shot(options), options.get("top_k")
        legacy = not zero_shot and "top_k" not in options
        for sample, scores in LabelScorer(self, plan, options, batch_size)(samples):
            paths = sample.labels.paths
            # As zero-shot-classification does: a single label is judged by itself.
            alone = options.get("multi_label", False) or (len(paths.labels) == 1 and has_contrast(options))
            if alone and self._is_causal:
                check_label_is_last([reader.template for reader in plan.readers])
            logs = (paths.log_sigmoids if alone else paths.log_probabilities)(scores[None])[0]
            shares, order = logs.exp().sort(descending=True, stable=True)
            labels = [paths.labels[i] for i in order.tolist()]
            if zero_shot:
                yield {"sequence": sample.item, "labels": labels[:top_k], "scores": shares.tolist()[:top_k]}
            else:
                best = [{"label": label, "score": score} for label, score in zip(labels, shares.tolist(), strict=True)]
                yield best[0] if legacy else best[:top_k]

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Save model, tokenizer and prompt into a folder.

        The options of the pipeline that a `PromptConfig` has go into `prompt.json`, so that
        `pipeline("zero-shot-prompt", model=FOLDER)` classifies as this one does. A call's own options are not the
        pipeline's. What has no place there (`candidate_labels`, `top_k`, …) is named in a warning of the log.

        Args:
            save_directory (`str` or `os.PathLike`):
                The folder, made where it is missing.
            push_to_hub (`bool`, defaults to `False`):
                Upload the same afterwards; `repo_id` and the other arguments are those of `push_to_hub`.
            **kwargs:
                For `save_pretrained` of the model and of the tokenizer: `max_shard_size`, ….
        """
        upload = {name: kwargs.pop(name) for name in _UPLOAD_OPTIONS & set(kwargs)}
        if self._adapter is None:
            super().save_pretrained(save_directory, **kwargs)
        else:  # the layers that it put into the model are no part of the model's own weights
            self._adapter.save_pretrained(save_directory)
        prompt, left_out = prompt_of(self._options, DEFAULT_TEMPLATE)
        if left_out:
            logger.warning(
                "%s does not hold %s: give them again when the pipeline is loaded.", PROMPT_FILE, ", ".join(left_out)
            )
        if prompt is not None:
            prompt.save_pretrained(save_directory)
            if (
                self.soft_prompt is not None
                and self._stored is not None
                and prompt.templates == self._stored.templates
            ):
                save_tensors(self.soft_prompt.state_dict(), save_directory)
        if push_to_hub:
            self.push_to_hub(upload.pop("repo_id", Path(save_directory).name), **upload)

    def preprocess(self, input_: Sample, reader: Reader) -> Sequence[Any]:  # type: ignore[override]
        """The inputs of a text: one for each length of label words, or for each word under a causal model."""
        return reader.encode(input_)

    def _forward(  # type: ignore[override]
        self, input_tensors: dict[str, Any], score: Callable[[dict[str, Any]], torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        return {"scores": score(input_tensors)}

    def postprocess(self, model_outputs: dict[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        """Scores of the words, float64 of shape (rows, words)."""
        return model_outputs["scores"].double()


def _refuse_unsuitable(model: Any) -> None:
    """Raise where a model fills no masks, or reads them without what it was trained on."""
    names = getattr(model.config, "architectures", None) or []
    if model.config.model_type == "bert" and any(name.startswith("Glyce") for name in names):
        # The Auto classes made a plain BERT of it; its folder says what it is.
        raise ValueError(
            f"{model.name_or_path} is a ChineseBERT in the official layout, loaded as a plain BERT without its pinyin"
            " and glyphs. Convert it (`hf-nlpnotes convert-chinesebert SRC DST`), or load it with"
            " ChineseBertForMaskedLM and ChineseBertTokenizer and pass model=…, tokenizer=…."
        )
    if getattr(model.config, "is_encoder_decoder", False) and not fills_masks(model):
        raise ValueError(
            f"{type(model).__name__} writes another text in place of filling masks in this one: give a masked language"
            " model (AutoModelForMaskedLM) or a causal one (AutoModelForCausalLM)."
        )


def _is_zero_shot(options: Mapping[str, Any]) -> bool:
    """Whether the labels come with the call, as in zero-shot-classification, rather than with a verbalizer."""
    return "candidate_labels" in options or "labels_column" in options


def _sample(item: Any, plan: Plan, labels: Sequence[str]) -> Sample:
    return Sample(item, column_values(item, plan.columns, plan.source), plan.label_set(labels))


def _with_labels(items: Iterable[Any], labels: Sequence[Sequence[str]]) -> Iterator[tuple[Any, Sequence[str]]]:
    """Each text with its own labels."""
    missing: Any = object()
    for item, own in zip_longest(items, labels, fillvalue=missing):
        if item is missing or own is missing:
            raise ValueError(
                f"candidate_labels has {len(labels)} lists of labels, and there are"
                f" {'fewer' if item is missing else 'more'} texts: give one list for each text, or one list of labels"
                " for all."
            )
        yield item, own


def _labels_in(item: Any, column: str) -> list[str]:
    """The labels that an input itself brings along."""
    if not isinstance(item, Mapping) or column not in item:
        raise ValueError(f"labels_column={column!r}, and the input has no such column: {item!r}.")
    labels: list[str] = checked({"candidate_labels": item[column]}).get("candidate_labels", [])
    return labels


def _batch_size(value: Any) -> int:
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"batch_size must be a positive whole number, got {value!r}.")
    return value
