"""What each of two processes does for test_unfreezing_distributed.py: `torchrun --nproc_per_node 2 … OUTPUT`.

The same functions, called in one process, are its reference.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.layers.layer_discovery import layer_groups
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.unfreezing import (
    LISA,
    ChainThaw,
    GradualUnfreeze,
    LinearProbeThenFineTune,
    Plateau,
    Progress,
    SequentialUnfreeze,
    Step,
    Unfreezing,
    gradual_unfreeze,
    set_trainable,
)
from hf_nlpnotes.training.unfreezing.reducer import rebuild_reducer

STEPS, GLOBAL_BATCH, EXAMPLES = 10, 8, 32
PRESETS: dict[str, Callable[..., Unfreezing]] = {
    "gradual": lambda **options: GradualUnfreeze(2, warmup_steps=2, **options),
    "sequential": lambda **options: SequentialUnfreeze(3, **options),
    "chain-thaw": lambda **options: ChainThaw(2, **options),
    "lp-ft": lambda **options: LinearProbeThenFineTune(0.5, learning_rate_scale=0.5, **options),
    "lisa": lambda **options: LISA(1, every=2, **options),
}


def build(dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config).to(dtype)
    model.accepts_loss_kwargs = False
    return model


def examples(count: int = EXAMPLES, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(seed)
    return [
        {
            "input_ids": torch.randint(0, 40, (6,), generator=random),
            "labels": torch.randint(0, 3, (), generator=random),
        }
        for _ in range(count)
    ]


class Spy(TrainerCallback):
    """Keeps all weights after each step, what trained in it, the norm of its gradient, and the groups' next rates."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.trained: list[list[str]] = []
        self.rates: list[list[float]] = []
        self.logs: list[dict[str, Any]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.trained.append([name for name, p in model.named_parameters() if p.grad is not None])

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def on_train_end(self, args, state, control, **kwargs):
        self.logs = state.log_history


class Interrupt(TrainerCallback):
    """Ends a training after a step, as a kill right after writing a checkpoint would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def arguments(output: Path, accumulation: int = 1, **options: Any) -> TrainingArguments:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    defaults: dict[str, Any] = {
        "output_dir": str(output),
        "per_device_train_batch_size": GLOBAL_BATCH // world // accumulation,
        "gradient_accumulation_steps": accumulation,
        "per_device_eval_batch_size": 4,
        "max_steps": STEPS,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "adam_epsilon": 1e-4,
        "max_grad_norm": 0.5,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**defaults, **options})


def trainer(
    model: nn.Module,
    args: TrainingArguments,
    callbacks: Sequence[TrainerCallback | type],
    **options: Any,
) -> Trainer:
    made = Trainer(model, args, train_dataset=examples(), callbacks=list(callbacks), **options)
    made.remove_callback(PrinterCallback)
    return made


def train(
    callbacks: Sequence[TrainerCallback | type],
    output: Path,
    accumulation: int = 1,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> Spy:
    spy = Spy()
    evaluation = {"eval_dataset": options.pop("eval_dataset")} if "eval_dataset" in options else {}
    trainer(build(dtype), arguments(output, accumulation, **options), [*callbacks, spy], **evaluation).train()
    return spy


def fallback(output: Path, preset: str, **options: Any) -> Spy:
    return train([PRESETS[preset](rebuild_reducer=False)], output, ddp_find_unused_parameters=True, **options)


def resumed(
    make: Callable[[], Sequence[TrainerCallback]], output: Path, step: int, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """All weights at the end: of one run, and of one that is broken off after `step` and resumed."""
    ends = []
    evaluation = examples(8, seed=1)
    options = {"save_strategy": "steps", "save_steps": 1000, **options}
    for parts in ([None], [step, None]):
        folder = output / f"parts{len(parts)}"
        for part in parts:
            spy = Spy()
            callbacks = [*make(), spy, *([] if part is None else [Interrupt(part)])]
            model = build(dropout=0.1)
            run = trainer(model, arguments(folder, **options), callbacks, eval_dataset=evaluation)
            run.train(
                resume_from_checkpoint=str(folder / f"checkpoint-{step}") if part is None and len(parts) > 1 else None
            )
        ends.append(spy.weights[-1])
    return ends[0], ends[1]


def matrix(output: Path) -> dict[str, Spy]:
    """Every preset × activation checkpointing × accumulation, then in float32."""
    found = {}
    for preset, make in PRESETS.items():
        for checkpointing in (False, True):
            for accumulation in (1, 2):
                key = f"{preset}, checkpointing {checkpointing}, accumulation {accumulation}"
                found[key] = train([make()], output, accumulation, **{CHECKPOINTING: checkpointing})
        found[f"{preset}, float32"] = train([make()], output, dtype=torch.float32)
    return found


class AllReduces(TorchDispatchMode):
    """Counts the bytes of the tensors that torch.distributed is given to all-reduce.

    The profiler is no witness: gloo says in a thread of its own that it is done, at times after the profile has ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.c10d.allreduce_.default:
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in args[0])
        return func(*args, **(kwargs or {}))


class ByteCounter(TrainerCallback):
    """Bytes that are all-reduced between the begin of a step and its optimizer step."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.trainable: list[int] = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.trainable.append(sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad))
        self.all_reduces = AllReduces()
        self.all_reduces.__enter__()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.all_reduces.__exit__(None, None, None)
        self.sent.append(self.all_reduces.bytes)


class Naive(TrainerCallback):
    """What one would write first: all that was frozen before the Trainer was made trains from step 2 on."""

    def __init__(self, add_group: bool) -> None:
        self.add_group = add_group

    def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        if state.global_step == 2:
            frozen = [p for p in model.parameters() if not p.requires_grad]
            for parameter in frozen:
                parameter.requires_grad_(True)
            if self.add_group:
                optimizer.add_param_group({"params": frozen, "lr": args.learning_rate})


def frozen_first(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))
    return model


def naive(output: Path, add_group: bool) -> Spy | str:
    """All weights after each step, or the error."""
    spy = Spy()
    model = build()
    optimizer = None if add_group else torch.optim.AdamW(model.parameters(), lr=1e-2)
    callbacks = [Naive(add_group), spy]
    try:
        trainer(frozen_first(model), arguments(output), callbacks, optimizers=(optimizer, None)).train()
    except (ValueError, RuntimeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    return spy


def breaks_the_scheduler(found: Spy | str) -> bool:
    """Whether a group that was added later raised, or has kept its learning rate where all others ended at 0.

    The first is so where torch's schedulers compare the numbers of groups; those of torch 2.9 leave the last ones out.
    """
    return found.startswith("ValueError") if isinstance(found, str) else found.rates[-1] == [0, 0, 1e-2]


def errors(output: Path) -> dict[str, str]:
    """What is said where unfreezing cannot be right."""
    cases: dict[str, Callable[[], object]] = {
        "frozen": lambda: trainer(frozen_first(build()), arguments(output), [GradualUnfreeze]),
        "static graph": lambda: trainer(build(), arguments(output, ddp_static_graph=True), [GradualUnfreeze]),
        "no search": lambda: train(
            [PRESETS["gradual"](rebuild_reducer=False)], output, ddp_find_unused_parameters=False
        ),
    }
    found = {}
    for name, case in cases.items():
        found[name] = message_of(case)
    return found


def message_of(case: Callable[[], object]) -> str:
    try:
        case()
    except ValueError as error:
        return str(error)
    return "no error"


def by_plateau() -> list[TrainerCallback]:
    return [GradualUnfreeze(plateau=Plateau(patience=1, at_most=Step(3)), restore_best=True, warmup_steps=2)]


def twice(output: Path) -> list[torch.Tensor]:
    """Weights after a training that ends with frozen layers, and a second one of the same Trainer without callback."""
    spy, unfreezing = Spy(), Unfreezing(lambda groups: gradual_unfreeze(groups, 6))
    run = trainer(build(), arguments(output), [unfreezing, spy])
    run.train()
    run.remove_callback(unfreezing)
    run.train()
    return spy.weights


def sharded(kind: str) -> tuple[list[float], list[float]]:
    """Largest differences from the whole model after each step, and how much moved in it, phase after phase.

    Args:
        kind: "layers" shards each layer and the rest together, "all" the embeddings for themselves too.
    """
    whole, model = build(), build()
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (*model.bert.encoder.layer, *([model.bert.embeddings] if kind == "all" else []), model):
        fully_shard(module, mesh=mesh)
    groups = layer_groups(whole)
    schedule = gradual_unfreeze(groups, 2)
    networks = (whole, model)
    optimizers = [torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1) for network in networks]
    rows = examples()
    rank, half = dist.get_rank(), GLOBAL_BATCH // 2
    differences: list[float] = []
    moves: list[float] = []
    trained: frozenset[str] | None = None
    for step in range(STEPS):
        # Down again at the end: layers that have momentum freeze.
        trains = schedule.parameters_at(Progress(step if step < 8 else 2, STEPS), groups)
        batch = [rows[(step * GLOBAL_BATCH + i) % EXAMPLES] for i in range(GLOBAL_BATCH)]
        before = torch.cat([p.detach().flatten().clone() for p in whole.parameters()])
        for network, optimizer in zip(networks, optimizers, strict=True):
            if trains != trained:
                set_trainable(network, trains)
            part = batch if network is whole else batch[rank * half :][:half]
            inputs = {key: torch.stack([row[key] for row in part]) for key in part[0]}
            network.train()
            network(**inputs).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        after = torch.cat([p.detach().flatten() for p in whole.parameters()])
        shards = torch.cat([p.full_tensor().detach().flatten() for p in model.parameters()])
        differences.append((shards - after).abs().max().item())
        moves.append((after != before).double().mean().item())
        trained = trains
        with torch.no_grad():
            model(input_ids=inputs["input_ids"])  # leaves the root with whole weights, as an evaluation does
    return differences, moves


def sharded_in_half_precision() -> set[tuple[str, str]]:
    """Dtypes of weights and of their gradients, where layers were frozen in the first forward pass."""
    model = build(torch.float32)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (*model.bert.encoder.layer, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    found = set()
    rows = examples(4)
    inputs = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    for index in range(4):
        schedule = gradual_unfreeze(layer_groups(model), 1)
        set_trainable(model, schedule.parameters_at(Progress(index, 4), layer_groups(model)))
        model(**inputs).loss.backward()
        found |= {(str(p.dtype), str(p.grad.dtype)) for p in model.parameters() if p.grad is not None}
        model.zero_grad()
    return found


def hooked() -> list[int]:
    """Numbers of values that a communication hook of the user sees in each phase, and those that train."""
    ddp = DistributedDataParallel(build(), gradient_as_bucket_view=True)
    seen: list[int] = []

    def hook(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        seen.append(bucket.buffer().numel())
        return allreduce_hook(dist.group.WORLD, bucket)

    ddp.register_comm_hook(None, hook)
    rows, groups, counts = examples(4), layer_groups(ddp.module), []
    inputs = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    for index in range(4):
        set_trainable(ddp.module, gradual_unfreeze(groups, 1).parameters_at(Progress(index, 4), groups))
        rebuild_reducer(ddp)
        for _ in range(2):  # the buckets are laid out anew after the first pass
            seen.clear()
            ddp(**inputs).loss.backward()
            ddp.zero_grad()
            counts += [sum(seen), sum(p.numel() for p in ddp.parameters() if p.requires_grad)]
    return counts


def main() -> None:
    """Run everything, and write for the test what this process found."""
    output = Path(sys.argv[1])
    torch.set_num_threads(1)
    found: dict[str, Any] = {"matrix": {key: (spy.weights, spy.logs) for key, spy in matrix(output).items()}}
    for accumulation in (1, 2):
        for checkpointing in (False, True):
            spy = fallback(output, "chain-thaw", accumulation=accumulation, **{CHECKPOINTING: checkpointing})
            key = f"chain-thaw, checkpointing {checkpointing}, accumulation {accumulation}"
            found.setdefault("fallback", {})[key] = (spy.weights, spy.logs)
    counters = {name: ByteCounter() for name in ("gradual", "lisa", "accumulated", "fallback")}
    train([PRESETS["gradual"](), counters["gradual"]], output)
    train([PRESETS["lisa"](), counters["lisa"]], output, ddp_find_unused_parameters=False)
    train([PRESETS["gradual"](), counters["accumulated"]], output, accumulation=2)
    train([PRESETS["gradual"](rebuild_reducer=False), counters["fallback"]], output, ddp_find_unused_parameters=True)
    found["bytes"] = {name: (counter.sent, counter.trainable) for name, counter in counters.items()}
    options = {"eval_strategy": "steps", "eval_steps": 1}
    found["resumed"] = {
        "plateau": resumed(by_plateau, output / "plateau", 5, **options),
        "lisa": resumed(lambda: [LISA(1, every=2)], output / "lisa", 3, accumulation=2),
    }
    found["plateau logs"] = train(by_plateau(), output, eval_dataset=examples(8, seed=1), **options).logs
    found["naive"] = naive(output, add_group=False).weights
    found["group added"] = breaks_the_scheduler(naive(output, add_group=True))
    found["errors"] = errors(output)
    found["twice"] = twice(output)
    found["sharded"] = {kind: sharded(kind) for kind in ("layers", "all")}
    found["hooked"] = hooked()
    found["half precision"] = sharded_in_half_precision()
    found["world_size"] = dist.get_world_size()
    torch.save(found, output / f"rank{dist.get_rank()}.pt")
    dist.barrier()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
    leave_process_group()
