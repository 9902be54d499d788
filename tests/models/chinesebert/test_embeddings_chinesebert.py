"""The fusion against its definition, and the folded table against the fusion."""

import copy
import pickle

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEmbeddings

from hf_nlpnotes.models.chinesebert.configuration_chinesebert import ChineseBertConfig
from hf_nlpnotes.models.chinesebert.modeling_chinesebert import ChineseBertForMaskedLM, ChineseBertModel

VOCAB, READINGS, POSITIONS, SEED = 60, 40, 24, 7
SIZES = {
    "vocab_size": VOCAB,
    "pinyin_table_size": READINGS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
    "pinyin_embedding_size": 6,
    "glyph_size": 5,
}


def make(model_class=ChineseBertModel, **options):
    """Build a random model in eval mode, with random tables."""
    config = ChineseBertConfig(**{**SIZES, **options})
    torch.manual_seed(SEED)
    model = model_class(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    random = np.random.default_rng(SEED)
    model.set_readings(random.integers(0, 32, (READINGS, 8)), random.integers(0, READINGS, config.vocab_size))
    model.set_glyphs(random.integers(0, 256, (config.vocab_size, 3, 5, 5)).astype(np.uint8))
    return model


def make_batch(batch=3, length=11):
    random = np.random.default_rng(SEED)
    return {
        "input_ids": torch.from_numpy(random.integers(0, VOCAB, (batch, length))),
        "pinyin_ids": torch.from_numpy(random.integers(0, READINGS, (batch, length))),
        "token_type_ids": torch.from_numpy(random.integers(0, 2, (batch, length))),
    }


def unfolded(model, **inputs):
    """Embed with the fusion itself: the table is not used where gradients are wanted."""
    with torch.enable_grad():
        return model.embeddings(**inputs).detach()


class TestFusion:
    def test_is_what_the_paper_defines(self):
        """Section 3 by hand: letters → convolution of width 2 → max; bitmaps → linear; concatenation → linear."""
        model = make()
        embeddings, batch = model.embeddings, make_batch(batch=2, length=4)
        fused = embeddings.fuse(batch["input_ids"], batch["pinyin_ids"]).detach().double().numpy()
        weights = {name: tensor.detach().double().numpy() for name, tensor in embeddings.state_dict().items()}
        for row in range(2):
            for place in range(4):
                token, reading = batch["input_ids"][row, place], batch["pinyin_ids"][row, place]
                letters = weights["pinyin_embeddings.embedding.weight"][weights["pinyin_table"][reading].astype(int)]
                kernel, bias = weights["pinyin_embeddings.conv.weight"], weights["pinyin_embeddings.conv.bias"]
                windows = [
                    np.einsum("oik,ki->o", kernel, letters[start : start + 2]) + bias
                    for start in range(len(letters) - 1)
                ]
                glyph = weights["glyph_map.weight"] @ weights["glyph_embeddings.embedding.weight"][token]
                parts = [
                    weights["word_embeddings.weight"][token],
                    np.max(windows, axis=0),
                    glyph + weights["glyph_map.bias"],
                ]
                expected = weights["map_fc.weight"] @ np.concatenate(parts) + weights["map_fc.bias"]
                np.testing.assert_allclose(fused[row, place], expected, rtol=1e-4, atol=1e-3)

    def test_then_goes_on_as_in_bert(self):
        model, batch = make(), make_batch()
        sizes = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "max_position_embeddings")}
        bert = BertEmbeddings(BertConfig(**sizes)).eval()
        bert.load_state_dict({name: model.embeddings.state_dict()[name] for name in bert.state_dict()})
        fused = model.get_fused_embeddings(batch["input_ids"], batch["pinyin_ids"])
        expected = bert(inputs_embeds=fused, token_type_ids=batch["token_type_ids"])
        torch.testing.assert_close(unfolded(model, **batch), expected.detach(), rtol=0, atol=1e-6)

    def test_letters_are_the_same_as_rows_of_the_table(self):
        model, batch = make(), make_batch()
        letters = model.embeddings.pinyin_table[batch["pinyin_ids"]].long()
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                torch.testing.assert_close(
                    model(**{**batch, "pinyin_ids": letters}).last_hidden_state,
                    model(**batch).last_hidden_state,
                    rtol=0,
                    atol=1e-5,
                )

    def test_many_tokens_are_fused_as_one_by_one(self):
        """Large batches are fused once for each distinct token and reading: values and gradients are those of rows."""
        embeddings, batch = make().embeddings.train(), make_batch(batch=60, length=11)
        ids, pinyin = batch["input_ids"], batch["pinyin_ids"]
        direction = torch.randn(60, 11, 16, generator=torch.Generator().manual_seed(0))
        rows = torch.cat([embeddings.fuse(ids[row : row + 1], pinyin[row : row + 1]) for row in range(60)])
        (rows * direction).sum().backward()
        expected = {name: p.grad for name, p in embeddings.named_parameters() if p.grad is not None}
        embeddings.zero_grad()
        fused = embeddings.fuse(ids, pinyin)
        (fused * direction).sum().backward()
        torch.testing.assert_close(fused, rows, rtol=1e-5, atol=1e-3)
        found = {name: p.grad for name, p in embeddings.named_parameters() if p.grad is not None}
        assert set(found) == set(expected)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-3 * expected[name].abs().max())

    @pytest.mark.parametrize("field", ["input_ids", "pinyin_ids"])
    @pytest.mark.parametrize("wrong", [-1, 60])
    def test_many_tokens_out_of_range_are_refused(self, field, wrong):
        embeddings, batch = make().embeddings.train(), make_batch(batch=60, length=11)
        batch[field][3, 3] = wrong
        with pytest.raises(IndexError):
            embeddings.fuse(batch["input_ids"], batch["pinyin_ids"])

    def test_bits_hold_the_bitmaps(self):
        bits, floats = make(glyph_storage="bits"), make(glyph_storage="float32")
        glyphs = np.random.default_rng(0).random((VOCAB, 3, 5, 5)) < 0.5
        bits.set_glyphs(glyphs)
        floats.set_glyphs(glyphs)
        ids = torch.arange(VOCAB)
        drawn = bits.embeddings.glyph_embeddings(ids)
        assert bits.embeddings.glyph_embeddings.embedding.weight.shape == (VOCAB, 10)  # 75 pixels in 10 bytes
        assert torch.equal(drawn, torch.from_numpy(glyphs.reshape(VOCAB, -1)))
        assert torch.equal(floats.embeddings.glyph_embeddings(ids), drawn * 255.0)


class TestMissingPinyin:
    def test_each_token_gets_its_default_reading(self):
        model, batch = make(), make_batch()
        del batch["pinyin_ids"]
        default = model.embeddings.default_pinyin_ids[batch["input_ids"]]
        torch.testing.assert_close(
            model(**batch).last_hidden_state, model(**batch, pinyin_ids=default).last_hidden_state, rtol=0, atol=0
        )

    @pytest.mark.parametrize("shape", [(3, 10), (3, 11, 7), (3, 11, 8, 1), (33,)])
    def test_other_shapes_are_refused(self, shape):
        model, batch = make(), make_batch()
        with pytest.raises(ValueError, match=r"pinyin_ids must have the shape of input_ids, \(3, 11\)"):
            model(**{**batch, "pinyin_ids": torch.zeros(shape, dtype=torch.long)})


class TestFolding:
    @pytest.mark.parametrize("storage", ["bits", "uint8", "float32"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_equals_the_fusion(self, storage, dtype):
        model, batch = make(glyph_storage=storage), make_batch()
        with torch.no_grad():  # the size of a real model's fused vectors
            for parameter in model.embeddings.parameters():
                parameter.mul_(0.1)
            model.embeddings.LayerNorm.weight.fill_(1)
        expected = unfolded(model, **batch)
        model.to(dtype)
        with torch.no_grad():
            folded = model.embeddings(**batch)
        assert model.embeddings._fold.table.dtype == dtype
        bound = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
        assert (folded.float() - expected).abs().max() < bound

    def test_is_as_exact_under_autocast(self):
        model, batch = make(), make_batch()
        with torch.no_grad():
            model(**batch)
            expected = model.embeddings._fold.table
            model.unfold_embeddings()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                model(**batch)
        assert torch.equal(model.embeddings._fold.table, expected)

    @pytest.mark.parametrize("given", ["nothing", "types", "positions", "both"])
    def test_equals_the_fusion_with_any_places(self, given):
        model, batch = make(), make_batch()
        types = batch.pop("token_type_ids")
        if given in {"types", "both"}:
            batch["token_type_ids"] = types
        if given in {"positions", "both"}:
            batch["position_ids"] = torch.arange(11, 0, -1).expand(3, -1) + torch.tensor([[0], [3], [12]])
        with torch.no_grad():
            torch.testing.assert_close(model.embeddings(**batch), unfolded(model, **batch), rtol=0, atol=1e-5)

    def test_happens_in_eval_without_gradients_alone(self):
        model, batch = make(), make_batch()
        model(**batch)
        assert model.embeddings._fold is None
        model.train()
        with torch.no_grad():
            model(**batch)
        assert model.embeddings._fold is None
        model.eval()
        with torch.no_grad():
            model(**batch)
        assert model.embeddings._fold is not None
        model.fold_embeddings()
        assert model.embeddings.folded is model.embeddings._fold.table
        assert not any("fold" in name for name in model.state_dict())
        model.train()
        assert model.embeddings._fold is None
        assert model.embeddings.folded is None

    def test_rows_do_not_depend_on_what_came_before(self):
        whole, lazy = make(vocab_size=200), make(vocab_size=200)
        whole.fold_embeddings()
        with torch.no_grad():
            for ids in ([[199]], [[3, 40]], [[1, 35, 64, 130]]):
                ids = torch.tensor(ids)
                lazy(ids, torch.zeros_like(ids))
            pending = lazy.embeddings._fold.pending.tolist()
            lazy.fold_embeddings()
        assert pending == [False, False, False, True, False, True, False]  # blocks of 32 tokens
        assert torch.equal(lazy.embeddings.folded, whole.embeddings.folded)

    def test_goes_on_outside_of_inference_mode(self):
        model, batch = make(vocab_size=200), make_batch()
        with torch.inference_mode():
            model(**batch)
        batch["input_ids"] = batch["input_ids"] + 120
        with torch.no_grad():
            torch.testing.assert_close(model.embeddings(**batch), unfolded(model, **batch), rtol=0, atol=1e-5)

    def test_gradients_reach_all_weights_after_it(self):
        model, batch = make(), make_batch()
        model.fold_embeddings()
        model(**batch).last_hidden_state.square().sum().backward()
        without = [name for name, parameter in model.embeddings.named_parameters() if parameter.grad is None]
        assert without == []

    @pytest.mark.parametrize(
        "name",
        [
            "word_embeddings.weight",
            "position_embeddings.weight",
            "token_type_embeddings.weight",
            "pinyin_embeddings.embedding.weight",
            "pinyin_embeddings.conv.bias",
            "glyph_map.weight",
            "map_fc.bias",
        ],
    )
    @pytest.mark.parametrize("change", ["in place", "data", "replaced", "loaded", "optimizer", "fused optimizer"])
    def test_is_undone_by_a_change_of_any_weight(self, name, change):
        model, batch = make(), make_batch()
        with torch.no_grad():
            before = model.embeddings(**batch)
            weight = model.embeddings.get_parameter(name)
            random = torch.randn_like(weight)
            if change == "in place":
                weight += random
            elif change == "data":
                weight.data += random
            elif change == "replaced":
                module = model.embeddings.get_submodule(name.rpartition(".")[0])
                setattr(module, name.rpartition(".")[2], nn.Parameter(weight + random))
            elif change == "loaded":
                model.embeddings.load_state_dict({name: weight + random}, strict=False)
            else:
                weight.grad = random
                torch.optim.SGD([weight], lr=1.0, fused=change == "fused optimizer").step()
            after = model.embeddings(**batch)
        assert not torch.allclose(after, before, atol=1e-3)
        torch.testing.assert_close(after, unfolded(model, **batch), rtol=0, atol=1e-5)

    def test_is_undone_by_training_in_eval_mode(self):
        """A fused optimizer changes weights without a trace; here a row that no sample of values shows."""
        model, batch = make(), make_batch()
        with torch.no_grad():
            model(**batch)
        model(**batch).last_hidden_state.square().sum().backward()
        assert model.embeddings._fold is None
        words = model.embeddings.word_embeddings.weight
        words.grad = torch.zeros_like(words)
        words.grad[batch["input_ids"][0, 3]] = 1.0
        torch.optim.SGD([words], lr=1.0, fused=True).step()
        with torch.no_grad():
            torch.testing.assert_close(model.embeddings(**batch), unfolded(model, **batch), rtol=0, atol=1e-5)

    def test_is_undone_by_a_step_on_fused_vectors(self):
        model, batch = make(), make_batch()
        with torch.no_grad():
            model(**batch)
        fused = model.get_fused_embeddings(batch["input_ids"], batch["pinyin_ids"])
        model(inputs_embeds=fused).last_hidden_state.sum().backward()
        assert model.embeddings._fold is None

    def test_is_undone_by_new_tables(self):
        model, batch = make(), make_batch()
        random = np.random.default_rng(1)
        for change in (
            lambda: model.set_glyphs(random.integers(0, 256, (VOCAB, 3, 5, 5)).astype(np.uint8)),
            lambda: model.set_readings(random.integers(0, 32, (READINGS, 8)), np.zeros(VOCAB, dtype=int)),
        ):
            with torch.no_grad():
                model(**batch)
                change()
                torch.testing.assert_close(model.embeddings(**batch), unfolded(model, **batch), rtol=0, atol=1e-5)

    def test_stops_where_weights_change_at_each_forward(self):
        model, batch = make(), make_batch()
        with torch.no_grad():
            for _ in range(6):
                model.embeddings.map_fc.weight.mul_(1.1)
                after = model.embeddings(**batch)
                torch.testing.assert_close(after, unfolded(model, **batch), rtol=1e-5, atol=1e-5)
        assert model.embeddings._fold is None

    def test_leaves_layers_alone_that_are_not_plain(self):
        model, batch = make(), make_batch()

        class Adapted(nn.Linear):
            def forward(self, hidden):
                return super().forward(hidden) + 1

        adapted = Adapted(48, 16)
        adapted.load_state_dict(model.embeddings.map_fc.state_dict())
        model.embeddings.map_fc = adapted
        with torch.no_grad():
            torch.testing.assert_close(model.embeddings(**batch), unfolded(model, **batch), rtol=0, atol=0)

    @pytest.mark.parametrize("name", ["word_embeddings", "pinyin_embeddings", "glyph_embeddings", "map_fc"])
    def test_hooks_on_its_layers_still_run(self, name):
        model, batch = make(), make_batch()
        shapes = []
        with torch.no_grad():
            model(**batch)
            layer = model.embeddings.get_submodule(name)
            layer.register_forward_hook(lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape[:2])))
            model(**batch)
            model(**batch)
        assert shapes == [(3, 11), (3, 11)]  # the batch, not the rows of a table

    def test_layers_whose_weights_are_whole_numbers(self):
        """As quantised layers hold them: the type of a weight is not that of what goes in."""
        model, batch = make(), make_batch()

        class Quantised(nn.Module):
            def __init__(self, layer):
                super().__init__()
                self.scale = layer.weight.detach().abs().max() / 127
                self.weight = nn.Parameter((layer.weight / self.scale).round().to(torch.int8), requires_grad=False)
                self.bias = layer.bias
                layer.weight.data = self.weight * self.scale

            def forward(self, hidden):
                return nn.functional.linear(hidden, self.weight * self.scale, self.bias)

        stand_ins = {name: Quantised(model.embeddings.get_submodule(name)) for name in ("glyph_map", "map_fc")}
        expected = unfolded(model, **batch)
        for name, layer in stand_ins.items():
            setattr(model.embeddings, name, layer)
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                torch.testing.assert_close(model.embeddings(**batch), expected, rtol=0, atol=1e-5)

    def test_a_layer_without_weights_of_its_own(self):
        model, batch = make(), make_batch()
        expected = unfolded(model, **batch)
        model.embeddings.map_fc = nn.Sequential(model.embeddings.map_fc, nn.Dropout(0.5)).eval()
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                torch.testing.assert_close(model.embeddings(**batch), expected, rtol=0, atol=0)

    @pytest.mark.parametrize("obstacle", ["adapter", "hook", "offloaded", "inference mode", "replica"])
    def test_is_refused_where_no_table_would_do(self, obstacle):
        """Not left to the user to notice: the table would be that of other weights."""
        with torch.inference_mode(obstacle == "inference mode"):
            model, batch = make(), make_batch()
            expected = unfolded(model, **batch)
        if obstacle == "adapter":
            lora = LoraConfig(r=2, target_modules=["map_fc"], init_lora_weights=False)
            model = get_peft_model(model, lora).eval().get_base_model()
            expected = unfolded(model, **batch)
        elif obstacle == "hook":
            model.embeddings.pinyin_embeddings.register_forward_hook(lambda *_: None)
        elif obstacle == "offloaded":
            cpu_offload(model, execution_device="cpu")
        elif obstacle == "replica":
            model.embeddings._is_replica = True  # as DataParallel marks what lasts for one forward
        for release in (False, True):
            with pytest.raises(RuntimeError, match="cannot be folded: one of their layers is"):
                model.fold_embeddings(release)
        assert not model.embeddings.released
        with torch.no_grad():
            torch.testing.assert_close(model.embeddings(**batch), expected, rtol=0, atol=1e-5)
        assert model.embeddings._fold is model.embeddings.folded is None

    def test_a_copy_folds_for_itself(self):
        model, batch = make(), make_batch()
        with torch.no_grad():
            model(**batch)
            twin = copy.deepcopy(model)
            twin.embeddings.map_fc.weight.zero_()
            torch.testing.assert_close(twin.embeddings(**batch), unfolded(twin, **batch), rtol=0, atol=1e-5)
            torch.testing.assert_close(model.embeddings(**batch), unfolded(model, **batch), rtol=0, atol=1e-5)

    def test_copies_and_pickles_do_not_carry_it(self):
        model, batch = make(), make_batch()
        size = len(pickle.dumps(model))
        with torch.no_grad():
            expected = model.embeddings(**batch)
            assert model.embeddings._fold is not None
            assert len(pickle.dumps(model)) == size
            for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                assert other.embeddings._fold is None
                assert torch.equal(other.embeddings(**batch), expected)
            assert model.embeddings._fold is not None

    def test_is_refused_in_training(self):
        with pytest.raises(RuntimeError, match=r"model\.eval\(\)"):
            make().train().fold_embeddings()

    @pytest.mark.parametrize("field", ["input_ids", "pinyin_ids", "token_type_ids", "position_ids"])
    @pytest.mark.parametrize("wrong", [-1, "end"])
    def test_ids_out_of_range_never_reach_a_neighbouring_row(self, field, wrong):
        model, batch = make(), make_batch()
        ends = {"input_ids": VOCAB, "pinyin_ids": READINGS, "token_type_ids": 2, "position_ids": POSITIONS}
        batch["position_ids"] = torch.arange(11).repeat(3, 1)
        batch[field] = batch[field].clone()
        batch[field][1, 2] = ends[field] if wrong == "end" else wrong
        with torch.no_grad(), pytest.raises(IndexError, match="out of range"):
            model(**batch)

    def test_sequences_longer_than_the_positions_are_refused(self):
        model, batch = make(), make_batch(length=POSITIONS + 1)
        for mode in (torch.no_grad, torch.enable_grad):
            with mode(), pytest.raises(ValueError, match="25 tokens is longer than the model's 24 positions"):
                model(**batch)


class TestRelease:
    def test_infers_the_same_with_less_memory(self):
        model, batch = make(ChineseBertForMaskedLM), make_batch()
        with torch.no_grad():
            expected = model(**batch).logits
            letters = model.bert.embeddings.pinyin_table[batch["pinyin_ids"]].long()
            model.fold_embeddings(release=True)
            torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=0)
            torch.testing.assert_close(model(**{**batch, "pinyin_ids": letters}).logits, expected, rtol=0, atol=1e-4)
        names = dict(model.bert.embeddings.named_parameters())
        assert "word_embeddings.weight" not in names
        assert "glyph_map.weight" not in names
        assert model.bert.embeddings.glyph_embeddings.embedding.weight is None

    def test_leaves_one_table_which_moves_with_the_model(self):
        model, batch = make(), make_batch()
        model.fold_embeddings(release=True)
        model.half()
        held = [value for value in vars(model.embeddings).values() if isinstance(value, tuple | torch.Tensor)]
        assert held == []
        assert model.embeddings.folded.dtype == torch.float16
        with torch.no_grad():
            assert model.embeddings(**batch).dtype == torch.float16

    @pytest.mark.parametrize("use", ["train", "unfold", "resize", "state_dict", "save"])
    def test_refuses_what_needs_the_weights(self, use, tmp_path):
        model = make(ChineseBertForMaskedLM)
        model.fold_embeddings(release=True)
        calls = {
            "train": model.train,
            "unfold": model.unfold_embeddings,
            "resize": lambda: model.resize_token_embeddings(VOCAB + 1),
            "state_dict": model.state_dict,
            "save": lambda: model.save_pretrained(tmp_path / "saved"),
        }
        with pytest.raises(RuntimeError, match="Load it again to train, resize or save it"):
            calls[use]()
        assert not list(tmp_path.rglob("*.safetensors"))
