"""`sdsnn data`: makes data sets, one module a command."""

import argparse

from sdsnn_lightning.data_commands import to_events, to_spikes


def main(args: list[str]) -> None:
    """Runs one of the data commands.

    Args:
        args: Command-line words after `data`.
    """
    parser = argparse.ArgumentParser(prog="sdsnn data", description="Make data sets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    to_spikes.add_parser(commands)
    to_events.add_parser(commands)
    options = parser.parse_args(args)
    options.run(options)
