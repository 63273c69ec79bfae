"""`sdsnn data`: lists, fetches, simulates, checks and makes data sets, one module a command."""

import argparse

from sdsnn_lightning.data_commands import sets, to_events, to_spikes, verify


def main(args: list[str]) -> None:
    """Runs one of the data commands.

    Args:
        args: Command-line words after `data`.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn data",
        description="List, fetch, simulate, check and make data sets.",
        epilog="example: sdsnn data list",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sets.add_parsers(commands)
    verify.add_parser(commands)
    to_spikes.add_parser(commands)
    to_events.add_parser(commands)
    options = parser.parse_args(args)
    options.run(options)
