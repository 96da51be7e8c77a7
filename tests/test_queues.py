r"""The script of docs/queues.md: it passes the signal on, requeues itself, and ends when the run is done."""

import os
import re
import signal
import subprocess
import sys
import time

from tiny import ROOT, TOY, numbers


def test_the_script_for_slurm_requeues_itself_until_the_run_is_done(tmp_path):
    page = (ROOT / "docs" / "queues.md").read_text()
    script = re.search(r"```bash\n(.*?)```", page, re.S).group(1)
    options = [*TOY, "trainer.steps=300", "trainer.checkpoint_every=1000", "trainer.resume=auto"]
    train = " ".join([sys.executable, str(ROOT / "train.py"), *options, f"hydra.run.dir={tmp_path}/run"])
    script, found = re.subn(r"^scoregen train .* &$", f"{train} &".replace("\\", "\\\\"), script, flags=re.M)
    assert found == 1
    (tmp_path / "script.sh").write_text('scontrol() { echo "scontrol $*"; }\n' + script)
    environment = os.environ | {"SLURM_JOB_ID": "17"}
    argv = ["bash", str(tmp_path / "script.sh")]
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as job:
        log = tmp_path / "run" / "metrics.jsonl"
        while job.poll() is None and not (log.exists() and log.read_text().count("\n") > 3):
            time.sleep(0.01)
        job.send_signal(signal.SIGUSR1)
        output = job.communicate(timeout=120)[0]
    assert job.returncode == 0 and output.endswith("scontrol requeue 17\n")
    assert 3 < len(numbers(tmp_path / "run")) < 300
    ended = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0 and "requeue" not in ended.stdout
    assert [line["step"] for line in numbers(tmp_path / "run")] == list(range(1, 301))
