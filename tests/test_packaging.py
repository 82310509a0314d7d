"""What is published: its version, what is in it, what an index shows; and what CI does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

import fastnn
from fastnn.bench.suites import SUITES

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

TOP = {
    ".ci", ".github", ".pre-commit-config.yaml", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
    "LICENSE", "README.md", "asv.conf.json", "benchmarks", "docs", "examples", "fastnn",
    "pyproject.toml", "tests",
}  # fmt: skip
"""What lies at the top of the repository, beside .gitignore."""

LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w/.-])(?:\.ci|benchmarks|docs|examples|tests)/[\w./-]*")
REPOSITORY = "https://example.org/who/fastnn"
BUILD = """
import os, sys
from hatchling import build
os.chdir(sys.argv[1])
print(getattr(build, "build_" + sys.argv[2])(sys.argv[3]))
"""


def yaml(path: Path):
    return pytest.importorskip("yaml").safe_load(path.read_text("utf-8"))


def tracked() -> list[str]:
    """Return the files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("no clone of the repository")
    return listed.stdout.splitlines()


def required(name: str) -> set[str]:
    """Return the lower bounds of a package, in the dependencies and the extras that users have."""
    if name == "python":
        return {PROJECT["requires-python"].removeprefix(">=")}
    # Extra peers is for comparisons.
    extras = (needs for key, needs in PROJECT["optional-dependencies"].items() if key != "peers")
    texts = " ".join([*PROJECT["dependencies"], *(text for needs in extras for text in needs)])
    return set(re.findall(rf"(?:^| ){name}>=([\d.]+)", texts))


class TestVersion:
    def test_is_the_same_everywhere(self):
        changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
        version, date = re.findall(r"^## \[(.+)\] - (.+)$", changelog, re.M)[0]
        citation = yaml(ROOT / "CITATION.cff")
        assert PROJECT["version"] == fastnn.__version__ == version == citation["version"]
        assert str(citation.get("date-released", "unreleased")) == date
        assert date == "unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", date)

    def test_citation_has_what_its_format_requires(self):
        citation = yaml(ROOT / "CITATION.cff")
        assert {"cff-version", "message", "title", "authors"} <= set(citation)
        assert citation["cff-version"] == "1.2.0"
        assert citation["type"] == "software"
        assert [author["name"] for author in citation["authors"]] == [
            author["name"] for author in PROJECT["authors"]
        ]
        assert citation["keywords"] == PROJECT["keywords"]


class TestSupportedVersions:
    def test_lower_bounds_are_those_of_the_policy(self):
        page = (ROOT / "docs" / "releasing.md").read_text("utf-8")
        rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| \d{4}-\d\d-\d\d \|$", page, re.M)
        assert dict(rows).keys() >= {"python", "numpy", "pandas", "matplotlib", "scikit-learn"}
        for name, version in rows:
            assert required(name) == {version}, name

    def test_pythons_are_classified_and_tested(self):
        prefix = "Programming Language :: Python :: 3."
        classified = [
            text.removeprefix(prefix[:-2])
            for text in PROJECT["classifiers"]
            if text.startswith(prefix)
        ]
        assert required("python") == {classified[0]}
        workflow = yaml(ROOT / ".github" / "workflows" / "tests.yml")
        assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == classified
        assert PYPROJECT["tool"]["mypy"]["python_version"] == classified[0]
        assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{classified[0].replace('.', '')}"

    def test_hooks_before_a_commit_have_the_versions_of_the_project(self):
        hooks = yaml(ROOT / ".pre-commit-config.yaml")["repos"]
        versions = {Path(hook["repo"]).name: hook["rev"].removeprefix("v") for hook in hooks}
        assert PROJECT["optional-dependencies"]["lint"] == [
            f"check-jsonschema=={versions['check-jsonschema']}",
            f"mypy=={versions['mirrors-mypy']}",
            f"ruff=={versions['ruff-pre-commit']}",
        ]


class TestWorkflows:
    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_name_what_is_there(self, path):
        workflow = yaml(path)
        # "on" is a truth value of YAML 1.1.
        assert {"name", True, "permissions", "jobs"} <= set(workflow)
        assert workflow["permissions"] == {"contents": "read"}
        assert workflow["name"] == path.stem
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 360, name
            needs = job.get("needs", [])
            needed = {needs} if isinstance(needs, str) else set(needs)
            assert needed <= set(workflow["jobs"])
            matrix = job.get("strategy", {}).get("matrix", {})
            commands = [f"tests/{command}" for command in matrix.get("command", [])]
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step)
                commands.append(step.get("run", ""))
            for file in FILE.findall(" ".join(commands)):
                assert (ROOT / file).exists(), file
            for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(commands)):
                assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])

    def test_there_is_one_for_each_task(self):
        assert [path.stem for path in WORKFLOWS] == ["benchmarks", "docs", "release", "tests"]

    def test_benchmarks_are_asked_for_by_the_names_of_suites(self):
        workflow = yaml(ROOT / ".github" / "workflows" / "benchmarks.yml")
        assert list(workflow[True]) == ["workflow_dispatch"]
        assert workflow[True]["workflow_dispatch"]["inputs"]["suite"]["options"] == list(SUITES)

    def test_only_tags_are_published_and_by_no_password(self):
        workflow = yaml(ROOT / ".github" / "workflows" / "release.yml")
        publish = workflow["jobs"].pop("publish")
        assert publish["if"] == "github.ref_type == 'tag'"
        assert publish["permissions"] == {"id-token": "write"}
        assert publish["needs"] == ["build", "install"] == list(workflow["jobs"])
        assert "secrets" not in (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
        assert all("permissions" not in job for job in workflow["jobs"].values())


@pytest.mark.skipif(not shutil.which("bash"), reason="it is needed")
class TestBesideAnother:
    """`begin` and `join` of `.ci/run`, with commands that take no time."""

    @pytest.fixture
    def run(self, tmp_path):
        """Return a function that runs commands by the functions of `.ci/run`."""
        functions, found, _ = (ROOT / ".ci" / "run").read_text("utf-8").partition("\nreadme() {")
        assert found
        folder, temporary = tmp_path / "clone" / ".ci", tmp_path / "temporary"
        folder.mkdir(parents=True)
        temporary.mkdir()

        def run(commands: str) -> tuple[int, list[str]]:
            (folder / "run").write_text(functions + commands)
            done = subprocess.run(
                ["bash", folder / "run"], text=True, capture_output=True, check=False, timeout=60,
                env=os.environ | {"TMPDIR": str(temporary)},
            )  # fmt: skip
            assert not list(temporary.iterdir())
            return done.returncode, done.stdout.splitlines()

        return run

    def test_what_succeeds_is_said_at_its_end_and_all_goes_on(self, run):
        status, said = run("""
            first() { echo one; false || echo two >&2; }
            second() { echo four; }
            begin first; echo zero; join; echo three
            begin second; join; echo five
        """)
        assert status == 0
        assert said == ["zero", "one", "two", "three", "four", "five"]

    def test_what_fails_ends_there_and_so_does_all(self, run):
        status, said = run("""
            fails() { echo one; (exit 7); echo never; }
            begin fails; echo zero; join; echo never
        """)
        assert status == 7
        assert said == ["zero", "one"]

    def test_where_the_foreground_fails_what_ran_beside_it_is_ended_and_shown(self, run):
        status, said = run("""
            lasts() { echo one; touch "$work/begun"; sleep 600; echo never; }
            begin lasts
            until [[ -e "$work/begun" ]]; do sleep 0.01; done
            echo zero; (exit 7); join; echo never
        """)
        assert status == 7
        assert said == ["zero", "== what ran beside it, as far as it came", "one"]

    def test_where_the_foreground_fails_after_the_other_both_are_shown(self, run):
        status, said = run("""
            fails() { echo one; (exit 5); echo never; }
            begin fails
            while kill -0 "$beside" 2>/dev/null; do sleep 0.01; done
            echo zero; (exit 7); join; echo never
        """)
        assert status == 7
        assert said == ["zero", "== what ran beside it, as far as it came", "one"]


class TestRepository:
    def test_top_level(self):
        names = {name.split("/")[0] for name in tracked()}
        assert names == TOP | {".gitignore"}

    @pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
    def test_links_lead_to_files(self, page):
        links = LINK.findall((ROOT / page).read_text("utf-8"))
        inside = [link.partition("#") for link in links if not link.startswith("https:")]
        assert inside
        for path, _, heading in inside:
            assert (ROOT / path).is_file(), path
            if heading:
                titles = re.findall(r"^#+ (.+)$", (ROOT / path).read_text("utf-8"), re.M)
                assert heading in [title.lower().replace(" ", "-") for title in titles]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    pytest.importorskip("hatchling")

    def build(source: Path, kind: str, repository: str = "") -> Path:
        folder = tmp_path_factory.mktemp(kind)
        run = subprocess.run(
            [sys.executable, "-c", BUILD, str(source), kind, str(folder)],
            env=os.environ | {"FASTNN_REPOSITORY": repository},
            text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        return folder / run.stdout.split()[-1]

    return build


@pytest.fixture(scope="module")
def wheel(build):
    return build(ROOT, "wheel", REPOSITORY + "/")


@pytest.fixture(scope="module")
def sdist(build, tmp_path_factory):
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(build(ROOT, "sdist", REPOSITORY)) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    assert unpacked.name == f"fastnn-{fastnn.__version__}"
    return unpacked


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"fastnn-{fastnn.__version__}.dist-info/METADATA").decode()


class TestDistributions:
    """Wheel and sdist, as the backend of the build makes them; nothing is downloaded."""

    def test_an_index_has_the_pictures_and_addresses(self, wheel):
        text = metadata(wheel)
        tag = f"v{fastnn.__version__}"
        readme = (ROOT / "README.md").read_text("utf-8")
        pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", readme)
        assert len(pictures) >= 3
        for picture in pictures:
            assert f"]({REPOSITORY}/raw/{tag}/{picture})" in text
        assert f"[LICENSE]({REPOSITORY}/blob/{tag}/LICENSE)" in text
        links = LINK.findall(text)
        assert len(links) == len(LINK.findall(readme))
        assert all(link.startswith("https://") for link in links)
        assert f"Project-URL: Repository, {REPOSITORY}\n" in text
        assert f"Project-URL: Changelog, {REPOSITORY}/blob/{tag}/CHANGELOG.md\n" in text

    def test_an_index_takes_the_metadata(self, wheel):
        pytest.importorskip("packaging", "24.2")  # which knows expressions of licences
        from packaging.metadata import Metadata

        read = Metadata.from_email(metadata(wheel), validate=True)
        assert read.description_content_type == "text/markdown"
        assert read.license_expression == PROJECT["license"]
        assert read.license_files == PROJECT["license-files"]
        assert sorted(read.keywords) == sorted(PROJECT["keywords"])

    def test_without_an_address_the_readme_is_as_it_lies_here(self, build):
        text = metadata(build(ROOT, "wheel"))
        assert text.endswith("\n\n" + (ROOT / "README.md").read_text("utf-8"))
        assert "Project-URL" not in text

    def test_a_sdist_is_the_repository(self, sdist):
        assert {path.name for path in sdist.iterdir()} - {".gitignore", "PKG-INFO"} == TOP
        for name in tracked():
            assert (sdist / name).read_bytes() == (ROOT / name).read_bytes(), name

    def test_the_wheel_of_a_sdist_is_the_same(self, build, sdist, wheel):
        other = build(sdist, "wheel")
        assert metadata(other) == metadata(wheel)
        with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(other) as two:
            assert {(file.filename, file.CRC) for file in one.infolist()} == {
                (file.filename, file.CRC) for file in two.infolist()
            }

    def test_a_wheel_works_where_the_repository_is_not(self, wheel, tmp_path):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        installed = {path.name for path in tmp_path.iterdir()}
        assert installed == {"fastnn", f"fastnn-{fastnn.__version__}.dist-info"}
        code = (
            "import fastnn, importlib.metadata, importlib.resources\n"
            "X_train, y_train, *_ = fastnn.load_dataset(flatten=True)\n"
            "network = fastnn.Network([fastnn.Dense(784, 10)], backend='numpy')\n"
            "network.fit(X_train[:100], y_train[:100])\n"
            "assert importlib.resources.files('fastnn').joinpath('py.typed').is_file()\n"
            "print(fastnn.__file__, importlib.metadata.version('fastnn'))\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True,
            env=os.environ | {"PYTHONPATH": str(tmp_path)}, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == [str(tmp_path / "fastnn" / "__init__.py"), fastnn.__version__]
