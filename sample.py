r"""Samples from a checkpoint: `python sample.py checkpoint=outputs/demo n=64 sampler=heun`."""

from scoregen.command_line import run_job

if __name__ == "__main__":
    run_job("sample")
