r"""Certification: `python -m scoregen.smoothing data=mnist ...` is the job certify, with `compare=a,b` compare."""

import sys

from scoregen.command_line import lists_of_paths, run_job


def main() -> None:
    r"""The job that the arguments mean."""
    argv = sys.argv[1:]
    if any(argument.startswith("compare=") for argument in argv):
        run_job("compare", lists_of_paths(argv, {"compare": "runs"}))
    else:
        run_job("certify", argv)


if __name__ == "__main__":
    main()
