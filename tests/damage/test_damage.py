"""Damaged and crafted files: each is refused in one sentence or read as what it says, and nothing else."""

import multiprocessing

import pytest

from qna._core.errors import InvalidInput
from qna.data import DATA
from qna.train import TrainConfig, fit
from qna.train.config import ImageOptions, NetworkOptions, OptimOptions, RunOptions
from qna.train.reload import load_classifier
from tests.damage.attack import attack
from tests.damage.crafted import crafted
from tests.damage.formats import FEW, FORMATS, make_whole

# far above what reading these files takes, far below what they can be made to ask for
GROWTH = 400 * 2**20


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a whole file of every format."""
    folder = tmp_path_factory.mktemp("damage")
    options = TrainConfig(
        images=ImageOptions(data="few", image_size=32),
        network=NetworkOptions(model="test_vit"),
        optim=OptimOptions(epochs=1, batch_size=8, warmup_epochs=0),
        run=RunOptions(out=folder / "trained", device="cpu", tensorboard=False),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATA, "few", FEW["few"])
        run = fit(options)
    make_whole(folder / "whole", run.folder)
    return folder / "whole"


@pytest.fixture(scope="module")
def attacked(whole):
    """Attacks a format in a fresh process, which begins with everything imported and can be given limits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.damage.attack"])
        with context.Pool(1, maxtasksperchild=1) as pool:
            yield lambda name, place, count, crafted=(): pool.apply(
                attack, (name, whole, place, count, crafted)
            )


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name, times, attacked, tmp_path):
    form = FORMATS[name]
    count = form.count * times
    outcome = attacked(name, tmp_path / "copy", count)
    assert not outcome.faults
    assert outcome.grown < GROWTH
    assert form.refused * count <= outcome.refused


@pytest.mark.parametrize("name", FORMATS)
def test_crafted_files(name, whole, attacked, tmp_path):
    files = crafted(name, (whole / FORMATS[name].file).read_bytes())
    outcome = attacked(name, tmp_path / "copy", 0, tuple(files.values()))
    assert not outcome.faults
    assert outcome.grown < GROWTH
    assert outcome.refused == len(files)


def test_a_run_named_as_a_folder_of_timm_says_what_to_do(whole):
    with pytest.raises(
        InvalidInput, match=r"names no architecture; .* is a run of `qna train`, which `qna share`"
    ):
        load_classifier(f"local-dir:{whole / 'run'}")
