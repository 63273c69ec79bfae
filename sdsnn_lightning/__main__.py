"""`python -m sdsnn_lightning` is the same program as `sdsnn` and `lightning`."""

from sdsnn_lightning.cli import main

if __name__ == "__main__":
    main()
