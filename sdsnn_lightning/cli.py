"""The command line: one thin LightningCLI behind `lightning`, `sdsnn` and `python -m sdsnn_lightning`."""

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sdsnn_lightning.errors import ConfigError, UserError, one_line
from sdsnn_lightning.memory import keep_freed_memory, without_collection

DEFAULTS = Path(__file__).with_name("defaults.yaml")
TRAINER_WORDS = ("fit", "validate", "test", "predict")
OWN_COMMANDS = {
    "profile": "sdsnn_lightning.profile",
    "report": "sdsnn_lightning.reports.command",
    "data": "sdsnn_lightning.data_commands",
    "sweep": "sdsnn_lightning.sweeps.command",
    "export": "sdsnn_lightning.exports.command",
    "doctor": "sdsnn_lightning.doctor",
    "examples": "sdsnn_lightning.examples",
}
"""Commands beside the Trainer's: each module has a `main(words)` and is imported only when its word is used."""
EXAMPLES = {
    "fit": "lightning fit --config eye.yaml",
    "validate": "lightning validate --config eye.yaml --ckpt_path best",
    "test": "lightning test --config eye.yaml --ckpt_path best",
    "predict": "lightning predict --config eye.yaml --ckpt_path best",
    "profile": "sdsnn profile --config eye.yaml --ckpt_path best",
}
"""What `--help` shows; `sdsnn examples .` writes the experiment."""
INTERRUPTED, TERMINATED, PIPE_CLOSED = 130, 143, 141  # as shells count: 128 + signal


def run_trainer(args: list[str] | None = None, out: Path | None = None) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        args: Command-line words; None takes them from `sys.argv`.
        out: Where an evaluation writes; the run folder if None.
    """
    with without_collection():
        from jsonargparse import set_parsing_settings

        from sdsnn_lightning.experiment import Experiment
        from sdsnn_lightning.faults import follow_first_process, follow_student, tell_lost_files
        from sdsnn_lightning.quiet import keep_quiet
        from sdsnn_lightning.runs import process_rank

    follow_first_process(process_rank())
    follow_student()
    tell_lost_files()
    keep_quiet()
    keep_freed_memory()
    # `${data.init_args.size}` in an experiment must also be found below `fit:`, where the subcommand puts it.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

    common: dict[str, Any] = {"parser_mode": "omegaconf+"}
    words = {
        word: common | {"default_config_files": [str(DEFAULTS)], "epilog": example(word)} for word in TRAINER_WORDS
    }
    others = f"Other commands: {', '.join(OWN_COMMANDS)}; each has a --help. {example('fit')}"
    about = "Distil spiking neural networks under frozen teachers: one YAML, one result."
    main_parser = common | {"prog": program(), "description": about, "epilog": others}
    Experiment(args=args, out=out, parser_kwargs={**main_parser, **words})


def program() -> str:
    """What a person typed to start this program: `lightning`, `sdsnn` or `python -m sdsnn_lightning`."""
    name = Path(sys.argv[0]).stem
    return name if name in ("lightning", "sdsnn") else "python -m sdsnn_lightning"


def example(word: str) -> str:
    """The last line of the help of a command that takes an experiment.

    Args:
        word: One of `EXAMPLES`.
    """
    return f"example: {EXAMPLES[word]} (`sdsnn examples .` writes eye.yaml)"


def hand_over(args: list[str]) -> bool:
    """Hands foreign words to another distribution's `lightning` script, if one is registered.

    Args:
        args: Command-line words.

    Returns:
        Whether another script took over.
    """
    if (
        Path(sys.argv[0]).name != "lightning"
        or not args
        or args[0].startswith("-")
        or args[0] in (*TRAINER_WORDS, *OWN_COMMANDS)
    ):
        return False
    for script in entry_points(group="console_scripts", name="lightning"):
        if not script.value.startswith("sdsnn_lightning."):
            script.load()()
            return True
    return False


def main(args: list[str] | None = None) -> None:
    """Runs one command. A mistake of the user ends in one line and exit code 2, an interruption in 130 or 143.

    Args:
        args: Command-line words; None takes them from `sys.argv`.
    """
    words = sys.argv[1:] if args is None else args
    if os.getcwd() not in sys.path:  # as `python -m` does: a class_path may name a module in the current folder
        sys.path.append(os.getcwd())
    if hand_over(words):
        return
    try:
        if words and words[0] in OWN_COMMANDS:
            _import(OWN_COMMANDS[words[0]]).main(words[1:])
        elif words[:1] == ["predict"] and len(words) > 1 and not words[1].startswith("-"):
            _import("sdsnn_lightning.predict_file").main(words[1:])  # predict RUN INPUT: no configuration named
        elif words and not words[0].startswith("-") and words[0] not in TRAINER_WORDS:
            raise ConfigError(_unknown(words[0]))
        else:
            run_trainer(args if words else ["--help"])
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        if not _output_closed():
            raise
        raise SystemExit(PIPE_CLOSED) from None
    except SystemExit as end:
        raise SystemExit(_exit_code(end)) from None
    except Exception as error:
        cause = _user_error(error) or _reference_error(error)
        if cause is None or os.environ.get("SDSNN_TRACEBACK"):
            raise
        print(f"error: {one_line(cause)}", file=sys.stderr)
        raise SystemExit(2) from None


def _unknown(word: str) -> str:
    """What to say of a word that is no command."""
    commands = [*TRAINER_WORDS, *OWN_COMMANDS]
    meant = "".join(f"did you mean {name}? " for name in get_close_matches(word, commands, 1))
    return f"there is no command '{word}'; {meant}choose from {', '.join(commands)} (see {program()} --help)"


def _import(command: str) -> Any:
    """The module of a command."""
    with without_collection():
        return import_module(command)


def _output_closed() -> bool:
    """Whether it is the standard output that nobody reads any more, as in `sdsnn data list | head`."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        return True
    return False


def _exit_code(end: SystemExit) -> int | str | None:
    """The Trainer ends with 1 on Ctrl-C and, though it was stopped, with 0 on SIGTERM; everything else stays.

    All ranks stop together on either (`StopTogether`, which gives Ctrl-C its code), and only the first says so: it
    would be killed by its launcher, perhaps before it is done, if another one ended with a code of its own.
    """
    if isinstance(end.__context__, KeyboardInterrupt):
        return INTERRUPTED
    if type(end).__name__ == "SIGTERMException":
        from sdsnn_lightning.runs import process_rank

        return (end.code or TERMINATED) if process_rank() == 0 else 0
    return end.code


def _user_error(error: BaseException | None) -> UserError | None:
    """Finds the user's mistake under the errors that the configuration parser wraps around it."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _reference_error(error: Exception) -> UserError | None:
    """Tells what is wrong with a `${...}` in a configuration: the parser lets the error of omegaconf through."""
    if not type(error).__module__.startswith("omegaconf."):
        return None
    key = str(getattr(error, "full_key", None) or "the configuration").partition(".")
    place = key[2] if key[0] in TRAINER_WORDS else "".join(key)
    what = str(error).splitlines()[0].replace("resolved to 'fit.", "resolved to '")
    return UserError(f"{place}: {what}; correct the ${{...}} there, or the key that it names")
