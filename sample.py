r"""Samples from a checkpoint: `python sample.py checkpoint=outputs/demo n=64 sampler=heun`."""

from scoregen.commands.sample import main

if __name__ == "__main__":
    main()
