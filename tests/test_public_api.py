"""Public is what `__all__` lists: it exists, it is documented, and the root stays small."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import hf_nlpnotes

MODULES = ["hf_nlpnotes", *sorted(m.name for m in pkgutil.walk_packages(hf_nlpnotes.__path__, "hf_nlpnotes."))]
PUBLIC = [
    (module, name)
    for module in MODULES
    if module != "hf_nlpnotes.__main__"
    for name in getattr(importlib.import_module(module), "__all__", ())
]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is(module: str) -> None:
    assert (importlib.import_module(module).__doc__ or "").strip()


@pytest.mark.parametrize("module", [name for name in MODULES if hasattr(importlib.import_module(name), "__path__")])
def test_a_subpackage_says_what_is_public(module: str) -> None:
    package = importlib.import_module(module)
    if list(pkgutil.iter_modules(package.__path__)) and module.count(".") != 0:
        is_shelf = all(child.ispkg for child in pkgutil.iter_modules(package.__path__))
        assert is_shelf or package.__all__


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_a_public_name_exists_and_is_documented(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    assert name in dir(importlib.import_module(module))
    if inspect.isclass(value) or inspect.isroutine(value):
        assert (value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__) is not None


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_listed_once(module: str) -> None:
    names = list(getattr(importlib.import_module(module), "__all__", ()))
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("_") and name != "__version__"]


def test_the_root_stays_small() -> None:
    assert {"EMBEDDED_MODEL", "__version__", "register"} <= set(hf_nlpnotes.__all__)
    assert len(hf_nlpnotes.__all__) <= 12


def test_the_version_has_one_source() -> None:
    assert metadata.version("hf-nlpnotes") == hf_nlpnotes.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", hf_nlpnotes.__version__)


def test_type_information_and_the_embedded_model_travel_with_the_package() -> None:
    package = Path(hf_nlpnotes.__file__).parent
    assert (package / "py.typed").is_file()
    embedded = Path(hf_nlpnotes.EMBEDDED_MODEL)
    assert embedded.is_relative_to(package)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in embedded.iterdir()}


def test_extras_are_needed_only_by_what_needs_them() -> None:
    """Every module imports in an environment that has no more than the package's own dependencies."""
    optional = ["gradio", "jieba", "matplotlib", "onnx", "onnxruntime", "PIL", "shtab", "sklearn"]
    program = (
        "import importlib, importlib.machinery, sys\n"
        "class Without(importlib.machinery.PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *place):\n"
        f"        return None if name.split('.')[0] in {optional!r} else super().find_spec(name, *place)\n"
        "finder = importlib.machinery.PathFinder\n"
        "sys.meta_path[:] = [Without if known is finder else known for known in sys.meta_path]\n"
        f"for name in {MODULES!r}:\n"
        "    importlib.import_module(name)\n"
        f"assert not sys.modules.keys() & set({optional!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_root_imports_no_heavy_package_that_it_does_not_need() -> None:
    program = "import hf_nlpnotes, sys; assert not sys.modules.keys() & {'datasets', 'evaluate', 'jieba', 'pandas'}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
