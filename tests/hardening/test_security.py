"""What the package never does with a file or a text: run it."""

import ast
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

import hf_nlpnotes
from hf_nlpnotes.attention import AttentionMaps, head_view
from hf_nlpnotes.attention.maps import LayerAttention
from hf_nlpnotes.attention.tokens import TokenSequence
from hf_nlpnotes.models.chinesebert.official_chinesebert import official_layout

SOURCE = Path(hf_nlpnotes.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
FORBIDDEN = {
    *("pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open", "dill.load", "joblib.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "pandas.read_pickle", "os.system", "os.popen"),
    *("tarfile.open", "shutil.unpack_archive", "zipfile.ZipFile"),
}
SAFE_LOADERS = {"_LineLoader", "SafeLoader", "yaml.SafeLoader"}


def name_of(node: ast.expr) -> str:
    """`torch.load` for the expression of that name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def complaints(tree: ast.AST) -> list[str]:
    """What a file does that could run what it reads."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = name_of(call.func).replace("np.", "numpy.")
        options = {each.arg: ast.unparse(each.value) for each in call.keywords}
        if name in RUNS_CODE or name in FORBIDDEN:
            found.append(name)
        if name == "torch.load" and options.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if name == "numpy.load" and options.get("allow_pickle") != "False":
            found.append("numpy.load without allow_pickle=False")
        if name == "yaml.load" and options.get("Loader") not in SAFE_LOADERS:
            found.append("yaml.load without a SafeLoader")
        if options.get("shell") == "True" or "extractall" in name or options.get("trust_remote_code") == "True":
            found.append(ast.unparse(call))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(name_of(base) == "pickle.Unpickler" for base in node.bases):
            methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            if "find_class" not in methods:
                found.append(f"{node.name} finds any class")
    return found


def test_no_file_of_the_package_runs_what_it_reads():
    found = {path: complaints(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES}
    assert {str(path): calls for path, calls in found.items() if calls} == {}
    assert len(found) > 200


@pytest.mark.parametrize(
    "code",
    [
        *("eval(x)", "exec(x)", "pickle.load(f)", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)"),
        *("yaml.load(f, Loader=yaml.Loader)", "run(x, shell=True)", "z.extractall(x)", "compile(x, 'a', 'exec')"),
        "class Reader(pickle.Unpickler): pass",
    ],
)
def test_the_walk_sees_what_it_looks_for(code):
    assert complaints(ast.parse(code))


def test_loaders_of_yaml_are_safe():
    text = (SOURCE / "training/unfreezing/schedule_file.py").read_text(encoding="utf-8")
    assert "class _LineLoader(yaml.SafeLoader)" in text


HOSTILE = (
    *("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "]]>", "\u2028alert(1)//", "${1}"),
    *('"><svg onload=alert(1)>', "'onmouseover='alert(1)", "&lt;b&gt;", "</title><script>", "</iframe>", "$theme"),
)


@pytest.fixture(scope="module")
def page():
    weights = np.full((1, len(HOSTILE), len(HOSTILE)), 1 / len(HOSTILE), np.float32)
    count = len(HOSTILE)
    tokens = TokenSequence(HOSTILE, HOSTILE, HOSTILE, (0,) * count, ((0, 1),) * count, tuple(range(count)), HOSTILE)
    layer = LayerAttention(HOSTILE[0], "encoder", weights, weights, weights, scaling=0.5)
    maps = AttentionMaps(HOSTILE[1], HOSTILE[2], (layer,), tokens)
    return head_view(maps, title="".join(HOSTILE))


def test_a_hostile_text_stays_text_in_the_page(page):
    assert not re.search(r"<(img|svg|iframe)", page.html)
    title = re.search(r"<title>(.*?)</title>", page.html, re.DOTALL)[1]
    assert "<" not in title
    assert html.unescape(title) == "".join(HOSTILE)
    policy = html.unescape(re.search(r'Content-Security-Policy"\s+content="([^"]*)"', page.html)[1])
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    found = re.findall(r"<script[^>]*>(.*?)</script>", page.html, re.DOTALL)
    data = [json.loads(text) for text in found if text.lstrip().startswith("{")]
    (numbers,) = [value for value in data if "sequences" in value]
    assert numbers["sequences"][0]["tokens"] == list(HOSTILE)
    assert all("alert" not in text for text in found if not text.lstrip().startswith("{"))


def test_a_page_in_a_notebook_stays_in_its_frame(page):
    shown = page._repr_html_()
    assert shown.count("<iframe") == 1
    assert re.fullmatch(r'<iframe [^<>]*srcdoc="[^"]*"></iframe>', shown, re.DOTALL)
    assert "allow-same-origin" not in shown


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "a/../../b", "..", "a\\b", "", 3])
def test_an_index_of_weights_names_only_files_beside_it(official_folder, tmp_path, name):
    folder = tmp_path / "model"
    for path in official_folder.rglob("*"):
        if path.is_file() and path.name != "pytorch_model.bin":
            (folder / path.relative_to(official_folder)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(official_folder)).write_bytes(path.read_bytes())
    (tmp_path / "outside.bin").write_bytes((official_folder / "pytorch_model.bin").read_bytes())
    index = {"weight_map": {"bert.embeddings.word_embeddings.weight": name}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match="names of files beside it"):
        official_layout(folder)
