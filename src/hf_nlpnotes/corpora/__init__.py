"""Labelled data from the usual files, ready for the stock Trainer: texts with labels, tagged sentences, questions.

| task | reads |
|---|---|
| classification | `read_texts` |
| sequence tagging | `read_tagged` with a reader of one file: `read_columns`, `read_conllu`, … |
| question answering | `read_questions`, `read_question_file` |
"""

from .labelled_texts import read_texts
from .questions import QUESTION_FEATURES, read_question_file, read_questions
from .sentences import TaggedSentence, of_keywords, of_roles, of_text, of_words
from .tagged_files import (
    READERS,
    read_columns,
    read_conllu,
    read_json_lines,
    read_keywords,
    read_roles,
    read_segmented,
    read_tagged,
    read_utterances,
)

__all__ = [
    "QUESTION_FEATURES",
    "READERS",
    "TaggedSentence",
    "of_keywords",
    "of_roles",
    "of_text",
    "of_words",
    "read_columns",
    "read_conllu",
    "read_json_lines",
    "read_keywords",
    "read_question_file",
    "read_questions",
    "read_roles",
    "read_segmented",
    "read_tagged",
    "read_texts",
    "read_utterances",
]
