"""JSON files that are never half-written."""

import json
import os
from pathlib import Path
from typing import Any


def update_json(path: Path, **entries: Any) -> None:
    """Merges entries into a JSON file in one step: the file is always whole.

    Args:
        path: The file; made if it does not exist.
        **entries: Replace the entries of the same name.
    """
    content = json.loads(path.read_text()) if path.is_file() else {}
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps({**content, **entries}, indent=2))
    os.replace(partial, path)
