"""The files of examples/accelerate, read by accelerate's own launcher; test_gradual_unfreezing.py trains with one."""

from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from hf_nlpnotes.models.chinesebert import ChineseBertModel

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"
MODES = {"ddp.yaml": "multi_gpu", "fsdp2.yaml": "use_fsdp", "deepspeed.yaml": "use_deepspeed"}


def launched(name: str):
    arguments = launch_command_parser().parse_args(["--config_file", str(FOLDER / name), "script.py"])
    arguments, config, _ = _validate_launch_command(arguments)
    return arguments, config


def test_each_file_is_tested() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == set(MODES)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in MODES)


@pytest.mark.parametrize("name", MODES)
def test_two_processes_of_one_mode(name, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments, _ = launched(name)
    assert {mode: getattr(arguments, mode) for mode in MODES.values()} == {
        mode: mode == MODES[name] for mode in MODES.values()
    }
    assert arguments.num_processes == 2


def test_fsdp2_shards_the_layers_that_the_model_names(monkeypatch, tiny_chinesebert_folder) -> None:
    model = ChineseBertModel.from_pretrained(tiny_chinesebert_folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = prepare_multi_gpu_env(launched("fsdp2.yaml")[0])
    for key in filter(lambda key: key.startswith(("FSDP_", "ACCELERATE_USE_FSDP")), environment):
        monkeypatch.setenv(key, environment[key])
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    plugin.set_auto_wrap_policy(model)
    wrapped = [
        name
        for name, module in model.named_modules()
        if plugin.auto_wrap_policy(module=module, recurse=False, nonwrapped_numel=0)
    ]
    layers = [f"encoder.layer.{index}" for index in range(model.config.num_hidden_layers)]
    assert [name.removeprefix("bert.") for name in wrapped] == ["embeddings", *layers]


def test_deepspeed_leaves_accumulation_and_clipping_to_the_trainer(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments, config = launched("deepspeed.yaml")
    arguments.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
    environment = prepare_deepspeed_cmd_env(arguments)[1]
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
    assert environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"
    assert environment["ACCELERATE_GRADIENT_CLIPPING"] == "auto"


def test_the_list_of_examples_is_complete() -> None:
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.parent.glob("[!_]*.py"):
        assert f"[`{path.name}`]({path.name})" in text
    assert text.count("](") == len(list(FOLDER.parent.glob("[!_]*.py"))) + 1, "and names nothing else"


@pytest.mark.parametrize("path", sorted(FOLDER.parent.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_who_trains_leaves_the_process_group_last(path) -> None:
    text = path.read_text(encoding="utf-8")
    trains = any(name in text for name in ("Trainer", "_tagging_training", "train_masked_lm"))
    assert text.endswith("main()\n    leave_process_group()\n") == trains
