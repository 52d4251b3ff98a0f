"""What the project promises as a whole: names, docstrings, versions, and an import that stays light."""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import multilevel_loss
from multilevel_loss import functional

ROOT = Path(__file__).parents[1]
SECTIONS = ["Args", "Returns", "Raises", "Note", "Example", "Source"]
PUBLIC = [
    pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")
    for module in (multilevel_loss, functional, importlib.import_module("multilevel_loss.distance"))
    for name in module.__all__
    if inspect.isroutine(getattr(module, name)) or inspect.isclass(getattr(module, name))
]


@pytest.mark.parametrize("item", PUBLIC)
def test_docstring_has_the_sections_of_the_house_in_order(item):
    text = inspect.getdoc(item)
    assert text.splitlines()[0].endswith("."), "the first line is one sentence"
    sections = re.findall(r"^(\w+):$", text, flags=re.MULTILINE)
    assert sections == [name for name in SECTIONS if name in sections]


@pytest.mark.parametrize("item", [pytest.param(getattr(functional, name), id=name) for name in functional.__all__])
def test_loss_docstring_is_whole_and_names_every_argument(item):
    text = inspect.getdoc(item)
    assert re.findall(r"^(\w+):$", text, flags=re.MULTILINE) == SECTIONS
    arguments = text.partition("\nArgs:")[2].partition("\nReturns:")[0]
    documented = re.findall(r"^    (\w+): ", arguments, flags=re.MULTILINE)
    assert documented == list(inspect.signature(item).parameters)


def test_every_loss_is_a_function_and_a_module():
    modules = {name.lower() for name in multilevel_loss.__all__}
    short = {"multilevel_loss": "MLLoss", "multilevel_network_loss": "MLNLoss"}
    losses = [name for name in functional.__all__ if name.endswith("_loss")]
    alone = [name for name in losses if short.get(name, name.replace("_", "")).lower() not in modules]
    assert alone == []


def test_importing_loads_nothing_beside_torch_and_numpy():
    code = (
        "import sys, numpy, torch\n"
        "packages = lambda: {name.partition('.')[0] for name in sys.modules}\n"
        "loaded = packages(); import multilevel_loss; print(*packages() - loaded - set(sys.stdlib_module_names))"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["multilevel_loss"]


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE).group(1) == project
    assert re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1) == project


def test_constraints_lie_within_the_ranges_of_the_project():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [
        metadata["build-system"]["requires"],
        metadata["project"]["dependencies"],
        *metadata["project"]["optional-dependencies"].values(),
        *metadata["dependency-groups"].values(),
    ]
    wanted = [Requirement(line) for group in groups for line in group if isinstance(line, str)]
    outside = [
        str(requirement)
        for requirement in wanted
        if requirement.name != "multilevel-loss"
        and not requirement.specifier.contains(pinned.get(requirement.name.lower(), "0"))
    ]
    assert outside == []
