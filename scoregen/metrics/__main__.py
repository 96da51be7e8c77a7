r"""`python -m scoregen.metrics samples=PATH|checkpoint=PATH data=mnist features=...`

and `python -m scoregen.metrics smoothness checkpoint=PATH data=mnist`: how evenly images change between two noises.
"""

import sys


def main() -> None:
    r"""The evaluation, or what the first word names."""
    if sys.argv[1:2] == ["smoothness"]:
        del sys.argv[1]
        from scoregen.commands.smoothness import main as command
    else:
        from scoregen.commands.evaluate import main as command
    command()


if __name__ == "__main__":
    main()
