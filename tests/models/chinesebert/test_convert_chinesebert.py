"""Foreign checkpoints: a random one in each public layout, built by hand, arrives weight by weight; damage is told."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from hf_nlpnotes.models.chinesebert import (
    ChineseBertForMaskedLM,
    ChineseBertModel,
    ChineseBertTokenizer,
    PinyinTable,
)
from hf_nlpnotes.models.chinesebert.convert_chinesebert import (
    convert_official,
    is_official_folder,
    official_layout,
)
from hf_nlpnotes.models.chinesebert.paddle_chinesebert import read_paddle_weights

HIDDEN, LAYERS, HEADS, FEED_FORWARD, POSITIONS, FONTS, PIXELS = 16, 2, 2, 24, 40, 3, 24 * 24
LETTERS = "012345abcdefghijklmnopqrstuvwxyz"
TOKENS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "我", "喜", "欢", "猫", "的", "", "银", "行", "长", "，", "。"),
    *("\u2028", "a", "##a", "cat", "##行", "1"),  # U+2028 ends a line for str.splitlines, but not in a file
]
GLYPHS = "bert.embeddings.glyph_embeddings.embedding.weight"
WORDS = "bert.embeddings.word_embeddings.weight"
FONT_FILES = ("STFANGSO.TTF24.npy", "STXINGKA.TTF24.npy", "方正古隶繁体.ttf24.npy")


def encoder_weights() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official encoder, as one reads them in the released file."""
    e = "bert.embeddings."
    shapes = {
        f"{e}word_embeddings.weight": (len(TOKENS), HIDDEN),
        f"{e}position_embeddings.weight": (POSITIONS, HIDDEN),
        f"{e}token_type_embeddings.weight": (2, HIDDEN),
        f"{e}pinyin_embeddings.embedding.weight": (32, 128),
        f"{e}pinyin_embeddings.conv.weight": (HIDDEN, 128, 2),
        f"{e}pinyin_embeddings.conv.bias": (HIDDEN,),
        GLYPHS: (len(TOKENS), FONTS * PIXELS),
        f"{e}glyph_map.weight": (HIDDEN, FONTS * PIXELS),
        f"{e}glyph_map.bias": (HIDDEN,),
        f"{e}map_fc.weight": (HIDDEN, 3 * HIDDEN),
        f"{e}map_fc.bias": (HIDDEN,),
        f"{e}LayerNorm.weight": (HIDDEN,),
        f"{e}LayerNorm.bias": (HIDDEN,),
        "bert.pooler.dense.weight": (HIDDEN, HIDDEN),
        "bert.pooler.dense.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        p = f"bert.encoder.layer.{layer}."
        linears = {f"{p}attention.self.{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value")}
        linears |= {f"{p}attention.output.dense": (HIDDEN, HIDDEN), f"{p}intermediate.dense": (FEED_FORWARD, HIDDEN)}
        linears |= {f"{p}output.dense": (HIDDEN, FEED_FORWARD)}
        for name, shape in linears.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in (f"{p}attention.output.LayerNorm", f"{p}output.LayerNorm"):
            shapes |= {f"{name}.weight": (HIDDEN,), f"{name}.bias": (HIDDEN,)}
    return shapes


def masked_lm_weights() -> dict[str, tuple[int, ...]]:
    p = "cls.predictions."
    return encoder_weights() | {
        f"{p}bias": (len(TOKENS),),
        f"{p}transform.dense.weight": (HIDDEN, HIDDEN),
        f"{p}transform.dense.bias": (HIDDEN,),
        f"{p}transform.LayerNorm.weight": (HIDDEN,),
        f"{p}transform.LayerNorm.bias": (HIDDEN,),
    }


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    state[GLYPHS] = torch.randint(0, 256, shapes[GLYPHS], generator=generator).float()
    return state


def letters(spelling: str) -> list[int]:
    return [LETTERS.index(letter) for letter in spelling] + [0] * (8 - len(spelling))


def pinyin_tables(**more: str) -> dict[str, dict]:
    """The official JSON files for the package's own table, and `more` readings by their letters."""
    table = PinyinTable.default()
    spelled = {reading: table.spell(reading) for reading in table.readings} | more
    return {
        "pinyin_map": {"idx2char": list(LETTERS), "char2idx": {letter: i for i, letter in enumerate(LETTERS)}},
        "pinyin2tensor": {reading: letters(spelling) for reading, spelling in spelled.items()},
        "id2pinyin": {"0": [[0] * 8]},
    }


@dataclass
class Official:
    """A folder in the official layout, and what was put into it."""

    path: Path
    state: dict[str, torch.Tensor]
    config: dict

    def write_weights(self, legacy: bool = True) -> None:
        # The released files are of the format before torch 1.6 and carry a buffer that later versions dropped.
        stored = self.state | {"bert.embeddings.position_ids": torch.arange(POSITIONS).expand(1, -1)}
        if "cls.predictions.bias" in stored:
            stored["cls.predictions.decoder.weight"] = stored[WORDS]
            stored["cls.predictions.decoder.bias"] = stored["cls.predictions.bias"]
        torch.save(stored, self.path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)

    def write_config(self, **changes: object) -> None:
        self.config |= changes
        (self.path / "config.json").write_text(json.dumps(self.config), encoding="utf-8")


@pytest.fixture
def official(tmp_path: Path) -> Official:
    path = tmp_path / "official"
    (path / "config").mkdir(parents=True)
    config = {
        "architectures": ["GlyceBertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "directionality": "bidi",
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": FEED_FORWARD,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": "bert",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "output_past": True,
        "pad_token_id": 0,
        "pooler_fc_size": HIDDEN,
        "pooler_type": "first_token_transform",
        "type_vocab_size": 2,
        "vocab_size": len(TOKENS),
    }
    folder = Official(path, random_state(masked_lm_weights()), config)
    folder.write_weights()
    folder.write_config()
    (path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    for name, table in pinyin_tables().items():
        (path / "config" / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
    bitmaps = folder.state[GLYPHS].reshape(len(TOKENS), FONTS, 24, 24).numpy().astype(np.uint8)
    for font, name in enumerate(FONT_FILES):
        np.save(path / "config" / name, bitmaps[:, font])
    return folder


def assert_arrived(folder: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every weight of `state` is in the converted folder, bit by bit; return what is there."""
    stored = load_file(folder / "model.safetensors")
    for name, value in state.items():
        assert torch.equal(stored[name].to(value.dtype), value), name
    extra = stored.keys() - state.keys()
    assert extra == {"bert.embeddings.pinyin_table", "bert.embeddings.default_pinyin_ids"}
    return stored


# -- reading ----------------------------------------------------------------------------------------------------------


def test_layout_states_what_the_folder_holds(official: Official) -> None:
    layout = official_layout(official.path)
    assert layout is not None
    assert is_official_folder(official.path)
    assert layout.tokens == tuple(TOKENS)
    assert layout.pinyin_table == PinyinTable.default()
    assert layout.glyphs is None
    assert layout.config["architectures"] == ["ChineseBertForMaskedLM"]
    assert layout.config["glyph_fonts"] == FONTS
    assert layout.config["glyph_storage"] == "uint8"
    assert layout.config["hidden_size"] == HIDDEN
    assert layout.config["pinyin_table_size"] == len(layout.pinyin_table)


def test_default_readings_are_pypinyins(official: Official) -> None:
    import pypinyin

    layout = official_layout(official.path)
    assert layout is not None
    for token, row in zip(TOKENS, layout.default_pinyin_ids, strict=True):
        if len(token) == 1 and "\u4e00" <= token <= "\u9fff":
            reading = pypinyin.pinyin(token, style=pypinyin.Style.TONE3, heteronym=True)[0][0]
            assert layout.pinyin_table.spelling(row) == {"de": "de5"}.get(reading, reading)
        elif not token.startswith("##"):
            assert row == 0


def test_a_folder_with_readings_of_its_own(official: Official, tmp_path: Path) -> None:
    tables = pinyin_tables(wo3="zzz")  # read otherwise than in the package's table
    (official.path / "config" / "pinyin2tensor.json").write_text(json.dumps(tables["pinyin2tensor"]))
    converted = convert_official(official.path, tmp_path / "converted")
    for folder in (official.path, converted):
        model, tokenizer = ChineseBertModel.from_pretrained(folder), ChineseBertTokenizer.from_pretrained(folder)
        row = tokenizer("我")["pinyin_ids"][1]
        assert tokenizer.pinyin_table[row].tolist() == letters("zzz")
        assert model.embeddings.pinyin_table[row].tolist() == letters("zzz")
        assert model.embeddings.default_pinyin_ids[TOKENS.index("我")] == row
        assert model.config.pinyin_table_size == len(tokenizer.pinyin_table)


def test_other_folders_are_not_official(tmp_path: Path, official: Official, tiny_chinesebert_folder: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    for other in (plain, tiny_chinesebert_folder, tmp_path / "nowhere", "no-such/model", None, 3, tmp_path):
        assert official_layout(other) is None
        assert not is_official_folder(other)


@pytest.mark.parametrize("cls", [ChineseBertModel, ChineseBertForMaskedLM])
def test_from_pretrained_reads_the_official_folder(official: Official, cls: type) -> None:
    model = cls.from_pretrained(official.path)
    held = {
        f"bert.{name}".replace("bert.bert.", "bert.").replace("bert.cls.", "cls."): value
        for name, value in model.state_dict().items()
    }
    for name, value in official.state.items():
        if name in held:
            assert torch.equal(held[name].float(), value), name
    assert held[GLYPHS].dtype == torch.uint8
    assert held.keys() >= {name for name in official.state if name.startswith("bert.e")}


# -- converting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [True, False])
def test_converted_folder_stands_alone(official: Official, tmp_path: Path, legacy: bool) -> None:
    official.write_weights(legacy)
    before = ChineseBertForMaskedLM.from_pretrained(official.path).eval()
    expected = ChineseBertTokenizer.from_pretrained(official.path)(["我喜欢猫。", "银行行长，a cat1"])
    converted = convert_official(official.path, tmp_path / "new" / "converted")
    shutil.rmtree(official.path)

    assert_arrived(converted, official.state)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"converted"}
    assert len({path.stat().st_mode for path in converted.iterdir()}) == 1
    config = json.loads((converted / "config.json").read_text())
    assert config["model_type"] == "chinesebert"
    assert config["architectures"] == ["ChineseBertForMaskedLM"]
    assert not config.keys() & {"directionality", "pooler_fc_size", "output_past", "gradient_checkpointing"}

    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert type(tokenizer).__name__ == "ChineseBertTokenizer"
    batch = tokenizer(["我喜欢猫。", "银行行长，a cat1"])
    assert {key: list(batch[key]) for key in expected} == {key: list(expected[key]) for key in expected}

    model = AutoModelForMaskedLM.from_pretrained(converted).eval()
    inputs = tokenizer(["我喜欢猫。", "银行行长，a cat1"], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before(**inputs).logits)
    assert torch.equal(
        AutoModel.from_pretrained(converted).pooler.dense.weight, official.state["bert.pooler.dense.weight"]
    )


def test_saving_again_is_bit_equal(official: Official, tmp_path: Path) -> None:
    converted = convert_official(official.path, tmp_path / "converted")
    AutoModelForMaskedLM.from_pretrained(converted).save_pretrained(tmp_path / "again")
    first, second = (load_file(folder / "model.safetensors") for folder in (converted, tmp_path / "again"))
    assert {name for name in first if not name.startswith("bert.pooler.")} == second.keys()
    for name, value in second.items():
        assert first[name].dtype == value.dtype
        assert torch.equal(first[name], value)


def test_an_output_layer_of_its_own_is_kept(official: Official, tmp_path: Path) -> None:
    official.write_weights()
    path = official.path / "pytorch_model.bin"
    stored = torch.load(path, weights_only=True)
    own = stored["cls.predictions.decoder.weight"] = stored[WORDS] + 1
    torch.save(stored, path)
    model = AutoModelForMaskedLM.from_pretrained(convert_official(official.path, tmp_path / "converted"))
    assert not model.config.tie_word_embeddings
    assert torch.equal(model.get_output_embeddings().weight, own)
    assert torch.equal(model.get_input_embeddings().weight, official.state[WORDS])


def test_a_trained_glyph_table_keeps_its_values(official: Official, tmp_path: Path) -> None:
    official.state[GLYPHS][3, 7] += 1e-4
    official.write_weights()
    stored = assert_arrived(convert_official(official.path, tmp_path / "converted"), official.state)
    assert stored[GLYPHS].dtype == torch.float32
    for folder in (official.path, tmp_path / "converted"):
        model = ChineseBertModel.from_pretrained(folder)
        assert model.config.glyph_storage == "float32"
        assert torch.equal(model.embeddings.glyph_embeddings.embedding.weight, official.state[GLYPHS])


def test_bitmaps_come_from_the_fonts_where_the_weights_lack_them(
    official: Official, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    glyphs = official.state.pop(GLYPHS)
    official.write_weights()
    converted = convert_official(official.path, tmp_path / "converted")
    assert_arrived(converted, official.state | {GLYPHS: glyphs})
    layout = official_layout(official.path)
    assert layout is not None
    assert layout.glyphs is not None
    np.testing.assert_array_equal(layout.glyphs.reshape(len(TOKENS), -1), glyphs.numpy())


def test_weights_of_the_bare_encoder_in_old_spelling(official: Official, tmp_path: Path) -> None:
    state = {name: value for name, value in official.state.items() if name.startswith("bert.")}
    old = {
        re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name))[
            5:
        ]: value
        for name, value in state.items()
    }
    torch.save(old, official.path / "pytorch_model.bin")
    converted = convert_official(official.path, tmp_path / "converted")
    assert_arrived(converted, state)
    assert json.loads((converted / "config.json").read_text())["architectures"] == ["ChineseBertModel"]


def test_safetensors_and_shards(official: Official, tmp_path: Path) -> None:
    (official.path / "pytorch_model.bin").unlink()
    save_file(official.state, official.path / "model.safetensors")
    assert_arrived(convert_official(official.path, tmp_path / "one"), official.state)
    (official.path / "model.safetensors").unlink()
    names = sorted(official.state)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: official.state[name] for name in held}, official.path / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (official.path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_arrived(convert_official(official.path, tmp_path / "many"), official.state)


@pytest.mark.parametrize(
    ("architecture", "head", "settings"),
    [
        ("SequenceClassification", {"classifier.weight": (3, HIDDEN), "classifier.bias": (3,)}, {}),
        ("TokenClassification", {"classifier.weight": (3, HIDDEN), "classifier.bias": (3,)}, {}),
        (
            "TokenClassification",
            {
                "classifier.dense_layer.weight": (HIDDEN, HIDDEN),
                "classifier.dense_layer.bias": (HIDDEN,),
                "classifier.dense_to_labels_layer.weight": (3, HIDDEN),
                "classifier.dense_to_labels_layer.bias": (3,),
            },
            {"token_classifier": "mlp"},
        ),
        ("QuestionAnswering", {"qa_outputs.weight": (2, HIDDEN), "qa_outputs.bias": (2,)}, {}),
    ],
)
def test_fine_tuned_heads(official: Official, tmp_path: Path, architecture: str, head: dict, settings: dict) -> None:
    official.state = random_state(encoder_weights() | head)
    official.write_weights()
    labels = {} if architecture == "QuestionAnswering" else {"id2label": {str(i): f"L{i}" for i in range(3)}}
    official.write_config(architectures=[f"GlyceBertFor{architecture}"], **labels)
    converted = convert_official(official.path, tmp_path / "converted")
    assert_arrived(converted, official.state)
    config = json.loads((converted / "config.json").read_text())
    assert config["architectures"] == [f"ChineseBertFor{architecture}"]
    assert settings.items() <= config.items()


def test_a_classifier_of_unknown_kind_is_asked_for(official: Official, tmp_path: Path) -> None:
    official.state = random_state(encoder_weights() | {"classifier.weight": (3, HIDDEN), "classifier.bias": (3,)})
    official.write_weights()
    with pytest.raises(ValueError, match="set its architectures to one of ChineseBertForSequenceClassification"):
        convert_official(official.path, tmp_path / "converted")


def test_weights_without_a_place_are_named(
    official: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(
        "hf_nlpnotes.models.chinesebert.convert_chinesebert.logger.warning",
        lambda message, *args: messages.append(message % args),
    )
    official.state["bert.embeddings.strange"] = torch.zeros(3)
    official.write_weights()
    convert_official(official.path, tmp_path / "converted")
    (message,) = messages
    assert "bert.embeddings.strange" in message
    assert "position_ids" not in message


# -- hub --------------------------------------------------------------------------------------------------------------


def test_hub_name_from_the_cache(official: Official, tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--someone--chinesebert"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.move(official.path, repository / "snapshots" / commit)
    cache = str(tmp_path / "cache")
    layout = official_layout("someone/chinesebert", cache_dir=cache, token=False, trust_remote_code=True)
    assert layout is not None
    assert layout.tokens == tuple(TOKENS)
    model = ChineseBertModel.from_pretrained("someone/chinesebert", cache_dir=cache)
    assert torch.equal(model.embeddings.word_embeddings.weight, official.state[WORDS])
    assert_arrived(convert_official("someone/chinesebert", tmp_path / "converted", cache_dir=cache), official.state)


# -- the PyPI package and Paddle --------------------------------------------------------------------------------------


def keep_tables_in_tokenizer_config(folder: Path) -> None:
    shutil.rmtree(folder / "config")
    settings = {"do_lower_case": True, "tokenizer_class": "ChineseBertTokenizerFast"} | pinyin_tables()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_pypi_package(official: Official, tmp_path: Path) -> None:
    keep_tables_in_tokenizer_config(official.path)
    official.write_config(architectures=["ChineseBertForMaskedLM"], glyph_embedding_dim=1728, pinyin_map_len=32)
    converted = convert_official(official.path, tmp_path / "converted")
    assert_arrived(converted, official.state)
    batch = AutoTokenizer.from_pretrained(converted)("我喜欢猫")
    table = PinyinTable.default()
    assert [table.spelling(row) for row in batch["pinyin_ids"]] == ["", "wo3", "xi3", "huan1", "mao1", ""]


PADDLE_LAYERS = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "linear1",
    "output.dense": "linear2",
    "output.LayerNorm": "norm2",
}


def to_paddle(state: dict[str, torch.Tensor], prefix: str) -> dict[str, np.ndarray]:
    """The weights as PaddleNLP's model names and orients them."""
    saved = {}
    for name, value in state.items():
        array = value.numpy()
        if name.endswith(".weight") and array.ndim == 2 and "embedding" not in name.split(".")[-2]:
            array = array.T
        if match := re.fullmatch(r"bert\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
            new = f"{prefix}.encoder.layers.{match[1]}.{PADDLE_LAYERS[match[2]]}.{match[3]}"
        else:
            new = re.sub(r"^bert\.", f"{prefix}.", name).replace("embeddings.LayerNorm", "embeddings.layer_norm")
            new = new.replace("cls.predictions.transform.LayerNorm", "cls.predictions.layer_norm")
            new = new.replace("cls.predictions.transform.dense", "cls.predictions.transform")
            new = new.replace("cls.predictions.bias", "cls.predictions.decoder_bias")
        saved[new] = array
    if "cls.predictions.decoder_bias" in saved:
        saved["cls.predictions.decoder_weight"] = saved[f"{prefix}.embeddings.word_embeddings.weight"]
        saved |= {"cls.seq_relationship.weight": np.zeros((HIDDEN, 2), np.float32)}
    return saved


def write_paddle(
    official: Official, head: str, prefix: str = "chinesebert", protocol: int = 2, pairs: bool = False
) -> None:
    (official.path / "pytorch_model.bin").unlink()
    (official.path / "config.json").unlink()
    keep_tables_in_tokenizer_config(official.path)
    saved: dict = to_paddle(official.state, prefix)
    if pairs:  # since Paddle 2.1
        saved = {name: (name, array) for name, array in saved.items()}
    saved["StructuredToParameterName@@"] = {name: f"linear_{i}.w_0" for i, name in enumerate(saved)}
    (official.path / "model_state.pdparams").write_bytes(pickle.dumps(saved, protocol))
    options = {name: official.config[name] for name in official.config if name not in ("architectures", "model_type")}
    options = {
        name: value for name, value in options.items() if not isinstance(value, (bool, str)) or name == "hidden_act"
    }
    encoder = options | {"pool_act": "tanh", "glyph_embedding_dim": 1728, "init_class": "ChineseBertModel"}
    settings = encoder if head == "ChineseBertModel" else {"init_args": [encoder], "init_class": head}
    (official.path / "model_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("pairs", [False, True])
def test_paddle(official: Official, tmp_path: Path, protocol: int, pairs: bool) -> None:
    write_paddle(official, "ChineseBertForPretraining", protocol=protocol, pairs=pairs)
    assert official_layout(official.path) is None
    converted = convert_official(official.path, tmp_path / "converted")
    assert_arrived(converted, official.state)
    assert json.loads((converted / "config.json").read_text())["architectures"] == ["ChineseBertForMaskedLM"]


def test_paddle_question_answering(official: Official, tmp_path: Path) -> None:
    official.state = random_state(encoder_weights() | {"classifier.weight": (2, HIDDEN), "classifier.bias": (2,)})
    write_paddle(official, "ChineseBertForQuestionAnswering", prefix="bert")
    converted = convert_official(official.path, tmp_path / "converted")
    assert_arrived(converted, {name.replace("classifier", "qa_outputs"): v for name, v in official.state.items()})


class Dangerous:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_no_code_of_a_paddle_file_runs(official: Official, tmp_path: Path, protocol: int) -> None:
    write_paddle(official, "ChineseBertModel")
    (official.path / "model_state.pdparams").write_bytes(pickle.dumps({"a": Dangerous(tmp_path / "ran")}, protocol))
    with pytest.raises(ValueError, match=r"model_state\.pdparams.*mkdir.*could run code"):
        convert_official(official.path, tmp_path / "converted")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<i8", "|u1"])
def test_arrays_of_a_paddle_file(tmp_path: Path, protocol: int, memory: Literal["C", "F"], dtype: str) -> None:
    array = np.arange(12).reshape(4, 3).astype(dtype, order=memory)
    file = tmp_path / "model_state.pdparams"
    named = {"embeddings.word_embeddings.weight": array, "names": np.array(["a", "b"]), "step": np.float64(3)}
    file.write_bytes(pickle.dumps(named, protocol))
    weights = read_paddle_weights(file)
    assert set(weights) == {"bert.embeddings.word_embeddings.weight"}
    found = weights["bert.embeddings.word_embeddings.weight"].numpy()
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)


class Forged:
    """Pickles as an array of three numbers, whose type has the flags of one that owns Python objects."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> tuple:
        state = (1, (self.size,), ForgedType(), False, np.arange(3, dtype=np.float32).tobytes())
        return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state


class ForgedType:
    def __reduce__(self) -> tuple:
        return np.dtype, ("f4", False, True), (3, "<", None, None, None, -1, -1, 63)


def test_memory_is_not_laid_out_by_a_paddle_file(tmp_path: Path) -> None:
    file = tmp_path / "model_state.pdparams"
    file.write_bytes(pickle.dumps({"embeddings.word_embeddings.weight": Forged(3)}))
    assert read_paddle_weights(file)["bert.embeddings.word_embeddings.weight"].tolist() == [0, 1, 2]
    file.write_bytes(pickle.dumps({"embeddings.word_embeddings.weight": Forged(1000)}))
    with pytest.raises(ValueError, match=r"model_state\.pdparams.*reshape"):
        read_paddle_weights(file)


# -- damage -----------------------------------------------------------------------------------------------------------


def assert_refused(official: Official, kind: type[Exception], match: str) -> None:
    """Conversion fails with a clear error and leaves nothing; loading fails too, instead of starting at random."""
    target = official.path.parent / "converted"
    with pytest.raises(kind, match=match):
        convert_official(official.path, target)
    assert {path.name for path in official.path.parent.iterdir()} == {"official"}
    with pytest.raises(kind, match=match):
        ChineseBertForMaskedLM.from_pretrained(official.path)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("part", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_weights(official: Official, legacy: bool, part: float) -> None:
    official.write_weights(legacy)
    path = official.path / "pytorch_model.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    assert_refused(
        official, ValueError, r"pytorch_model\.bin cannot be read as a torch checkpoint .*download it again"
    )


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.99])
def test_truncated_safetensors(official: Official, part: float) -> None:
    (official.path / "pytorch_model.bin").unlink()
    path = official.path / "model.safetensors"
    save_file(official.state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    assert_refused(official, ValueError, r"model\.safetensors is truncated or damaged")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "vocab.txt", "config.json", "config/pinyin_map.json", "config/pinyin2tensor.json"]
)
def test_git_lfs_pointers(official: Official, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 589256000\n"
    (official.path / name).write_text(pointer)
    assert_refused(official, ValueError, re.escape(name.rpartition("/")[2]) + " is a Git LFS pointer.*git lfs pull")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "vocab.txt", "config/pinyin_map.json", "config/pinyin2tensor.json"]
)
def test_missing_files(official: Official, name: str) -> None:
    (official.path / name).unlink()
    assert_refused(official, FileNotFoundError, f"has no {re.escape(name)}.*copy them into the folder")


def test_missing_fonts(official: Official) -> None:
    del official.state[GLYPHS]
    official.write_weights()
    shutil.copy(official.path / "config" / FONT_FILES[0], official.path / "kept")
    for name in FONT_FILES:
        (official.path / "config" / name).unlink()
    assert_refused(official, FileNotFoundError, r"has no config/STFANGSO\.TTF24\.npy")


@pytest.mark.parametrize("content", ["truncated", "shape", "fraction"])
def test_wrong_fonts(official: Official, content: str) -> None:
    del official.state[GLYPHS]
    official.write_weights()
    path = official.path / "config" / FONT_FILES[1]
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        size = 23 if content == "shape" else 24
        np.save(path, np.full((len(TOKENS), size, size), 0.5 if content == "fraction" else 1.0))
    assert_refused(official, ValueError, r"STXINGKA\.TTF24\.npy (is not a whole|should hold whole values)")


@pytest.mark.parametrize("name", ["config.json", "config/pinyin_map.json", "config/pinyin2tensor.json"])
def test_broken_json(official: Official, name: str) -> None:
    (official.path / name).write_text('{"model_type": "bert"')
    assert_refused(official, (ValueError, OSError), re.escape(Path(name).name))  # type: ignore[arg-type]


def test_a_lost_blank_line_is_told(official: Official) -> None:
    (official.path / "vocab.txt").write_text("\n".join(filter(None, TOKENS)) + "\n", encoding="utf-8")
    assert_refused(official, ValueError, f"has {len(TOKENS) - 1} lines.*vocab_size {len(TOKENS)}.*blank line")


def test_wrong_vocabulary_size(official: Official) -> None:
    official.write_config(vocab_size=len(TOKENS) + 1)
    assert_refused(official, ValueError, f"vocab_size {len(TOKENS) + 1}.*glyph table has {len(TOKENS)} rows")


def test_wrong_shapes(official: Official, tmp_path: Path) -> None:
    official.write_config(intermediate_size=FEED_FORWARD + 1)
    with pytest.raises(
        ValueError, match=r"does not fit the weights.*intermediate\.dense\.weight \(24, 16\), expected \(25, 16\)"
    ):
        convert_official(official.path, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_missing_weights(official: Official, tmp_path: Path) -> None:
    del official.state["bert.encoder.layer.1.output.dense.bias"]
    official.write_weights()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin lacks 1 weights.*layer\.1\.output\.dense\.bias"):
        convert_official(official.path, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_no_code_of_a_torch_file_runs(official: Official, tmp_path: Path) -> None:
    torch.save({"a": Dangerous(tmp_path / "ran")}, official.path / "pytorch_model.bin")
    assert_refused(official, ValueError, "tensors only")
    assert not (tmp_path / "ran").exists()


def test_something_else_is_refused(tmp_path: Path, tiny_chinesebert_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no ChineseBERT in a foreign layout.*model_type bert"):
        convert_official(tiny_chinesebert_folder, tmp_path / "converted")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        convert_official(tmp_path / "nowhere", tmp_path / "converted")
    with pytest.raises(OSError, match=r"someone/nothing|connect"):
        convert_official("someone/nothing", tmp_path / "converted", cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "converted").exists()


# -- the target -------------------------------------------------------------------------------------------------------


def test_an_empty_target_is_filled(official: Official, tmp_path: Path) -> None:
    (tmp_path / "converted").mkdir()
    assert_arrived(convert_official(official.path, tmp_path / "converted"), official.state)


def test_a_target_in_use_is_kept_unless_overwrite(official: Official, tmp_path: Path) -> None:
    target = tmp_path / "converted"
    convert_official(official.path, target)
    (target / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"not empty.*overwrite=True"):
        convert_official(official.path, target)
    assert (target / "mine.txt").read_text() == "keep"
    official.state[WORDS] += 1
    official.write_weights()
    assert_arrived(convert_official(official.path, target, overwrite=True), official.state)
    assert {path.name for path in tmp_path.iterdir()} == {"official", "converted"}


def test_only_models_are_overwritten(official: Official, tmp_path: Path) -> None:
    target = tmp_path / "documents"
    target.mkdir()
    (target / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="holds no model"):
        convert_official(official.path, target, overwrite=True)
    with pytest.raises(FileExistsError, match="no folder"):
        convert_official(official.path, target / "letter.txt", overwrite=True)
    with pytest.raises(ValueError, match="the original is not replaced"):
        convert_official(official.path, official.path, overwrite=True)
    assert (target / "letter.txt").read_text() == "dear"


def test_a_failed_overwrite_keeps_the_old_model(
    official: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = convert_official(official.path, tmp_path / "converted")
    before = (target / "model.safetensors").read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("hf_nlpnotes.models.chinesebert.convert_chinesebert.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        convert_official(official.path, target, overwrite=True)
    assert (target / "model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"official", "converted"}


# -- the official code's own outputs ----------------------------------------------------------------------------------


def test_converted_checkpoint_gives_the_official_outputs(golden_folder: Path, tmp_path: Path) -> None:
    golden = golden_folder / "chinesebert"
    manifest = json.loads((golden / "manifest_model.json").read_text(encoding="utf-8"))
    outputs = np.load(golden / "model_outputs.npz")
    converted = convert_official(golden / manifest["checkpoint"], tmp_path / "converted")
    encoder = AutoModel.from_pretrained(converted).eval()
    masked_lm = AutoModelForMaskedLM.from_pretrained(converted).eval()
    compared = 0
    for name, case in manifest["cases"].items():
        inputs = {key: torch.tensor(value) for key, value in case["inputs"].items()}
        with torch.no_grad():
            if f"{name}/last_hidden_state" in outputs:
                found = encoder(**inputs).last_hidden_state.numpy()
                np.testing.assert_allclose(found, outputs[f"{name}/last_hidden_state"], rtol=0, atol=1e-5)
                compared += 1
            if f"{name}/mlm.logits" in outputs:
                found = masked_lm(**inputs).logits.numpy()
                np.testing.assert_allclose(found, outputs[f"{name}/mlm.logits"], rtol=0, atol=5e-5)
                compared += 1
    assert compared
