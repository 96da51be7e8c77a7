r"""Certification: `python -m scoregen.smoothing data=mnist ...` is the job certify, with `compare=a,b` compare.

With `verify=FOLDER` the certificates of a folder are computed again from their counts; nothing is written.
"""

import sys

from scoregen.command_line import lists_of_paths, run_job


def main() -> None:
    r"""The job that the arguments mean."""
    argv = sys.argv[1:]
    if argv and argv[0].startswith("verify="):
        sys.exit(_verify(argv))
    elif any(argument.startswith("compare=") for argument in argv):
        run_job("compare", lists_of_paths(argv, {"compare": "runs"}))
    else:
        run_job("certify", argv)


def _verify(argv: list[str]) -> int:
    from scoregen.errors import UserError
    from scoregen.smoothing.verify import verify

    try:
        if len(argv) > 1:
            raise UserError(f"verify: takes a folder alone, got {' '.join(argv[1:])} too. Leave it out.")
        return verify(argv[0].removeprefix("verify="))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    main()
