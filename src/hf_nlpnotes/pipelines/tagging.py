"""The `sequence-tagging` pipeline: words, parts of speech, entities, arguments, slots and keywords from one tagger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from transformers.pipelines.base import Pipeline

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input
from hf_nlpnotes.tagging.decoding import TagDecoder, crf_of
from hf_nlpnotes.tagging.schemes import Span
from hf_nlpnotes.tagging.user_dictionary import UserDictionary, force_spans

from ._prompt_inputs import items_of
from ._tagging_documents import UNITS, Document, Units, batches, documents_of, encode
from ._tagging_options import TaggingOptions, check_count
from ._tagging_views import VIEWS, ScoredSpan

_BATCHES_AHEAD = 32
"""How many batches of a stream are sorted by length, and read into spans, together."""

_WHOLE_TEXT = ("words", "tagged_words")
"""Views that also list what is outside of every span."""


class SequenceTaggingPipeline(Pipeline):
    """Spans of a text from any model for token classification, read by the scheme that its labels are written in.

    What differs from the stock `token-classification`: every scheme is read right (BMES and BIOES too), output is
    always legal in its scheme, neighbouring entities stay apart, texts of any length are tagged in overlapping windows
    whose scores are brought together before anything is decoded, and spans are read from whole batches at once.

    Args:
        model, tokenizer, device, batch_size, …:
            As in every pipeline; the tokenizer must be a fast one.
        view (`str`, *optional*):
            What is made of the spans: `"entities"` (as the stock pipeline's aggregated ones), `"words"`,
            `"tagged_words"`, `"arguments"` of a predicate that the input marks, `"slots"` with the intent, or
            `"keywords"`, ranked. Default: what the labels are of.
        scheme (`str`, *optional*):
            The scheme of the labels. Default: the configuration's `tagging_scheme`, else `detect_scheme` names it.
        units (`str`, *optional*):
            What has a tag each: `"words"` (the first piece of each; where scripts have no spaces every token is one),
            `"characters"` or `"tokens"`. Default: the configuration's `tagging_units`, else `"words"`.
        decoding (`str`, defaults to `"auto"`):
            `"constrained"` gives the best legal sequence, `"crf"` that of the model's CRF, `"greedy"` the best tag of
            each unit. `"auto"` is `"crf"` where the model has one, else `"constrained"`.
        top_n (`int`, *optional*):
            Return that many readings of each text with their probabilities, `{"score", "output"}`, best first.
        force_words (`Iterable[str]`, `Mapping[str, str]` or `UserDictionary`, *optional*):
            Words that are spans wherever they stand, with their types where spans have types.
        combine_words (likewise):
            Words that are put together where neighbouring spans make them up.
        stride (`int`, *optional*):
            Tokens that neighbouring windows of a long text share. Default: a quarter of a window.
        max_length (`int`, *optional*):
            Tokens of a window. Default: what the model takes.
        overlap (`"mean"` or `"max_context"`, defaults to `"mean"`):
            Scores of a unit in several windows: their mean, or those with the most context.
        is_split_into_words (`bool`, defaults to `False`):
            Whether an input that is a list has the words of one text.
        delimiter (`str`, defaults to `" "`):
            What stands between such words in the text that offsets count in.

    Every option may be given when the pipeline is made or in a call.

    ```python
    tag = pipeline("sequence-tagging", model="…")
    tag("国足今晚出战")
    # [{"entity_group": "ORG", "score": 0.99, "word": "国足", "start": 0, "end": 2}]
    ```
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._options = TaggingOptions()
        self._decoders: dict[Any, TagDecoder] = {}
        super().__init__(*args, **kwargs)
        self.model.eval()  # one that has just been trained would answer at random
        self._decoder(self._options)  # labels that fit no scheme are told now, not at the first text

    @property
    def view(self) -> str:
        """What is made of the spans where a call does not say otherwise: the option, or what the labels are of."""
        return self._view(self._options, self._decoder(self._options))

    def _sanitize_parameters(
        self, local_files_only: bool | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        self._options = TaggingOptions().updated(options)  # from the constructor; a call has its own way
        return {}, {}, {}

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Tag one text or many.

        Args:
            inputs (`str`, `Mapping`, or a list, generator or data set of them):
                The text; or `{"text": …}` or `{"words": […]}`, with `"predicates": [(start, end), …]` (characters of
                the text, or words) where the model finds the arguments of a predicate that is marked as a segment.
            batch_size (`int`, *optional*):
                Windows a forward pass; does not change the answers. A generator or data set is read 32 batches ahead,
                and not at all with 1.
            num_workers (`int`, *optional*):
                Accepted, as in every pipeline; texts are read in this process.
            **kwargs:
                Any option of the class.

        Returns:
            One answer for one text, a list for a list, an iterator for a generator or data set. An answer is a list of
            dictionaries with `"word"`, `"start"`, `"end"` (characters of the input) and `"score"` (the mean
            probability of the tags), and the type's key: `"entity_group"`, `"tag"`, `"role"` or `"slot"`. With
            predicates it is a list of frames, `{"predicate", "arguments"}`; with slots `{"intent", "slots"}`.

        Raises:
            `ValueError`: an empty text, options or labels that do not fit; the message names the way out.
            `TypeError`: an input that is no text.
        """
        if args:
            raise ValueError(f"Unable to understand the extra arguments {args}: options are given by name.")
        kwargs.pop("num_workers", None)
        given = kwargs.pop("batch_size", None)
        given = self._batch_size if given is None else given
        check_count("batch_size", given, 1)
        batch_size = given or 1
        options = self._options.updated(kwargs)
        is_words = options.is_split_into_words and isinstance(inputs, Sequence) and len(inputs) > 0
        if is_words and all(isinstance(word, str) for word in inputs):
            inputs = {"words": inputs}
        kind, items = items_of(inputs)
        # One by one without batches: a text of a slow generator is answered before the next.
        ahead = 1 if kind == "stream" and batch_size == 1 else _BATCHES_AHEAD * batch_size
        answers = self._answers(items, options, batch_size, ahead)
        if kind == "stream":
            return answers
        found = list(answers)
        return found if kind == "list" else found[0]

    def _answers(self, items: Iterable[Any], options: TaggingOptions, batch_size: int, ahead: int) -> Iterator[Any]:
        iterator = iter(items)
        while block := list(islice(iterator, ahead)):
            grouped = [self.preprocess(item, options) for item in block]
            documents = [document for group, _ in grouped for document in group]
            self._encode(documents, options)
            for rows, windows in batches(documents, batch_size):
                inputs = accepted_inputs(self.model, _padded(windows, self.tokenizer))
                outputs = self.forward(inputs)
                for (document, number), logits in zip(rows, outputs["logits"], strict=True):
                    document.logits[number] = logits[: len(document.places[number])]
                if "text_logits" in outputs:
                    for (document, number), scores in zip(rows, outputs["text_logits"], strict=True):
                        if number == 0:
                            document.text_logits = scores
            outputs = iter(self.postprocess(documents, options))
            for group, has_predicates in grouped:
                answers = [next(outputs) for _ in group]
                yield _frames(group, answers) if has_predicates else answers[0]

    def preprocess(  # type: ignore[override]
        self, input_: Any, options: TaggingOptions
    ) -> tuple[list[Document], bool]:
        """The documents of an input, not yet encoded; see `documents_of`."""
        return documents_of(
            input_,
            self._units(options),
            is_split=options.is_split_into_words,
            delimiter=options.delimiter,
        )

    def _forward(self, input_tensors: dict[str, Any], **_: Any) -> dict[str, torch.Tensor]:  # type: ignore[override]
        outputs = self.model(**input_tensors)
        found = {"logits": outputs["logits"].float()}
        if outputs.get("text_logits") is not None:
            found["text_logits"] = outputs["text_logits"].float()
        return found

    def postprocess(  # type: ignore[override]
        self, model_outputs: Sequence[Document], options: TaggingOptions
    ) -> list[Any]:
        """Answers of documents that have their logits, all at once."""
        decoder = self._decoder(options)
        view, force = self._view(options, decoder), options.force_words
        logits = []
        for document in model_outputs:
            table = document.unit_logits(options.overlap)
            if force is not None:
                found = force.find(document.text, [(start, end) for start, end in document.units.tolist()])
                table = force_spans(table, found, decoder)
            logits.append(table)
        # What a tokenizer drops altogether has no unit, and no spans.
        answers = [
            None if len(table) else self._answer(document, [], view)
            for document, table in zip(model_outputs, logits, strict=True)
        ]
        filled = [number for number, answer in enumerate(answers) if answer is None]
        if not filled:
            return answers
        documents, tables = [model_outputs[number] for number in filled], [logits[number] for number in filled]
        if options.top_n is not None:
            for number, document, table in zip(filled, documents, tables, strict=True):
                answers[number] = self._readings(document, table, decoder, view, options)
            return answers
        stream, lengths = torch.cat(tables), [len(table) for table in tables]
        tags = decoder.decode(stream, lengths)
        spans = self._spans(documents, stream, tags, lengths, decoder, view, options)
        for number, document, row in zip(filled, documents, spans, strict=True):
            answers[number] = self._answer(document, row, view)
        return answers

    # --------------------------------------------------------------------------------------------------------- parts

    def _readings(
        self, document: Document, table: torch.Tensor, decoder: TagDecoder, view: str, options: TaggingOptions
    ) -> list[dict[str, Any]]:
        found = []
        for tags, probability in decoder.n_best(table, options.top_n or 1):
            (spans,) = self._spans([document], table, torch.tensor(tags), [len(tags)], decoder, view, options)
            found.append({"score": probability, "output": self._answer(document, spans, view)})
        return found

    def _spans(
        self,
        documents: Sequence[Document],
        stream: torch.Tensor,
        tags: torch.Tensor,
        lengths: Sequence[int],
        decoder: TagDecoder,
        view: str,
        options: TaggingOptions,
    ) -> list[list[ScoredSpan]]:
        """Spans of each document, in characters."""
        shares = decoder.tag_probabilities(stream, tags, lengths).double().numpy()
        ids = tags.numpy()
        types, starts, ends = decoder.spans(ids, lengths)
        if view in _WHOLE_TEXT:
            covered = np.zeros(len(ids) + 1, np.int64)
            np.add.at(covered, starts, 1)
            np.add.at(covered, ends, -1)
            outside = np.flatnonzero(np.cumsum(covered)[:-1] == 0)
            order = np.argsort(np.concatenate([starts, outside]), kind="stable")
            types = np.concatenate([types, np.full(len(outside), len(decoder.types) - 1)])[order]
            starts, ends = np.concatenate([starts, outside])[order], np.concatenate([ends, outside + 1])[order]
        sums = np.concatenate([[0.0], np.cumsum(shares)])
        scores = (sums[ends] - sums[starts]) / (ends - starts)
        units = np.concatenate([document.units for document in documents])
        names = [*decoder.types[:-1], None]
        found = list(
            map(
                ScoredSpan,
                [names[number] for number in types.tolist()],
                units[starts, 0].tolist(),
                units[ends - 1, 1].tolist(),
                scores.tolist(),
            )
        )
        bounds = np.searchsorted(starts, np.cumsum([0, *lengths])).tolist()
        rows = [found[first:last] for first, last in pairwise(bounds)]
        combine = options.combine_words
        if combine is not None:
            rows = [_combined(combine, document.text, row) for document, row in zip(documents, rows, strict=True)]
        return rows

    def _answer(self, document: Document, spans: list[ScoredSpan], view: str) -> Any:
        found = VIEWS[view](document.text, spans)
        if view != "slots":
            return found
        intent = None
        if document.text_logits is not None:
            shares = document.text_logits.softmax(-1)
            best = int(shares.argmax())
            intent = {"label": self.model.config.text_classes[best], "score": float(shares[best])}
        return {"intent": intent, "slots": found}

    def _view(self, options: TaggingOptions, decoder: TagDecoder) -> str:
        if options.view is not None:
            return options.view
        if getattr(self.model.config, "text_classes", None):
            return "slots"
        if decoder.types == ("", "O"):
            return "words"
        return "tagged_words" if not decoder.scheme.prefixed or "O" not in decoder.labels else "entities"

    def _units(self, options: TaggingOptions) -> Units:
        found: Units = options.units or getattr(self.model.config, "tagging_units", None) or "words"
        if found not in UNITS:
            raise ValueError(f"tagging_units of the configuration must be one of {', '.join(UNITS)}, got {found!r}")
        return found

    def _decoder(self, options: TaggingOptions) -> TagDecoder:
        config: Any = self.model.config
        scheme = options.scheme or getattr(config, "tagging_scheme", None)
        decoding = options.decoding
        crf = crf_of(self.model)
        if decoding == "crf" and crf is None:
            raise ValueError(f"decoding='crf', and {type(self.model).__name__} has none: expected 'constrained'")
        labels = tuple(config.id2label[number] for number in range(config.num_labels))
        key = (scheme, decoding, labels)
        # A CRF's scores change where the model is trained on: they are read anew for every call.
        if crf is not None or key not in self._decoders:
            self._decoders[key] = TagDecoder.of(
                labels,
                scheme,
                constrained=decoding != "greedy",
                crf=crf if decoding in ("auto", "crf") else None,
            )
        return self._decoders[key]

    def _encode(self, documents: Sequence[Document], options: TaggingOptions) -> None:
        limits = [longest_input(self.model, self.tokenizer), options.max_length]
        max_length = min((limit for limit in limits if limit is not None), default=None)
        encode(documents, self.tokenizer, self._units(options), max_length=max_length, stride=options.stride)


def _padded(windows: Sequence[dict[str, torch.Tensor]], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Inputs of one batch, (windows, seq)."""
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0)}
    return {
        name: torch.nn.utils.rnn.pad_sequence(
            [window[name] for window in windows], batch_first=True, padding_value=fill.get(name, 0)
        )
        for name in windows[0]
    }


def _frames(documents: Sequence[Document], answers: Sequence[Any]) -> list[dict[str, Any]]:
    frames = []
    for document, answer in zip(documents, answers, strict=True):
        assert document.predicate is not None
        start, end = document.predicate
        frames.append(
            {
                "predicate": {"word": document.text[start:end], "start": start, "end": end},
                "arguments": answer,
            }
        )
    return frames


def _combined(dictionary: UserDictionary, text: str, spans: list[ScoredSpan]) -> list[ScoredSpan]:
    merged = dictionary.combine(text, [Span(span.type or "", span.start, span.end) for span in spans])
    found, place = [], 0
    for span in merged:
        first = place
        while place < len(spans) and spans[place].end <= span.end:
            place += 1
        parts = spans[first:place]
        type_ = span.type or parts[0].type
        found.append(ScoredSpan(type_, span.start, span.end, sum(part.score for part in parts) / len(parts)))
    return found


__all__ = ["SequenceTaggingPipeline"]
