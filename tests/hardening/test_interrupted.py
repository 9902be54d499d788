"""Writers that are killed, or meet a full disk: what is under the final name is whole, and the next try works.

Each writer first leaves its old content. Then a child process writes the new one and is killed before one of the
system calls that change the folder, or in the middle of a file's bytes, or gets an error there.
"""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_nlpnotes.attention import AttentionMaps, head_view
from hf_nlpnotes.attention.maps import LayerAttention
from hf_nlpnotes.attention.tokens import TokenSequence
from hf_nlpnotes.models.chinesebert import PinyinTable
from hf_nlpnotes.models.chinesebert.convert_chinesebert import convert_official
from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import GlyphFont, save_glyphs
from hf_nlpnotes.prompting import PromptConfig
from hf_nlpnotes.prompting.soft_prompts import save_tensors
from hf_nlpnotes.question_answering.postprocessing import SpanPredictions, save_predictions
from hf_nlpnotes.training.checkpoint_tensors import write_tensors
from hf_nlpnotes.training.checkpoints import whole_folder
from hf_nlpnotes.training.unfreezing import write_schedule
from hf_nlpnotes.training.unfreezing.schedule import Phase, UnfreezingSchedule

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed in children made by os.fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),  # of fork, from Python 3.12 on
]

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.copyfile"}


def maps(number: float) -> AttentionMaps:
    weights = np.full((2, 30, 30), number, np.float32)
    layers = [LayerAttention("layer", "encoder", weights, weights, weights, scaling=0.5)]
    return AttentionMaps("Model", "bert", tuple(layers), TokenSequence.of_positions(30))


def schedule(name: str) -> UnfreezingSchedule:
    return UnfreezingSchedule((Phase(name * 50, ("head",)),))


def glyphs(folder: Path, number: int) -> None:
    pixels = np.random.default_rng(number).random((9, 1, 24, 24)) < 0.5
    save_glyphs(folder / "glyphs.npz", pixels, list("abcdefghi"), [GlyphFont("f", "F", "0" * 64)])


def model_folder(folder: Path, number: int) -> None:
    with whole_folder(folder / "model") as made:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (made / name).write_text(f"{name} {number} " * 30, encoding="utf-8")


def prompt(folder: Path, number: int) -> None:
    PromptConfig(template="{label}{text}" + "好" * (99 + number)).save_pretrained(folder)


def predictions(folder: Path, number: int) -> None:
    save_predictions(SpanPredictions({str(i): f"answer {number}" for i in range(50)}, {}, None), folder)


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "prompt.json": prompt,
    "schedule.yaml": lambda folder, i: write_schedule(schedule("ab"[i]), folder / "schedule.yaml"),
    "pinyin.json": lambda folder, i: PinyinTable(["", "wo3", f"ni{i + 1}"]).to_json_file(folder / "pinyin.json"),
    "glyphs.npz": glyphs,
    "maps.npz": lambda folder, i: maps((i + 1) / 60).save(folder / "maps.npz"),
    "page.html": lambda folder, i: head_view(maps((i + 1) / 60)).save(folder / "page.html"),
    "state": lambda folder, i: write_tensors(folder / "a.safetensors", {"a": torch.full((99,), i)}, {"weights": "0"}),
    "soft prompt": lambda folder, i: save_tensors({"soft_tokens": torch.full((99,), float(i))}, folder),
    "folder": model_folder,
    "predictions": predictions,
}


def content(folder: Path) -> dict[str, bytes]:
    """Files by name, without what begins with a dot: leftovers that nothing reads."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder).as_posix() for path in files}
    return {name: path.read_bytes() for path, name in names.items() if not name.startswith(".") and "/." not in name}


def in_child(act: Callable[[], object]) -> int:
    """Run in a forked process; its exit status: 0 for done, 3 for an OSError, 4 for any other error, -9 for a kill."""
    pid = os.fork()
    if not pid:
        status = 4
        try:
            act()
            status = 0
        except OSError:
            status = 3
        except Exception as error:  # noqa: BLE001 (a child must not return into pytest)
            status = 3 if "I/O error" in str(error) else 4  # what safetensors makes of an OSError
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def before_change(folder: Path, number: int, then: Callable[[], None]) -> Callable[[], bool]:
    """Call `then` before change number `number` of files under `folder`, from 0; what is returned tells if it came."""
    seen = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal seen
        written = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (written or event in CHANGES) and args and str(args[0]).startswith(str(folder)):
            seen += 1
            if seen == number + 1:
                then()

    sys.addaudithook(watch)
    return lambda: seen > number


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full_disk() -> None:
    raise OSError(28, "No space left on device")


def limit_files(size: int, *, die: bool) -> None:
    """No file grows beyond `size`: the process dies there, or the write fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if die else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.fixture(scope="module", params=WRITERS)
def case(request, tmp_path_factory):
    """A writer, a folder with its old content, and both contents."""
    write = WRITERS[request.param]
    folder = tmp_path_factory.mktemp("written")
    contents = []
    for number in (1, 0):
        write(folder, number)
        contents.append(content(folder))
    new, old = contents
    assert new != old
    assert new.keys() == old.keys()
    return write, folder, old, new


def start(folder: Path, old: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    for name, data in old.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_killed_before_any_change(case):
    write, folder, old, new = case
    for number in range(100):
        start(folder, old)

        def act(place=number):
            before_change(folder, place, kill)
            write(folder, 1)

        status = in_child(act)
        found = content(folder)
        # Between its two renames a folder has no name; it stands whole beside its place.
        kept = [content(path.parent.parent) for path in folder.glob(".*.old.*/*")] and not found
        assert found in (old, new) or kept, number
        if status == 0:
            break
        assert status == -signal.SIGKILL
        write(folder, 1)  # a restart
        assert content(folder) == new
    assert number > 0


@pytest.mark.parametrize("size", [0, 50])
def test_killed_in_the_middle_of_a_file(case, size):
    write, folder, old, new = case
    start(folder, old)

    def act():
        limit_files(size, die=True)
        write(folder, 1)

    assert in_child(act) == -signal.SIGXFSZ
    assert content(folder) == old
    write(folder, 1)
    assert content(folder) == new


@pytest.mark.parametrize("size", [0, 50])
def test_a_full_disk_is_an_error_and_leaves_nothing(case, size):
    write, folder, old, new = case
    start(folder, old)

    def act():
        limit_files(size, die=False)
        write(folder, 1)

    assert in_child(act) == 3
    assert content(folder) == old
    assert {path.name for path in folder.iterdir()} == {name.partition("/")[0] for name in old}
    write(folder, 1)
    assert content(folder) == new


def test_an_error_at_any_change_leaves_the_old_content(case):
    write, folder, old, new = case
    for number in range(100):
        start(folder, old)

        def act(place=number):
            came = before_change(folder, place, full_disk)
            write(folder, 1)
            os._exit(5 if came() else 0)  # an error may do no harm: making a folder that is there

        status = in_child(act)
        assert content(folder) in (old, new), number
        if status == 0:
            break
        assert status in {3, 5}, number
    assert number > 1


@pytest.mark.parametrize(("then", "status"), [(kill, -signal.SIGKILL), (full_disk, 3)])
def test_a_conversion_that_is_killed_or_fails_leaves_no_model(official_folder, tmp_path, then, status):
    target = tmp_path / "converted"
    for place in range(1, 100, 6):  # the first change is the parent folder, which is there

        def act(place=place):
            before_change(tmp_path, place, then)
            convert_official(official_folder, target)

        done = in_child(act)
        if done == 0:
            break
        assert done == status
        assert not target.exists()
    assert place > 6
    assert json.loads((target / "config.json").read_text(encoding="utf-8"))["model_type"] == "chinesebert"
    assert (target / "model.safetensors").is_file()
    assert (target / "pinyin.json").is_file()
