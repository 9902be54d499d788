"""The tabs: fields and a button around each function.

Every tab has one button, one line for errors, and its answers. Whatever a function refuses, its message stands in that
line, and nothing of an earlier answer stays beside it. All work goes through one queue, one call at a time.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from typing import Any

from .answering import answer_question
from .attention import attention_frame
from .classification import CALIBRATIONS, WORDS, classify_text
from .mask_filling import MASK, fill_masks, ruby
from .models import Models
from .tagging import find_words, only_words, tag_text

_TRAIN_TAGGER = """\
**There is no tagging model here, and a masked language model cannot tag.** Train one with a copy of the repository
(about a minute without a GPU), and start again with it:

```
python examples/ner.py --output_dir tagger
hf-nlpnotes app --tagger tagger
```

Until then this tab only finds the words of your list in the text, the longest first; no model is asked.
"""

_TRAIN_READER = """\
**There is no model for question answering here, and a masked language model cannot answer.** Train one with a copy of
the repository (about a minute without a GPU), and start again with it:

```
python examples/question_answering.py --output_dir reader
hf-nlpnotes app --reader reader
```
"""

_NEWS = "体育，财经，科技，娱乐，教育，房产"


def _classify_tab(gr: Any, models: Models) -> None:
    def classify(text: str, labels: str, words: str, own: str, template: str, calibration: str) -> tuple[Any, ...]:
        return (classify_text(models.classifier(), text, labels, words, own, template, calibration),)

    with gr.Row():
        with gr.Column():
            text = gr.Textbox(label="Text", lines=3, value="国足今晚出战亚洲杯")
            labels = gr.Textbox(label="Labels, separated by commas", value=_NEWS)
            with gr.Accordion("Prompt, label words, calibration", open=False):
                template = gr.Textbox(
                    label="Template with {label} and {text}",
                    placeholder="{label}：{text}",
                    info="Empty: {label}：{text}",
                )
                words = gr.Radio(
                    list(zip(("ready ones", "the labels themselves", "my own"), WORDS, strict=True)),
                    value="ready",
                    label="Label words",
                    info="Ready ones are for common topics and opinions; other labels have themselves.",
                )
                own = gr.Textbox(
                    label="My own words, a label a line", lines=3, placeholder="体育: 足球 比赛 球队", visible=False
                )
                calibration = gr.Radio(
                    list(CALIBRATIONS),
                    value="contextual",
                    label="Calibration",
                    info="Takes out what the model prefers before it has read the text.",
                )
            button = gr.Button("Classify", variant="primary")
        with gr.Column():
            error = gr.HTML(visible=False)
            scores = gr.Label(label="Scores", show_label=True)
    words.change(lambda kind: gr.update(visible=kind == "own"), words, own, queue=False, api_visibility="private")
    _run(gr, button, classify, [text, labels, words, own, template, calibration], error, [scores], "classify")
    _examples(
        gr,
        [
            ["央行下调贷款利率，多家银行跟进", _NEWS, ""],
            ["新款手机换上自研芯片，电池续航翻倍", _NEWS, "下面报道一则{label}新闻。{text}"],
            ["屏幕用了两天就坏了，客服一直不回复，后悔买了", "好评，差评", "{text}总的来说{label}。"],
        ],
        [text, labels, template],
    )


def _masks_tab(gr: Any, models: Models) -> None:
    def fill(text: str, top_k: float) -> tuple[Any, ...]:
        filled = fill_masks(models.filler(), text, top_k)
        rows = [[one.mask, one.token, one.pinyin, f"{one.score:.3f}"] for one in filled.candidates]
        note = "" if any(pinyin for _, pinyin in filled.characters) else _note("The model reads no pinyin.")
        caption = '<p class="nlp-caption">Filled, with the pinyin that the model is given</p>'
        return f'{caption}<p class="nlp-ruby" lang="zh">{ruby(filled.characters)}</p>{note}', rows

    with gr.Row():
        with gr.Column():
            text = gr.Textbox(label=f"Text with {MASK}", lines=3, value="他在银[MASK]工作，每天步行上班。")
            top_k = gr.Slider(1, 20, value=5, step=1, label="Candidates")
            button = gr.Button("Fill", variant="primary")
        with gr.Column():
            error = gr.HTML(visible=False)
            filled = gr.HTML()
            table = _table(gr, "Candidates", ["mask", "token", "pinyin", "score"])
    _run(gr, button, fill, [text, top_k], error, [filled, table], "fill_masks")
    _examples(
        gr, [["北京是中国的首[MASK]。"], ["我[MASK]欢看电[MASK]。"], ["孩子们在公[MASK]里玩耍，长大了很多。"]], [text]
    )


def _tagging_tab(gr: Any, models: Models) -> None:
    def tag(text: str, word_list: str, name: str) -> tuple[Any, ...]:
        pipe = models.tagger(name)
        found = find_words(text, word_list) if pipe is None else tag_text(pipe, text, word_list)
        rows = [
            [piece, type_, f"{start}:{end}", "" if score is None else f"{score:.3f}"]
            for piece, type_, start, end, score in found.rows
        ]
        shown = gr.update(value=found.pieces, show_inline_category=not only_words(found))
        return gr.update(value=_note(found.note), visible=bool(found.note)), shown, rows

    if models.options.tagger is None:
        gr.Markdown(_TRAIN_TAGGER)
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(label="Text", lines=3, value="北京大学生前来应聘，李老师在国家图书馆。")
            listed = gr.Textbox(
                label="Words of your own, one a line; with a type where the model has types",
                lines=3,
                placeholder="北京大学 ORG",
                value="大学生\n国家图书馆" if models.options.tagger is None else "",
            )
            name = _model_field(gr, models, "Tagging model: a folder or a name on the hub", models.options.tagger)
            button = gr.Button("Tag", variant="primary")
        with gr.Column():
            error = gr.HTML(visible=False)
            note = gr.HTML(visible=False)
            marked = gr.HighlightedText(label="Text", show_legend=False, combine_adjacent=False)
            table = _table(gr, "Spans", ["text", "type", "place", "score"])
    _run(gr, button, tag, [text, listed, name], error, [note, marked, table], "tag")


def _answers_tab(gr: Any, models: Models) -> None:
    def answer(question: str, text: str, top_k: float, impossible: bool, name: str) -> tuple[Any, ...]:
        pipe = models.reader(name)
        if pipe is None:
            raise ValueError("There is no model for question answering: name one that was trained to answer.")
        found = answer_question(pipe, question, text, top_k, may_be_impossible=impossible)
        rows = [[f"{score:.3f}", f"{start}:{end}", piece or "(no answer)"] for piece, start, end, score in found.rows]
        return gr.update(value=_note(found.note), visible=bool(found.note)), found.pieces, rows

    if models.options.reader is None:
        gr.Markdown(_TRAIN_READER)
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(
                label="Text", lines=6, value="星期三，李老师在国家图书馆看了电影。我的妈妈在银行找工作。"
            )
            question = gr.Textbox(label="Question", value="李老师在哪里？")
            with gr.Row():
                top_k = gr.Slider(1, 10, value=3, step=1, label="Answers")
                impossible = gr.Checkbox(label="There may be no answer")
            name = _model_field(gr, models, "Model for answers: a folder or a name on the hub", models.options.reader)
            button = gr.Button("Answer", variant="primary")
        with gr.Column():
            error = gr.HTML(visible=False)
            note = gr.HTML(visible=False)
            marked = gr.HighlightedText(label="Text with the best answer", show_legend=False, combine_adjacent=False)
            table = _table(gr, "Answers", ["score", "place", "answer"])
    _run(gr, button, answer, [question, text, top_k, impossible, name], error, [note, marked, table], "answer")


def _attention_tab(gr: Any, models: Models) -> None:
    def attention(text: str, pair: str, view: str, layer: float, head: float) -> tuple[Any, ...]:
        return (attention_frame(*models.attention(), text, pair, view, layer, head),)

    with gr.Row():
        text = gr.Textbox(label="Text", value="国足今晚出战", scale=2)
        pair = gr.Textbox(label="Second text, or nothing", value="对手是韩国队", scale=2)
    with gr.Row():
        view = gr.Radio(["head", "matrix", "model", "neuron"], value="head", label="View", scale=2, min_width=280)
        layer = gr.Number(0, minimum=0, precision=0, label="Layer, from 0", min_width=80)
        head = gr.Number(0, minimum=0, precision=0, label="Head, from 0", min_width=80)
    button = gr.Button("Show", variant="primary")
    error = gr.HTML(visible=False)
    frame = gr.HTML(elem_classes="nlp-frame")
    _run(gr, button, attention, [text, pair, view, layer, head], error, [frame], "attention")


def _run(
    gr: Any,
    button: Any,
    function: Callable[..., tuple[Any, ...]],
    inputs: Sequence[Any],
    error: Any,
    outputs: Sequence[Any],
    api_name: str,
) -> None:
    """Let a button, and Enter in fields of one line, call a function."""

    @functools.wraps(function)
    def told(*values: Any) -> tuple[Any, ...]:
        try:
            return gr.update(value="", visible=False), *function(*values)
        except (OSError, TypeError, ValueError) as problem:
            return gr.update(value=_error(str(problem)), visible=True), *(None for _ in outputs)

    fields = [one.submit for one in inputs if isinstance(one, gr.Textbox) and one.lines == 1]
    gr.on(
        [button.click, *fields],
        told,
        list(inputs),
        [error, *outputs],
        api_name=api_name,
        concurrency_id="models",  # one queue for all tabs: models share memory and processors
        concurrency_limit=1,
        show_progress="minimal",
    )


def _examples(gr: Any, rows: list[list[str]], inputs: list[Any]) -> None:
    texts = [row[0] for row in rows]
    gr.Examples(rows, inputs, cache_examples=False, example_labels=texts, api_visibility="private")


def _table(gr: Any, label: str, header: list[str]) -> Any:
    return gr.Dataframe(
        label=label,
        headers=header,
        datatype=["str"] * len(header),  # shown as text, never as markup
        interactive=False,
        wrap=True,
        type="array",
        column_count=len(header),
    )


def _model_field(gr: Any, models: Models, label: str, own: str | None) -> Any:
    shown = models.options.choose_models  # else the page does not even tell the name, which may be a folder of ours
    return gr.Textbox(label=label, value=(own or "") if shown else "", visible=shown)


def _error(message: str) -> str:
    sentence = message[:1].upper() + message[1:]
    return f'<p class="nlp-error" role="alert">{html.escape(sentence)}</p>'


def _note(text: str) -> str:
    return f'<p class="nlp-note">{html.escape(text)}</p>' if text else ""


TABS: dict[str, Callable[[Any, Models], None]] = {
    "Classify": _classify_tab,
    "Masks": _masks_tab,
    "Tags": _tagging_tab,
    "Answers": _answers_tab,
    "Attention": _attention_tab,
}
"""Name → function that puts a tab's fields into the page, of gradio's module and the models."""
