"""Speed of the CMRC 2018 scorer, on one core, beside the official script.

Claim:
    qa_metrics    time of the official script (version 6) through ours, median of the rounds; at least 7

    python benchmarks/qa_metrics.py --data cmrc2018_dev.squad.json --official cmrc2018_evaluate.py
        [--nltk FOLDER] [--nltk-data FOLDER] [--predictions predictions.json]

FILE is the dev set in SQuAD's layout; without `--predictions` a question's prediction is one of its answers, cut or
lengthened at an end, or a span of its context, drawn by a seed. The official script is cmrc2018_evaluate.py of
ymcui/cmrc2018; it needs NLTK (`--nltk`: a folder to import it from, where it is not installed) and NLTK's Punkt model
(`--nltk-data`: the folder that has `tokenizers/punkt_tab`).

Before anything is timed both score every question, and must give the same figures to the last bit; and the words of
5,000 drawn strings of English and signs must be those of `nltk.word_tokenize`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from _harness import Ratio, interleave, median_ratio, no_ratio, parser, report

from hf_nlpnotes.question_answering.cmrc_metrics import cmrc2018
from hf_nlpnotes.question_answering.english_words import words

PIECES = [
    *".?! ,;'\"()[]{}<>«»‘„…@#$%&—–",
    *(". ", ".  ", "? ", "..", "...", ". . .", "''", " ", " ", " ", "\t", "\n", "\u3000"),
    *("a", "b", "the", "home", "cannot", "gonna", "wanna", "lemme", "d'ye", "more'n", "'tis", "'twas"),
    *("n't", "'s", "'ll", "'re", "'m", "1", "5", "3,000", "3.5", "u.s", "dr", "ph.d", "mr", "no", "administrators"),
    *("é", "ω", "〇", "㐀", "😀", "ａ", "５", "𝐀", "ー"),
]


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=None, help="dev set in SQuAD's layout")
    options.add_argument("--official", type=Path, default=None, help="the official script, cmrc2018_evaluate.py")
    options.add_argument("--nltk", default=None, help="folder to import NLTK from")
    options.add_argument("--nltk-data", default=None, help="folder with tokenizers/punkt_tab")
    options.add_argument("--predictions", type=Path, default=None, help="JSON file, id -> text")
    args = options.parse_args()
    data = read_data(args.data)
    official = load_official(args.official, args.nltk, args.nltk_data)
    predictions = json.loads(args.predictions.read_text("utf-8")) if args.predictions else drawn_predictions(data)
    check_words(official.nltk)
    scores = check_scores(official, predictions, data)
    peer, ours = interleave(
        [lambda: official.evaluate(data, predictions), lambda: cmrc2018(predictions, data)],
        rounds=args.rounds,
        collect=not args.no_gc,
    )
    details = {**scores, "seconds": {"official": min(peer), "ours": min(ours)}, "data": args.data.name}
    if not args.json:
        print(f"{scores['total']} questions, F1 {scores['f1']:.3f}, EM {scores['em']:.3f}: the same in both")
        print(f"seconds, best round: official {min(peer):.3f}, ours {min(ours):.4f}")
    ratio = Ratio("qa_metrics", median_ratio(peer, ours), 7, at_most=False, details=details)
    return report([ratio], as_json=args.json, packages=["hf_nlpnotes"])


def read_data(path: Path | None) -> dict[str, Any]:
    """The data set, or exit status 2."""
    if path is None and os.environ.get("HF_NLPNOTES_DATA"):
        path = Path(os.environ["HF_NLPNOTES_DATA"]) / "question_answering" / "cmrc2018_dev.squad.json"
    if path is None or not path.is_file():
        no_ratio(f"No data: --data {path} is not a file; give CMRC 2018's dev set in SQuAD's layout.")
    return json.loads(path.read_text("utf-8"))


def load_official(path: Path | None, nltk_folder: str | None, nltk_data: str | None) -> ModuleType:
    """The official script as a module, or exit status 2."""
    if path is None or not path.is_file():
        no_ratio(f"No peer: --official {path} is not a file; give cmrc2018_evaluate.py of ymcui/cmrc2018.")
    if nltk_folder:
        sys.path.append(nltk_folder)
    if nltk_data:
        os.environ["NLTK_DATA"] = nltk_data
    if importlib.util.find_spec("nltk") is None:
        no_ratio("No peer: the official script needs NLTK, which is not installed; see --nltk.")
    spec = importlib.util.spec_from_file_location("cmrc2018_evaluate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.nltk.word_tokenize("one. two.")
    except LookupError:
        no_ratio("No peer: NLTK has no Punkt model; see --nltk-data.")
    return module


def drawn_predictions(data: dict[str, Any]) -> dict[str, str]:
    """A prediction a question: a tenth is a random span, the rest answers, half of them with another end."""
    rng = random.Random(0)
    predictions = {}
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            for question in paragraph["qas"]:
                text = rng.choice(question["answers"])["text"]
                start = max(context.find(text), 0)
                end = start + len(text)
                kind = rng.random()
                if kind < 0.1:
                    start = rng.randrange(len(context))
                    end = start + rng.randint(1, 30)
                elif kind < 0.5:
                    start, end = max(0, start + rng.randint(-4, 4)), end + rng.randint(-4, 4)
                predictions[question["id"]] = context[start:end] or text
    return predictions


def check_words(nltk: Any) -> None:
    """Refuse to time unlike work: our words are NLTK's."""
    rng = random.Random(0)
    for _ in range(5000):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 14))).lower()
        if words(text) != nltk.word_tokenize(text):
            raise SystemExit(f"other words: {text!r} {words(text)} {nltk.word_tokenize(text)}")


def check_scores(official: Any, predictions: dict[str, str], data: dict[str, Any]) -> dict[str, Any]:
    """Refuse to time unlike work: the same figures, of every question and of all."""
    ours = cmrc2018(predictions, data, per_question=True)
    each = ours.pop("per_question")
    for article in data["data"]:
        for question in (question for paragraph in article["paragraphs"] for question in paragraph["qas"]):
            if question["id"] in predictions:
                answers, prediction = [answer["text"] for answer in question["answers"]], predictions[question["id"]]
                theirs = official.calc_f1_score(answers, prediction), official.calc_em_score(answers, prediction)
                assert each[question["id"]] == theirs, (question["id"], each[question["id"]], theirs)
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = official.evaluate(data, predictions)
    assert (ours["f1"], ours["em"], ours["total"], ours["skip"]) == theirs, (ours, theirs)
    return ours


if __name__ == "__main__":
    raise SystemExit(main())
