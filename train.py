r"""Trains a model: `python train.py data=mnist sde=vp trainer.steps=20000`."""

from scoregen.command_line import run_job

if __name__ == "__main__":
    run_job("train")
