r"""`scoregen JOB key=value ...`, also as `python -m scoregen JOB key=value ...`."""

from scoregen.command_line import main

if __name__ == "__main__":
    main()
