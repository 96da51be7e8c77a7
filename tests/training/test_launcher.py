r"""What the launcher sets is used where the configuration is silent, and refused where they differ."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from tiny import ROOT, TOY, train

from scoregen.errors import UserError
from scoregen.failures import message
from scoregen.parallel import say_once
from scoregen.training import Trainer, launcher
from scoregen.training.copies import make_accelerator
from scoregen.training.launcher import Compilation, Launched, Sharding, agreed, launched_compile, launched_shard
from scoregen.training.precision import bf16_is_native, mixed_precision
from scoregen.training.processes import patience, start_processes

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def said(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_value_is_that_of_the_one_who_gives_it():
    launched = Launched("fp16", "--mixed_precision")
    assert agreed("precision", None, None) is None
    assert agreed("precision", "bf16", None) == "bf16"
    assert agreed("precision", None, launched) == "fp16"
    assert agreed("precision", "fp16", launched) == "fp16"
    with pytest.raises(
        UserError,
        match=r"trainer.precision=bf16, but the launcher says fp16 \(--mixed_precision\). They must agree. "
        r"Give trainer.precision=null to take the launcher's value, or launch with bf16.",
    ):
        agreed("precision", "bf16", launched)


@pytest.mark.parametrize("value", ["no", "bf16"])
def test_the_precision_of_the_launcher_is_used(monkeypatch, value):
    said(monkeypatch, ACCELERATE_MIXED_PRECISION=value)
    assert mixed_precision(None) == value
    other = {"no": "bf16", "bf16": "no"}[value]
    with pytest.raises(UserError, match=f"trainer.precision={other}, but the launcher says {value}"):
        Trainer(steps=1, precision=other)


def test_without_a_launcher_the_hardware_chooses():
    assert mixed_precision(None) == mixed_precision("auto") == ("bf16" if bf16_is_native() else "no")


def test_a_default_that_nobody_asked_for_is_not_binding(monkeypatch, tmp_path):
    said(monkeypatch, ACCELERATE_MIXED_PRECISION="no", ACCELERATE_DYNAMO_BACKEND="NO")
    nothing = ["python", "accelerate", "launch", f"--config_file={tmp_path / 'none.yaml'}", sys.argv[0]]
    monkeypatch.setattr(launcher, "_launcher", lambda: nothing)
    assert mixed_precision(None) == mixed_precision("auto")
    assert launched_compile() is None
    monkeypatch.setattr(launcher, "_launcher", lambda: [*nothing[:3], "--mixed-precision", "no", sys.argv[0]])
    assert mixed_precision(None) == "no"
    (tmp_path / "none.yaml").write_text("mixed_precision: 'no'\n")
    monkeypatch.setattr(launcher, "_launcher", lambda: nothing)
    assert mixed_precision(None) == "no"


def test_micro_batches_of_the_launcher_contradict_others(monkeypatch):
    said(monkeypatch, ACCELERATE_GRADIENT_ACCUMULATION_STEPS="4")
    assert Trainer(steps=1, batch_size=8).micro_batches == 4
    with pytest.raises(UserError, match=r"trainer.accumulate=2, but the launcher says 4 \(ACCELERATE_GRADIENT_ACC"):
        Trainer(steps=1, batch_size=8, accumulate=2)
    said(monkeypatch, ACCELERATE_GRADIENT_ACCUMULATION_STEPS="many")
    with pytest.raises(UserError, match="must be a whole number >= 1, got 'many'"):
        Trainer(steps=1)


def test_the_compilation_of_the_launcher_is_read(monkeypatch):
    said(monkeypatch, ACCELERATE_DYNAMO_BACKEND="INDUCTOR", ACCELERATE_DYNAMO_MODE="max-autotune")
    said(monkeypatch, ACCELERATE_DYNAMO_USE_DYNAMIC="False", ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION="True")
    assert launched_compile() == Launched(
        Compilation("inductor", "max-autotune", False, None, True), "--dynamo_backend"
    )


def test_version_2_of_fsdp_is_read(monkeypatch):
    said(monkeypatch, **FSDP, FSDP_AUTO_WRAP_POLICY="SIZE_BASED_WRAP", FSDP_MIN_NUM_PARAMS="100")
    assert launched_shard() == Launched(Sharding(least=100), "--use_fsdp")
    assert Trainer(steps=1).sharding == Sharding(least=100)
    with pytest.raises(UserError, match=r"trainer.shard=False, but the launcher says True \(--use_fsdp\)"):
        Trainer(steps=1, shard=False)
    said(monkeypatch, FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP", FSDP_TRANSFORMER_CLS_TO_WRAP="Block, Layer")
    said(monkeypatch, FSDP_RESHARD_AFTER_FORWARD="false")
    assert Trainer(steps=1).sharding == Sharding(("Block", "Layer"), reshard=False)
    with pytest.raises(UserError, match=r"trainer.ddp: a sharded model has no copies"):
        Trainer(steps=1, ddp={"static_graph": True})


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, r"accelerate: DeepSpeed is not supported"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, r"accelerate: Megatron-LM is not supported"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, r"ParallelismConfig .* is not supported"),
        ({"ACCELERATE_USE_SAGEMAKER": "true"}, r"SageMaker is not supported"),
        ({"PJRT_DEVICE": "TPU"}, r"TPUs are not supported"),
        ({"ACCELERATE_USE_FSDP": "true"}, r"FSDP version 1 is not supported .* Launch with --fsdp_version 2"),
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, r"--fsdp_offload_params is not supported"),
        (FSDP | {"FSDP_IGNORED_MODULES": "x"}, r"--fsdp_ignored_modules is not supported"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, r"ACCELERATE_MIXED_PRECISION=fp8 is not supported"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, r"OMPI_COMM_WORLD_SIZE=2: processes of MPI do not find one another"),
    ],
    ids=["deepspeed", "megatron", "parallelism", "sagemaker", "tpu", "fsdp1", "offload", "ignored", "fp8", "mpi"],
)
def test_what_is_not_supported_is_refused_by_name(monkeypatch, variables, message):
    said(monkeypatch, **variables)
    for start in (start_processes, lambda: Trainer(steps=1)):
        with pytest.raises(UserError, match=message):
            start()


def test_processes_that_the_launcher_did_not_start_are_missed(monkeypatch):
    words = ["python", "accelerate", "launch", "--cpu", "--num_processes=2", sys.argv[0]]
    monkeypatch.setattr(launcher, "_launcher", lambda: words)
    with pytest.raises(UserError, match=r"--num_processes=2, but it has started one process.* Use torchrun"):
        start_processes()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"static_grap": True}, r"trainer.ddp.static_grap: no such option. Did you mean 'static_graph'\?"),
        ({"static_graph": 1}, r"trainer.ddp.static_graph must be true or false, got 1"),
        ({"bucket_cap_mb": 0}, r"trainer.ddp.bucket_cap_mb must be a whole number >= 1, got 0"),
        ({"comm_hook": "fp8"}, r"trainer.ddp.comm_hook must be no, fp16, bf16"),
    ],
)
def test_options_of_copies_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(steps=1, ddp=options)


def test_one_process_says_what_it_leaves_out(tmp_path, capsys):
    say_once.cache_clear()
    train(tmp_path, *TOY, "trainer.steps=1", "trainer.shard=true")
    train(tmp_path / "b", *TOY, "trainer.steps=1", "trainer.ddp={static_graph:true}")
    said = capsys.readouterr().err
    assert "trainer.shard: there is one process, so that the model is not cut." in said
    assert "trainer.ddp: there is one process, so that the model has no copies." in said


@pytest.mark.parametrize(
    "text",
    [
        "[unbound_buffer.cc:129] Timed out waiting 3000ms for send operation to complete",
        "Application timeout caused pair closure",
        "Connection closed by peer [127.0.0.1]:47011",
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)",
    ],
)
def test_a_process_that_does_not_answer_is_one_message(text):
    r"""As gloo and NCCL say it."""
    found = message(RuntimeError(text))
    assert found == (
        "another process has ended, or did not answer in time. Look for its message; a training waits for "
        "trainer.timeout minutes. Then repeat the command."
    )


def test_a_timeout_is_a_time():
    assert patience({}) == patience({"timeout": 30}) == timedelta(minutes=30)
    with pytest.raises(ValueError, match=r"trainer.timeout must be > 0"):
        patience({"timeout": 0})
    with pytest.raises(ValueError, match=r"trainer.timeout must be a number of minutes, got 'long'"):
        patience({"timeout": "long"})


def test_runs_of_one_process_may_differ_in_precision():
    for precision in ("no", "bf16", "no"):
        accelerator = make_accelerator(precision, None)
        assert (accelerator.native_amp, accelerator.scaler) == (False, None)
        assert accelerator.gradient_accumulation_steps == 1


def test_a_run_keeps_the_precision_that_was_chosen(tmp_path, monkeypatch):
    silent = [word for word in TOY if not word.startswith("trainer.precision")]
    said(monkeypatch, ACCELERATE_MIXED_PRECISION="bf16")
    train(tmp_path, *silent, "trainer.steps=1")
    said(monkeypatch, ACCELERATE_MIXED_PRECISION="no")
    with pytest.raises(UserError, match=r"trainer.precision: the run in .* has 'bf16', now it is 'no'"):
        train(tmp_path, *silent, "trainer.steps=2", "trainer.resume=auto")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    train(tmp_path, *silent, "trainer.steps=2", "trainer.resume=auto", "trainer.precision=bf16")


def launch(cwd, *argv: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
    environment = os.environ | {"HF_HOME": str(cwd), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*program, *argv], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_accelerate_launch_is_obeyed(tmp_path):
    r"""A run says in which precision and how many micro-batches it computes."""
    flags = ["--cpu", "--num_processes", "1", "--mixed_precision", "bf16", "--gradient_accumulation_steps", "4"]
    silent = [word for word in TOY if not word.startswith("trainer.precision")]
    found = launch(tmp_path, *flags, str(ROOT / "train.py"), *silent, "trainer.steps=1", "hydra.run.dir=run")
    assert found.returncode == 0, found.stderr
    assert "precision: bf16" in found.stdout
    assert "1 steps of 8, in 4 micro-batches" in found.stdout
