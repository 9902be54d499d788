"""Tokenizer of ChineseBERT: BERT's word pieces, and a reading of each.

The official way (Sun et al., ACL 2021, https://arxiv.org/abs/2106.16038) reads the raw sentence with pypinyin and
hands each token of one character the reading of the character at its offset. Here a token carries one integer, the
number of that reading in a table, so that `pinyin_ids` is padded, truncated and collated as `input_ids` is.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from transformers import BatchEncoding, BertTokenizer

from .pinyin_alignment_chinesebert import Row, align, align_by_offsets, to_rows
from .pinyin_chinesebert import PINYIN_FILE_NAME, PinyinTable, default_readings, read_json, to_tone_mark, write_json
from .pinyin_reader_chinesebert import SMALL, SPLIT, PinyinReader, kinds_of

VOCAB_FILES_NAMES = {
    "vocab_file": "vocab.txt",
    "tokenizer_file": "tokenizer.json",
    "pinyin_file": PINYIN_FILE_NAME,
    "pinyin_map_file": "config/pinyin_map.json",
    "pinyin_tensor_file": "config/pinyin2tensor.json",
}
"""A saved tokenizer has `pinyin.json`, a checkpoint in the released layout the two files under `config`."""

_OFFICIAL_MAX_LENGTH = 512
"""Positions of the released models, whose folders hold no tokenizer configuration that would say so."""


class ChineseBertTokenizer(BertTokenizer):
    """BERT's tokenizer on the Rust backend, with the reading of each token as `pinyin_ids`.

    Takes every call form of `BertTokenizer` and gives the same, plus `pinyin_ids`: one integer a token, the row of
    `pinyin_table` that holds its letters. Row 0 means no pinyin and is the padding. A token has pinyin if it stands
    for exactly one character of the text and pypinyin reads that character, in the context of the raw text; also when
    the token is unknown to the vocabulary. The two texts of a pair do not see each other. The words of a text that is
    split into words are read as if they were written together.

    Args:
        vocab (`str` or `dict[str, int]`, *optional*):
            Vocabulary, or the path of a `vocab.txt` with a token a line. A blank line counts as a token.
        phrases (`Mapping[str, Sequence[str]]`, *optional*):
            Readings of phrases, see `add_phrases`.
        pinyin_file (`str`, *optional*): A `pinyin.json`, as `save_pretrained` writes it.
        pinyin_map_file, pinyin_tensor_file (`str`, *optional*):
            The two files of a checkpoint in the released layout. Without any file the default table is taken.
        **kwargs: Everything that `BertTokenizer` takes.

    Raises:
        ValueError: One of the two released pinyin files alone, or a file of another layout.

    Example:
        >>> tokenizer = ChineseBertTokenizer.from_pretrained(folder)  # doctest: +SKIP
        >>> batch = tokenizer(["我喜欢猫"])  # doctest: +SKIP
        >>> tokenizer.decode_with_pinyin(batch["input_ids"], batch["pinyin_ids"])  # doctest: +SKIP
        ['[CLS]我(wǒ)喜(xǐ)欢(huān)猫(māo)[SEP]']
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "token_type_ids", "attention_mask", "pinyin_ids"]

    def __init__(
        self,
        vocab: str | dict[str, int] | None = None,
        do_lower_case: bool = True,
        *,
        phrases: Mapping[str, Sequence[str] | str] | None = None,
        pinyin_file: str | None = None,
        pinyin_map_file: str | None = None,
        pinyin_tensor_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        if pinyin_file is None and pinyin_map_file and pinyin_tensor_file and not kwargs.get("tokenizer_file"):
            kwargs.setdefault("model_max_length", _OFFICIAL_MAX_LENGTH)
        if isinstance(vocab, (str, os.PathLike)):
            vocab = _read_vocabulary(Path(vocab))
        super().__init__(vocab, do_lower_case, **kwargs)
        if pinyin_file is not None:
            self._reader = _reader_from_file(pinyin_file)
        elif pinyin_map_file is not None or pinyin_tensor_file is not None:
            if pinyin_map_file is None or pinyin_tensor_file is None:
                raise ValueError(
                    "A checkpoint in the released layout has both config/pinyin_map.json and"
                    f" config/pinyin2tensor.json; found only {pinyin_map_file or pinyin_tensor_file}."
                )
            self._reader = PinyinReader(PinyinTable.from_official_files(pinyin_map_file, pinyin_tensor_file))
        else:
            self._reader = PinyinReader(PinyinTable.default())
        if phrases:
            self.add_phrases(phrases)

    # Readings

    @property
    def pinyin_table(self) -> np.ndarray:
        """Letters of the readings, (readings, 8) uint8, to be indexed by `pinyin_ids`; row 0 is all zeros."""
        return self._reader.table.rows

    @property
    def readings(self) -> PinyinTable:
        """The table behind `pinyin_ids`: reading → row and row → letters."""
        return self._reader.table

    @property
    def phrases(self) -> dict[str, list[str]]:
        """The readings given to `add_phrases`."""
        return self._reader.phrases

    @property
    def default_pinyin_ids(self) -> np.ndarray:
        """Reading of each token of the vocabulary out of context, (len(self),) int64; 0 where it has none."""
        tokens = [token or "" for token in self.convert_ids_to_tokens(list(range(len(self))))]
        rows = default_readings(tokens, self._reader.table)
        alone = {phrase: rows[0] for phrase, rows in self._reader.phrases.items() if len(phrase) == 1}
        for number, token in enumerate(tokens if alone else ()):
            if (character := token.removeprefix("##")) in alone:
                rows[number] = self._reader.table.index(alone[character])
        return rows

    def add_phrases(self, phrases: Mapping[str, Sequence[str] | str]) -> None:
        """Sets how phrases are read, over pypinyin's dictionary; they are saved with the tokenizer.

        Args:
            phrases (`Mapping[str, Sequence[str] | str]`):
                A reading for each character of each phrase: `{"重庆": ["chong2", "qing4"]}`, or
                `{"重庆": "chóng qìng"}`. As in pypinyin, a text is cut into the longest phrases from the left; a
                phrase of one character is the reading of that character outside of phrases.

        Raises:
            ValueError: A phrase is not made of Chinese characters, has another number of readings than characters, or
                a reading that the table lacks. No phrase is then added.
        """
        self._reader = PinyinReader(self._reader.table, {**self._reader.phrases, **phrases})

    def train_new_from_iterator(self, *args: Any, **kwargs: Any) -> ChineseBertTokenizer:
        """As of `BertTokenizer`: a new vocabulary, trained on texts; the readings stay, and the phrases.

        Args:
            *args: As of `BertTokenizer`.
            **kwargs: As of `BertTokenizer`.
        """
        trained: ChineseBertTokenizer = super().train_new_from_iterator(*args, **kwargs)
        trained._reader = self._reader
        return trained

    def decode_with_pinyin(
        self, input_ids: Any, pinyin_ids: Any, *, tone_marks: bool = True, skip_special_tokens: bool = False
    ) -> str | list[str]:
        """Text with the reading behind each character: `"我(wǒ)喜(xǐ)欢(huān)猫(māo)"`.

        Args:
            input_ids: Token ids, (seq,) or (batch, seq); lists, arrays or tensors.
            pinyin_ids: Rows of the pinyin table, of the same shape.
            tone_marks (`bool`, defaults to `True`): `wǒ`; otherwise the letters that the model sees, `wo3`.
            skip_special_tokens (`bool`, defaults to `False`): Leaves out `[CLS]`, `[SEP]`, padding and the like.

        Returns:
            A string, or a list of them for a batch.

        Raises:
            ValueError: The two are not equally long, or a reading is not in the table.
        """
        token_rows, pinyin_rows = _to_list(input_ids), _to_list(pinyin_ids)
        if len(token_rows) != len(pinyin_rows):
            raise ValueError(
                f"Expected as many pinyin_ids as input_ids, got {len(pinyin_rows)} and {len(token_rows)}."
            )
        if token_rows and isinstance(token_rows[0], list):
            options = {"tone_marks": tone_marks, "skip_special_tokens": skip_special_tokens}
            return [
                str(self.decode_with_pinyin(tokens, rows, **options))
                for tokens, rows in zip(token_rows, pinyin_rows, strict=True)
            ]
        special = set(self.all_special_ids) if skip_special_tokens else ()
        table, text, glue = self._reader.table, "", True
        for token_id, row in zip(token_rows, pinyin_rows, strict=True):
            if token_id in special:
                continue
            if not 0 <= row < len(table):
                raise ValueError(f"pinyin_ids must be rows of the table, from 0 to {len(table) - 1}, got {row}.")
            token = str(self.convert_ids_to_tokens(token_id) or "")
            piece = token.removeprefix("##")
            letters = table.spelling(row)
            # Blanks only between two words that would otherwise run together.
            word = not letters and piece[:1].isalnum() and piece[:1].isascii()
            text += " " if word and not glue and token == piece else ""
            text += f"{piece}({to_tone_mark(letters) if tone_marks else letters})" if letters else piece
            glue = not word
        return text

    # Encoding

    def _encode_plus(  # type: ignore[override]
        self, text: Any, text_pair: Any = None, **kwargs: Any
    ) -> BatchEncoding:
        # A batch makes tens of thousands of lists, none of them in a cycle. The collector, which they would call up,
        # walks pypinyin's 200,000 lists every time: a third of the whole.
        collecting = gc.isenabled()
        gc.disable()
        try:
            output = super()._encode_plus(text, text_pair, **kwargs)
            if "pinyin_ids" in self.model_input_names and output.encodings is not None:
                self._add_pinyin(output, to_rows(text, text_pair, bool(kwargs.get("is_split_into_words"))), **kwargs)
        except TypeError:
            _refuse_surrogates(text)
            _refuse_surrogates(text_pair)
            raise
        finally:
            if collecting:
                gc.enable()
        return output

    def _add_pinyin(
        self,
        output: BatchEncoding,
        rows: list[Row],
        *,
        is_split_into_words: bool = False,
        return_overflowing_tokens: bool = False,
        return_tensors: Any = None,
        **_: Any,
    ) -> None:
        """Puts `pinyin_ids` into what the backend has made of the rows."""
        encodings = output.encodings
        assert encodings is not None
        pinyin_ids: np.ndarray | list[list[int]]
        if return_overflowing_tokens:
            samples = np.asarray(output["overflow_to_sample_mapping"]).tolist()
            pinyin_ids = align_by_offsets(rows, encodings, samples, reader=self._reader)
        elif is_split_into_words or sum(len(text) for row in rows for text in row) < SMALL:
            pinyin_ids = align_by_offsets(rows, encodings, range(len(rows)), reader=self._reader)
        else:
            input_ids = output["input_ids"]
            if return_tensors is not None or not isinstance(input_ids[0], list):
                input_ids = [encoding.ids for encoding in encodings]
            flat, ends = align(rows, encodings, input_ids, tokens=_token_codes(self), reader=self._reader)
            if return_tensors is not None:
                pinyin_ids = flat.reshape(len(rows), -1).astype(np.int64)
            else:
                listed, places = flat.tolist(), ends.tolist()
                pinyin_ids = [listed[start:end] for start, end in zip([0, *places], places, strict=False)]

        if return_tensors is not None:
            output.update(BatchEncoding({"pinyin_ids": pinyin_ids}, tensor_type=return_tensors))
        else:
            # An empty text and an empty batch look alike; the latter has no row.
            batched = not pinyin_ids or (bool(output["input_ids"]) and isinstance(output["input_ids"][0], list))
            output["pinyin_ids"] = pinyin_ids if batched else pinyin_ids[0]

    def _pad(  # type: ignore[override]
        self, encoded_inputs: Any, *, padding_side: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        padded: dict[str, Any] = super()._pad(encoded_inputs, padding_side=padding_side, **kwargs)
        if "pinyin_ids" in padded:
            pinyin_ids = padded["pinyin_ids"]
            missing = len(padded[self.model_input_names[0]]) - len(pinyin_ids)
            # Rows of the table, or letters where somebody has looked them up already.
            none = [0] * len(pinyin_ids[0]) if pinyin_ids and isinstance(pinyin_ids[0], (list, tuple)) else 0
            filling = [none] * missing
            left = (padding_side or self.padding_side) == "left"
            padded["pinyin_ids"] = filling + pinyin_ids if left else pinyin_ids + filling
        return padded

    def _save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        file_names = super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = Path(save_directory) / (prefix + PINYIN_FILE_NAME)
        write_json(path, {**self._reader.table.to_dict(), "phrases": self._reader.phrases})
        return (*file_names, str(path))


# Held outside of the instances: a tokenizer is hashed by `datasets`, and a call must not change the hash.
_TOKEN_CODES: WeakKeyDictionary[ChineseBertTokenizer, tuple[int, np.ndarray]] = WeakKeyDictionary()


def _token_codes(tokenizer: ChineseBertTokenizer) -> np.ndarray:
    """Code point of each token that is one character which BERT splits off, else 0, (vocab,) int32."""
    size, codes = _TOKEN_CODES.get(tokenizer, (0, np.zeros(0, dtype=np.int32)))
    if size != len(tokenizer):
        vocabulary = tokenizer.get_vocab()
        codes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int32)
        for token, number in vocabulary.items():
            if len(token) == 1:
                codes[number] = ord(token)
        codes[kinds_of(codes) & SPLIT == 0] = 0
        _TOKEN_CODES[tokenizer] = len(tokenizer), codes
    return codes


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Token → line number. A blank line is a token; only line feeds separate, for U+2028 is a token as well."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no vocabulary in UTF-8: {error}.") from error
    if lines[-1] == "":
        lines.pop()
    return {line.removesuffix("\r"): number for number, line in enumerate(lines)}


def _reader_from_file(path: str | os.PathLike[str]) -> PinyinReader:
    data = read_json(Path(path))
    try:
        return PinyinReader(PinyinTable.from_dict(data), data.get("phrases"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_surrogates(texts: Any) -> None:
    """Name the half of a surrogate pair that the backend calls an input of a wrong type."""
    if isinstance(texts, (list, tuple)):
        for text in texts:
            _refuse_surrogates(text)
    elif isinstance(texts, str):
        try:
            texts.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"The text has half of a surrogate pair, {texts[error.start]!r}, as its character {error.start}: "
                "replace it, as text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') does."
            ) from None


def _to_list(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)
