"""PEFT's methods on ChineseBERT: each trains, is saved, and comes back in a process that has only imported us."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoConfig, BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from hf_nlpnotes.adapters import BottleneckAdapterConfig, prepare_prompt_learning

pytestmark = [
    # peft 0.21 asks transformers for an attribute by its old name.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    # Some of its methods are said to be experimental, or to save more than they need.
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

WORKER = Path(__file__).with_name("methods_worker.py")

# With the default targets of `chinesebert`; options only where the defaults are too large for 32 dimensions.
METHODS: dict[str, Callable[..., Any]] = {
    "ADALORA": lambda **o: peft.AdaLoraConfig(total_step=10, **o),
    "BEFT": peft.BeftConfig,
    "BOFT": peft.BOFTConfig,
    "BOTTLENECK_ADAPTER": lambda **o: BottleneckAdapterConfig(bottleneck_size=4, placement="houlsby", **o),
    "C3A": lambda **o: peft.C3AConfig(block_size=8, **o),
    "DELORA": peft.DeloraConfig,
    "FOURIERFT": lambda **o: peft.FourierFTConfig(n_frequency=10, **o),
    "GRALORA": peft.GraloraConfig,
    "HRA": peft.HRAConfig,
    "IA3": peft.IA3Config,
    "LN_TUNING": peft.LNTuningConfig,
    "LOHA": peft.LoHaConfig,
    "LOKR": peft.LoKrConfig,
    "LORA": peft.LoraConfig,
    "MISS": lambda **o: peft.MissConfig(r=4, **o),
    "OFT": peft.OFTConfig,
    "OSF": peft.OSFConfig,
    "PREFIX_TUNING": lambda **o: peft.PrefixTuningConfig(num_virtual_tokens=4, **o),
    "PROMPT_TUNING": lambda **o: peft.PromptTuningConfig(num_virtual_tokens=4, **o),
    "P_TUNING": lambda **o: peft.PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16, **o),
    "RANDLORA": peft.RandLoraConfig,
    "ROAD": lambda **o: peft.RoadConfig(group_size=8, **o),
    "SHIRA": lambda **o: peft.ShiraConfig(r=4, **o),
    "VBLORA": lambda **o: peft.VBLoRAConfig(vector_length=8, num_vectors=16, **o),
    "VERA": peft.VeraConfig,
    "WAVEFT": lambda **o: peft.WaveFTConfig(n_frequency=10, **o),
}
HEADS = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
    "MultipleChoice": None,
    "MaskedLM": None,
}
# All methods on one head, and those that most people use on every head; PEFT's prompts need a task that it knows.
CASES = [("SequenceClassification", method) for method in METHODS] + [
    (head, method)
    for head in list(HEADS)[1:]
    for method in ("LORA", "IA3", "BOTTLENECK_ADAPTER", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
    if HEADS[head] or "TUNING" not in method
]


def base(head: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "chinesebert",
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        pinyin_table_size=8,
        pinyin_embedding_size=16,
        initializer_range=0.1,
    )
    return getattr(transformers, f"AutoModelFor{head}").from_config(config).eval()


def adapted(head: str, method: str) -> PeftModel:
    options = {} if HEADS[head] is None else {"task_type": HEADS[head]}
    return prepare_prompt_learning(get_peft_model(base(head), METHODS[method](**options)))


def worker() -> Any:
    """The functions of the worker, so that both processes feed the same."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("methods_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def labels(head: str) -> dict[str, torch.Tensor]:
    if head == "QuestionAnswering":
        return {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])}
    if head in {"SequenceClassification", "MultipleChoice"}:
        return {"labels": torch.tensor([0, 1])}
    return {"labels": torch.arange(20).view(2, 10) % 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Every case trained for two steps and saved; its outputs before and after, and its losses."""
    folder = tmp_path_factory.mktemp("methods")
    shared = worker()
    results: dict[str, Any] = {}
    for head in HEADS:
        base(head).save_pretrained(folder / f"base-{head}")
    for head, method in CASES:
        model = adapted(head, method)
        frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
        before = shared.output(model, head)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model.train()
        for _ in range(2):
            optimizer.zero_grad()
            model(**shared.inputs(head), **labels(head)).loss.backward()
            optimizer.step()
        after = shared.output(model, head)
        stayed = all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
        model.save_pretrained(folder / f"{head}-{method}")
        results[f"{head}-{method}"] = before, after, stayed
    return results, folder


@pytest.fixture(scope="module")
def elsewhere(trained: tuple[dict[str, Any], Path]) -> dict[str, list[float]]:
    """Outputs of the saved adapters in another process."""
    done = subprocess.run(
        [sys.executable, str(WORKER), str(trained[1])], check=True, capture_output=True, text=True, timeout=280
    )
    outputs: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return outputs


@pytest.mark.parametrize(("head", "method"), CASES)
def test_it_trains_and_comes_back(
    head: str, method: str, trained: tuple[dict[str, Any], Path], elsewhere: dict[str, list[float]]
) -> None:
    name = f"{head}-{method}"
    before, after, stayed = trained[0][name]
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 1e-6
    assert stayed or method == "OSF"  # which rotates what it keeps
    assert elsewhere[name] == pytest.approx(after, rel=1e-5, abs=1e-6)
    files = {path.name for path in (trained[1] / name).iterdir()}
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files


def test_the_methods_are_those_of_peft() -> None:
    """A method that PEFT adds is tried here too, or named with the reason why not."""
    not_for_encoders = {"ADAPTION_PROMPT", "CARTRIDGE", "CPT", "SHADOW"}
    wants_task_ids = {"MULTITASK_PROMPT_TUNING", "POLY"}
    of_others = {"XLORA", "TRAINABLE_TOKENS"}  # a mixture of LoRAs; an addition to other methods
    recent = {"ADAMSS", "DEFT", "FROD", "GLORA", "HIRA", "LILY", "PEANUT", "PSOFT", "PVERA", "SUPERTUNING"}
    recent |= {"TINYLORA", "UNILORA"}  # of this version of PEFT; they run, and may still change
    known = {str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert known - set(METHODS) <= not_for_encoders | wants_task_ids | of_others | recent


# -------------------------------------------------------------------------------------------------- virtual tokens


@pytest.mark.parametrize("method", ["PROMPT_TUNING", "P_TUNING"])
def test_virtual_tokens_stand_before_fused_ones(method: str) -> None:
    model = adapted("SequenceClassification", method).eval()
    batch = worker().inputs("SequenceClassification")
    plain: Any = base("SequenceClassification")
    plain.load_state_dict({k: v for k, v in model.get_base_model().state_dict().items() if "original" not in k}, False)
    classifier: Any = model.get_base_model().classifier
    with torch.no_grad():
        plain.classifier.load_state_dict(classifier.modules_to_save["default"].state_dict())
        fused = plain.bert.get_fused_embeddings(batch["input_ids"], batch["pinyin_ids"])
        embeds = torch.cat([model.get_prompt(2), fused], dim=1)
        mask = torch.cat([torch.ones(2, 4).long(), batch["attention_mask"]], dim=1)
        expected = plain(inputs_embeds=embeds, attention_mask=mask).logits
        torch.testing.assert_close(model(**batch).logits, expected)
        ids = batch.pop("input_ids")
        torch.testing.assert_close(model(ids, **batch).logits, expected)


def test_prefix_against_attention_over_more_keys() -> None:
    """Padding has no say, the prefix has, and every layer reads its own part of it."""
    model = adapted("SequenceClassification", "PREFIX_TUNING").eval()
    batch = worker().inputs("SequenceClassification")
    with torch.no_grad():
        together = model(**batch).logits
        alone = model(**{name: value[1:, :7] for name, value in batch.items()}).logits
        torch.testing.assert_close(together[1:], alone)
        table = model.prompt_encoder["default"].embedding.weight  # (tokens, layers · 2 · hidden)
        seen = [model(**batch).logits]
        for part in table.view(4, 2, 2, 32).unbind(1):
            part.normal_()
            seen.append(model(**batch).logits)
    assert (seen[1] - seen[0]).abs().max() > 1e-4
    assert (seen[2] - seen[1]).abs().max() > 1e-4


@pytest.mark.parametrize("method", ["LORA", "BOTTLENECK_ADAPTER", "P_TUNING", "PREFIX_TUNING"])
def test_the_trainer_keeps_the_columns(method: str, tmp_path: Path) -> None:
    model = adapted("SequenceClassification", method)
    batch = worker().inputs("SequenceClassification")
    rows = [{name: value[i] for name, value in batch.items()} | {"labels": i, "text": "x"} for i in range(2)]
    import datasets

    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        learning_rate=0.1,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    Trainer(model, arguments, train_dataset=datasets.Dataset.from_list(rows)).train()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all("modules_to_save" in n or "default" in n or "prompt_encoder" in n for n in changed)


@pytest.mark.parametrize("head", ["TokenClassification", "QuestionAnswering"])
def test_labels_stay_at_their_tokens(head: str) -> None:
    """The loss by hand from the scores behind the virtual tokens; the scores are as many as tokens."""
    model = adapted(head, "PROMPT_TUNING").eval()
    batch, targets = worker().inputs(head), labels(head)
    with torch.no_grad():
        output = model(**batch, **targets)
        fused = model.get_base_model().bert.get_fused_embeddings(batch["input_ids"], batch["pinyin_ids"])
        embeds = torch.cat([model.get_prompt(2), fused], dim=1)
        mask = torch.cat([torch.ones(2, 4).long(), batch["attention_mask"]], dim=1)
        inner = model.get_base_model()(inputs_embeds=embeds, attention_mask=mask)
    if head == "TokenClassification":
        torch.testing.assert_close(output.logits, inner.logits[:, 4:])
        counted = batch["attention_mask"].bool()
        expected = torch.nn.functional.cross_entropy(output.logits[counted], targets["labels"][counted])
    else:
        torch.testing.assert_close(output.start_logits, inner.start_logits[:, 4:])
        starts, ends = (targets[name] + 4 for name in ("start_positions", "end_positions"))
        cross = torch.nn.functional.cross_entropy
        expected = (cross(inner.start_logits, starts) + cross(inner.end_logits, ends)) / 2
    torch.testing.assert_close(output.loss, expected)
    with pytest.raises(ValueError, match="leave return_dict at True"):
        model(**batch, return_dict=False)


def test_answers_before_the_sequence_do_not_move_into_it() -> None:
    model, batch = adapted("QuestionAnswering", "PROMPT_TUNING").eval(), worker().inputs("QuestionAnswering")
    losses = [
        model(**batch, start_positions=torch.tensor([3, outside]), end_positions=torch.tensor([4, outside])).loss
        for outside in (-1, -100, 1000)
    ]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("method", ["PROMPT_TUNING", "PREFIX_TUNING"])
@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_of_prepared_models(method: str, how: Callable[[Any], Any]) -> None:
    model, batch = adapted("SequenceClassification", method).eval(), worker().inputs("SequenceClassification")
    twin = how(model)
    with torch.no_grad():
        expected = model(**batch).logits
        assert torch.equal(twin(**batch).logits, expected)
        twin.get_base_model().bert.encoder.layer[0].attention.self.value.weight.mul_(2)
        assert not torch.equal(twin(**batch).logits, expected)
        assert torch.equal(model(**batch).logits, expected)
    names = inspect.signature(twin.get_base_model().forward).parameters
    assert {"input_ids", "pinyin_ids", "past_key_values"} <= set(names)
    assert "self" not in names


def test_preparing() -> None:
    lora = adapted("SequenceClassification", "LORA")
    assert "forward" not in vars(lora.get_base_model())
    assert not lora._forward_pre_hooks
    prompt = adapted("SequenceClassification", "PROMPT_TUNING")
    assert prepare_prompt_learning(prompt) is prompt
    assert len(prompt._forward_pre_hooks) == 1
    batch = worker().inputs("SequenceClassification")
    with pytest.raises(TypeError, match="input_ids first and everything else by name"):
        prompt(batch["input_ids"], batch["attention_mask"])
    unprepared = get_peft_model(base("SequenceClassification"), METHODS["PROMPT_TUNING"](task_type="SEQ_CLS"))
    with pytest.raises(ValueError, match="inputs_embeds are fused with the pinyin already"):
        unprepared(**batch)
    with pytest.raises(TypeError, match="takes a PeftModel, got ChineseBertForSequenceClassification"):
        prepare_prompt_learning(base("SequenceClassification"))
    sizes: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    bert = get_peft_model(
        BertForSequenceClassification(BertConfig(**sizes)), METHODS["PROMPT_TUNING"](task_type="SEQ_CLS")
    )
    with pytest.raises(TypeError, match="BertForSequenceClassification needs no preparation"):
        prepare_prompt_learning(bert)
