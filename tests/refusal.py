"""What a person sees who asked for something that cannot be."""

import pytest

from sdsnn_lightning.cli import main


def refusal(capsys, *words, alone: bool = False) -> str:
    """The line with `error: ` that a command says last on stderr, before it ends with exit code 2; `alone`, at all."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2, lines
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert len(lines) == 1 or not alone
    assert not any("Traceback" in line for line in lines)
    return lines[-1]
