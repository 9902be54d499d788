"""Questions on texts for the examples: what the package reads, under the names that the examples use."""

from hf_nlpnotes.corpora import QUESTION_FEATURES as FEATURES
from hf_nlpnotes.corpora import read_question_file as read_file
from hf_nlpnotes.corpora import read_questions

__all__ = ["FEATURES", "read_file", "read_questions"]
