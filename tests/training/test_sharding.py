r"""A model that is cut over two processes is trained as on one, goes on bit for bit, and ends as one checkpoint."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from pairs import pair
from runs import assert_same_run
from tiny import ROOT, TOY, numbers, train, weights

import scoregen
from scoregen import checkpoint, losses
from scoregen.checkpoint_files import damage, verify
from scoregen.errors import UserError
from scoregen.models import MLP, Denoiser
from scoregen.sde import EDM
from scoregen.training.launcher import Sharding
from scoregen.training.sharding import check_sharding, units

RUN = [*TOY, "model.network.depth=2", "data.validation=0.2", "trainer.steps=6", "trainer.checkpoint_every=2"]
RUN += ["trainer.keep_last=9", "+trainer.optimizer.eps=1e-4"]  # Adam's division would magnify rounding
RUN += ["trainer.schedule.warmup=1", "trainer.ema_halflife=16", "trainer.ema_warmup=0"]  # averages unlike the weights
HELD_OUT = ["early_stopping.every=3", "early_stopping.n=20"]
LOSSES = {"tuning": "consistency", "svr": "smooth_paper"}
TWO = """
import os
import sys
from pathlib import Path
from test_sharding import HELD_OUT, LOSSES, RUN
from tiny import train
from scoregen.parallel import _Patient, finalize, gather, initialize, rank

root, shard = Path(sys.argv[1]), "trainer.shard=true"
train(root / "whole", *RUN, *HELD_OUT, shard)
kill = {"preview": {"_target_": "tiny.Kill", "every": 5}}
try:
    train(root / "part", *RUN, *HELD_OUT, shard, **kill)
except KeyboardInterrupt:
    train(root / "part", *RUN, *HELD_OUT, shard, "trainer.resume=auto")
train(root / "grown", *RUN, *HELD_OUT, shard, "trainer.resume=auto")
for name, loss in LOSSES.items():
    train(root / name, *RUN, f"loss={loss}", shard)
train(root / "copies", *RUN, "trainer.ddp={gradient_as_bucket_view:true}")
os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "false"}
os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "Linear"
train(root / "units", *RUN, *HELD_OUT)
initialize()  # as sampling does after a training in one program: its processes wait longer
assert gather(rank()) == [0, 1]
assert _Patient.group is not None
finalize()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""The runs of one process, and those of two."""
    root = tmp_path_factory.mktemp("sharded")
    train(root / "one", *RUN, *HELD_OUT)
    shutil.copytree(root / "one", root / "grown", symlinks=True)
    for late in ("step_00000004", "step_00000006", "last", "best_heldout"):
        path = root / "grown" / "checkpoints" / late
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    (root / "two.py").write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT / 'tests')!r}, {str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n{TWO}"
    )
    process = pair(root, str(root / "two.py"), str(root))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return root


def assert_close(a: Path, b: Path) -> None:
    for line, other in zip(numbers(a), numbers(b), strict=True):
        assert line == pytest.approx(other, rel=1e-5, abs=1e-6)
    x, y = weights(a, "ema"), weights(b, "ema")
    assert x.keys() == y.keys()
    for name in x:
        torch.testing.assert_close(x[name], y[name], rtol=1e-4, atol=2e-6)


def test_losses_and_averages_are_those_of_one_process(runs):
    assert_close(runs / "one", runs / "whole")


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_that_call_the_model_twice_are_those_of_one_process(runs, loss):
    assert_close(train(runs / f"{loss}-one", *RUN, f"loss={LOSSES[loss]}"), runs / loss)


def test_the_units_of_the_launcher_change_no_number(runs):
    assert_close(runs / "one", runs / "units")


def test_copies_with_options_are_those_of_one_process(runs):
    assert_close(train(runs / "copies-one", *RUN), runs / "copies")


def test_a_sharded_run_goes_on_bit_for_bit(runs):
    assert_same_run(runs / "whole", runs / "part")


def test_one_process_goes_on_from_the_shards_of_two(runs):
    start = runs / "part" / "checkpoints" / "step_00000002"
    assert sorted(path.name for path in start.glob("shard-*")) and not (start / "model.safetensors").exists()
    assert_close(runs / "one", train(runs / "fewer", *RUN, *HELD_OUT, f"trainer.resume={start}"))


def test_two_processes_go_on_from_the_checkpoint_of_one(runs):
    assert_close(runs / "one", runs / "grown")


def test_shards_load_as_a_model(runs):
    r"""Each in turn: a sharded checkpoint, and the whole one that one process wrote at that step."""
    for kind in ("ema", "model"):
        a = scoregen.load(runs / "one" / "checkpoints" / "step_00000002", weights=kind).state_dict()
        b = scoregen.load(runs / "whole" / "checkpoints" / "step_00000002", weights=kind).state_dict()
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=2e-6)


def test_the_last_checkpoint_and_the_best_one_are_whole(runs):
    for name in ("last", "best_heldout"):
        assert not list((runs / "whole" / "checkpoints" / name).glob("shard-*"))
        assert (runs / "whole" / "checkpoints" / name / "model.safetensors").exists()


def test_damage_to_a_shard_is_found_and_the_checkpoint_before_it_used(runs, tmp_path):
    folder = tmp_path / "checkpoints"
    for step in ("step_00000002", "step_00000004"):
        shutil.copytree(runs / "whole" / "checkpoints" / step, folder / step)
    shard = max((folder / "step_00000004").glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-00002.*its content is not what was written"):
        verify(folder / "step_00000004")
    assert checkpoint.last_whole(folder) == folder / "step_00000002"
    shard.unlink()
    assert damage(folder / "step_00000004") is not None
    assert damage(folder / "step_00000002") is None


def denoiser() -> Denoiser:
    return Denoiser(MLP(shape=[2], width=8, depth=3), EDM())


@pytest.mark.parametrize(
    "loss, name",
    [
        (losses.StepwiseVariation(losses.DenoisingScoreMatching(), estimator="vjp"), "StepwiseVariation of Denoising"),
        (losses.NonNegativeScoreMatching(s=1.0), "NonNegativeScoreMatching"),
    ],
    ids=["svr-vjp", "non-negative"],
)
def test_a_loss_that_does_not_support_shards_is_refused_by_name(loss, name):
    with pytest.raises(UserError, match=rf"trainer.shard: the loss {name}.* Give trainer.shard=false"):
        check_sharding(denoiser(), loss, "no")


def test_what_cannot_be_cut_is_refused_by_name():
    model, loss = denoiser(), losses.DenoisingScoreMatching()
    check_sharding(model, loss, "bf16")
    with pytest.raises(UserError, match=r"trainer.shard: needs trainer.precision bf16 or no, got fp16"):
        check_sharding(model, loss, "fp16")
    model.scale = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(UserError, match=r"trainer.shard: 'scale' of the model is a single number"):
        check_sharding(model, loss, "no")
    del model.scale
    model.norm = torch.nn.BatchNorm1d(2)
    with pytest.raises(UserError, match=r"trainer.shard: 'norm' of the model keeps running statistics"):
        check_sharding(model, loss, "no")


class Repeats(torch.nn.Module):
    r"""A network of three blocks."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.SiLU(), torch.nn.Linear(4, 4)) for _ in range(3)]
        self.first, self.blocks = torch.nn.Linear(2, 4), torch.nn.ModuleList(layers)


def test_the_units_are_the_blocks_or_what_the_launcher_says():
    model = Denoiser(Repeats(), EDM())
    blocks = list(model.network.blocks)
    assert units(model, Sharding()) == blocks
    assert units(model, Sharding(classes=("Sequential",))) == blocks[::-1]
    assert units(model, Sharding(least=sys.maxsize)) == []
    assert units(model, Sharding(least=40)) == blocks[::-1]  # of 2 x 20 numbers each
    with pytest.raises(UserError, match=r"--fsdp_transformer_layer_cls_to_wrap=Nothing: the model has no such module"):
        units(model, Sharding(classes=("Nothing",)))
