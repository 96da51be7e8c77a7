r"""Trains a model: `python train.py data=mnist sde=vp trainer.steps=20000`."""

from scoregen.commands.train import main

if __name__ == "__main__":
    main()
