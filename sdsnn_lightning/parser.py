"""Lightning's parser of configurations, with complaints for people."""

import re
import sys
from enum import Enum
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

# What the parser says beside the mistake itself: types it also tried, and the value in its own notation.
NOISE = (
    r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: ",
    r"- Expected a path but .*? either not accessible or invalid ",
    r"Type \S*Callable\[\[.*?\], .*?\] expects a function or a callable class: ",
    r" - Expected a <class 'NoneType'>",
    r" Given value type: .*",
    r"- (?=- )",
)

# What to do about complaints that do not say it, by a part of each.
CURES = {
    "No module named": "start in the folder that the module is in",
    "class_path 'sdsnn_lightning.DataModule'": "no data is named; give the experiment's YAML before an overlay",
    "class_path 'sdsnn_lightning.Classifier': Option 'alpha'": "give the YAML of an experiment with a Distiller before "
    "this overlay",
}

# Defaults of Lightning's own callbacks that the parser cannot write down otherwise, as it must to resolve a `${...}`.
register_type(torch.device, str, torch.device)
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, word: dumper.represent_data(word.value))

LONGEST = 800
"""Characters of a complaint that are shown."""


class Parser(LightningArgumentParser):
    """Lightning's parser, whose complaints about a configuration fit on one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without abbreviations: a key with its last letter missing is a typo, not a key.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with the message on one line instead of a page of usage."""
        if not self.exit_on_error:
            super().error(message, ex)
        line = " ".join(message.split())
        for noise in NOISE:
            line = re.sub(noise, "", line)
        if len(line) > LONGEST:  # a value may be of any length
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        line += "".join(f"; {cure}" for part, cure in CURES.items() if part in line)
        print(f"error: {line} (all keys: {self.prog.replace(' [options]', '')} --help)", file=sys.stderr)
        raise SystemExit(2)
