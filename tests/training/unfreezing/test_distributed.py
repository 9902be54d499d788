"""Two processes: the ranks stay equal, they end where one process ends, and only what trains is sent."""

import pytest
import torch

PRESETS = ["gradual", "sequential", "chain-thaw", "lp-ft", "lisa"]
SETTINGS = [f"checkpointing {checkpointing}, accumulation {n}" for checkpointing in (False, True) for n in (1, 2)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(torchrun, tmp_path_factory, worker):
    """What each of two processes found."""
    output = tmp_path_factory.mktemp("two")
    torchrun(worker.__file__, output, timeout=1200)
    found = [torch.load(output / f"rank{rank}.pt") for rank in range(2)]
    assert [entry["world_size"] for entry in found] == [2, 2]
    return found


@pytest.fixture(scope="module")
def one(tmp_path_factory, worker):
    """The same trainings in this process."""
    return worker.matrix(tmp_path_factory.mktemp("one"))


def distance(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """Largest difference of any weight after any step."""
    assert len(first) == len(second) > 0
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))


def norms(logs: list[dict]) -> list[float]:
    return [entry["grad_norm"] for entry in logs if "grad_norm" in entry]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_ranks_are_equal_and_end_where_one_process_ends(ranks, one, worker, preset, setting) -> None:
    """In double precision, after every step."""
    (first, logs), (second, _) = (rank["matrix"][f"{preset}, {setting}"] for rank in ranks)
    alone = one[f"{preset}, {setting}"]
    assert len(first) == worker.STEPS
    assert distance(first, second) == 0
    assert distance(first, alone.weights) <= 1e-12
    assert norms(logs) == pytest.approx(norms(alone.logs), rel=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_in_single_precision(ranks, one, preset) -> None:
    (first, _), (second, _) = (rank["matrix"][f"{preset}, float32"] for rank in ranks)
    assert distance(first, second) == 0
    assert distance(first, one[f"{preset}, float32"].weights) <= 1e-5


@pytest.mark.parametrize("setting", SETTINGS)
def test_without_a_new_reducer(ranks, one, setting) -> None:
    (first, logs), (second, _) = (rank["fallback"][f"chain-thaw, {setting}"] for rank in ranks)
    alone = one[f"chain-thaw, {setting}"]
    assert distance(first, second) == 0
    assert distance(first, alone.weights) <= 1e-12
    assert norms(logs) == pytest.approx(norms(alone.logs), rel=1e-6)


@pytest.mark.parametrize("case", ["gradual", "lisa", "accumulated"])
def test_only_what_trains_is_sent(ranks, case) -> None:
    for rank in ranks:
        sent, trainable = rank["bytes"][case]
        assert len(sent) == 10
        assert all(b <= a <= 1.05 * b for a, b in zip(sent, trainable, strict=True))


def test_without_a_new_reducer_everything_is_sent(ranks) -> None:
    """What the new reducer is for, and a check of the counter."""
    sent, trainable = ranks[0]["bytes"]["fallback"]
    assert sent[0] == sent[-1] >= trainable[-1] > 10 * trainable[0]


@pytest.mark.parametrize("case", ["plateau", "lisa"])
def test_broken_off_and_resumed(ranks, case) -> None:
    """In the middle of an epoch, with dropout, by a plateau and with the best weights of each phase."""
    for rank in ranks:
        whole, parts = rank["resumed"][case]
        assert (whole - parts).abs().max().item() == 0
        assert (whole - ranks[0]["resumed"][case][0]).abs().max().item() == 0


def test_plateaus_are_reached_under_way(ranks) -> None:
    for rank in ranks:
        phases = [entry["unfreezing_phase"] for entry in rank["plateau logs"] if "unfreezing_phase" in entry]
        assert phases == ["head", "layer.1", "layer.0", "embeddings"]


def test_freezing_before_wrapping_lets_the_ranks_diverge(ranks) -> None:
    """In silence: which is why the callback raises."""
    first, second = (rank["naive"] for rank in ranks)
    assert (first[1] - second[1]).abs().max().item() == 0
    assert (first[-1] - second[-1]).abs().max().item() > 1e-3
    for rank in ranks:
        assert "frozen before the training" in rank["errors"]["frozen"]


def test_a_group_added_later_breaks_the_scheduler(ranks) -> None:
    assert all(rank["group added"] for rank in ranks)


def test_what_ddp_cannot_do_is_said(ranks) -> None:
    for rank in ranks:
        assert "leave ddp_static_graph out" in rank["errors"]["static graph"]
        assert "set TrainingArguments(ddp_find_unused_parameters=True)" in rank["errors"]["no search"]


def test_a_later_training_without_the_callback_is_whole(ranks) -> None:
    """The first ends with frozen layers; the second trains all of them, on both ranks alike."""
    first, second = (rank["twice"] for rank in ranks)
    assert len(first) == 20
    assert distance(first, second) == 0
    moved = first[-1] != first[9]
    assert moved.double().mean() > 0.99


@pytest.mark.parametrize("kind", ["layers", "all"])
def test_fully_sharded(ranks, kind) -> None:
    """FSDP2 beside the whole model: up from the head to everything, and down again to two groups."""
    for rank in ranks:
        differences, moves = rank["sharded"][kind]
        assert max(differences) <= 1e-12
        assert moves == sorted(moves[:8]) + moves[8:]
        assert moves[0] < 0.1
        assert moves[7] > 0.99
        assert moves[9] < 0.5


def test_sharded_in_half_precision(ranks) -> None:
    """Layers that were frozen in the first forward pass get gradients in the dtype of their weights."""
    for rank in ranks:
        assert rank["half precision"] == {("torch.float32", "torch.float32")}


def test_hooks_of_the_user_stay(ranks) -> None:
    for rank in ranks:
        counts = rank["hooked"]
        assert counts[::2] == counts[1::2]
        assert len(set(counts)) == 4
