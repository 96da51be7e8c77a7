r"""Jobs of measuring: `python -m scoregen.metrics checkpoint=PATH data=mnist features=...` is the job evaluate.

With `sweep=[heun,ddim]` it is sweep, with the first word `smoothness` the job of this name.
"""

import sys

from scoregen.command_line import lists_of_paths, run_job


def main() -> None:
    r"""The job that the arguments mean."""
    argv = sys.argv[1:]
    if argv[:1] == ["smoothness"]:
        run_job("smoothness", argv[1:])
    elif any(argument.startswith("sweep=") for argument in argv):
        run_job("sweep", lists_of_paths(argv, {"sweep": "samplers"}))
    else:
        run_job("evaluate", argv)


if __name__ == "__main__":
    main()
