"""The images: pinned, without root, and with the packages that are tested."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text()
IMAGES = ("cpu", "cuda")


def stages() -> dict[str, list[str]]:
    """The instructions of every stage, by its name; those before the first under ''."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in joined.splitlines():
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            found[name] = []
        found[name].append(line)
    return found


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_ends_as_a_user_that_is_not_root(image: str) -> None:
    users = [line.split()[1] for line in stages()[image] if line.startswith("USER")]
    assert users == ["1000:1000"]  # by number: Kubernetes cannot tell who a name is
    assert not any(line.startswith(("ADD", "ENTRYPOINT")) for line in stages()[image])


def test_the_base_is_one_pinned_python() -> None:
    (base,) = stages()[""]
    assert re.fullmatch(r"ARG PYTHON=python:3\.11\.\d+-slim-[a-z]+", base)
    sources = {lines[0].split()[1] for name, lines in stages().items() if name}
    assert sources == {"${PYTHON}", "base"}


def test_both_images_have_the_torch_that_is_tested() -> None:
    tested = re.search(r"torch==(\S+)", (ROOT / "Makefile").read_text())
    assert tested
    for image in IMAGES:
        installed = re.findall(r"torch==(\S+)", " ".join(stages()[image]))
        assert installed == [tested[1]]


def test_every_package_of_the_image_is_pinned(tmp_path: Path) -> None:
    """Runs the Dockerfile's own command, on the files that it copies."""
    (command,) = [line for line in stages()["base"] if "requirements.txt" in line]
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shell = command.removeprefix("RUN ").replace("python ", f"{sys.executable} ", 1)
    subprocess.run(["sh", "-c", shell], cwd=tmp_path, check=True)
    asked = [Requirement(line) for line in (tmp_path / "requirements.txt").read_text().splitlines()]
    assert {r.name for r in asked} == {
        Requirement(line).name for line in pyproject()["project"]["dependencies"]
    }
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_normal(line.split("==")[0]) for line in lines if "==" in line}
    assert {_normal(r.name) for r in asked} - pinned == {"torch"}  # above
    for image in IMAGES:
        installs = [line for line in stages()[image] if "requirements.txt" in line]
        assert len(installs) == 1
        assert "--constraint=constraints.txt" in installs[0]


def test_the_builder_gets_the_packages_and_nothing_else() -> None:
    first, *allowed = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    let_in = {line[1:] for line in allowed if line.startswith("!")}
    project = pyproject()
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    assert let_in == packages | files | {"pyproject.toml", "constraints.txt"}
    assert all((ROOT / name).exists() for name in let_in)


def test_the_manifests_use_these_images() -> None:
    text = "".join(p.read_text() for p in (ROOT / "cluster" / "kubernetes").glob("*.yaml"))
    version = pyproject()["project"]["version"]
    used = set(re.findall(r"image: \S+/shopreel:(\S+)", text))
    assert used == {f"{version}-{image}" for image in IMAGES}


def test_the_images_carry_no_configuration() -> None:
    """It would be of another day than the one that was rolled out."""
    for image in IMAGES:
        assert not [line for line in stages()[image] if line.startswith(("COPY", "ADD"))]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
