r"""`python -m scoregen.smoothing checkpoint=PATH data=mnist noise.sigma=0.5 max_inputs=500`"""

from scoregen.commands.certify import main

if __name__ == "__main__":
    main()
