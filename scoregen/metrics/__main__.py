r"""`python -m scoregen.metrics samples=PATH|checkpoint=PATH data=mnist features=...`"""

from scoregen.commands.evaluate import main

if __name__ == "__main__":
    main()
