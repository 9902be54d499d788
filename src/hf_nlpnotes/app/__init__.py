"""A page in the browser to try all of it: classification, masks, tagging, question answering, attention.

Each tab is a function over strings, which needs no more than a pipeline; `page` puts them into a form made with
gradio, which the extra `app` installs. Nothing is asked of the network, except for models that are named and not yet
on this machine.
"""

from .answering import AnsweredText, answer_question
from .attention import attention_frame
from .classification import classify_text, parse_label_words, parse_labels
from .mask_filling import Candidate, FilledText, fill_masks, readings, ruby
from .models import AppOptions, Models, check_models
from .page import build, serve
from .space import export_space
from .tagging import TaggedText, find_words, parse_word_list, tag_text

__all__ = [
    "AnsweredText",
    "AppOptions",
    "Candidate",
    "FilledText",
    "Models",
    "TaggedText",
    "answer_question",
    "attention_frame",
    "build",
    "check_models",
    "classify_text",
    "export_space",
    "fill_masks",
    "find_words",
    "parse_label_words",
    "parse_labels",
    "parse_word_list",
    "readings",
    "ruby",
    "serve",
    "tag_text",
]
