import gc
import subprocess
import sys

from sdsnn_lightning.memory import without_collection


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split(), done.stderr


def test_imports_are_not_collected_and_what_comes_later_is():
    words, errors = python(
        "import gc, weakref\n"
        "from sdsnn_lightning.memory import without_collection\n"
        "class Node: pass\n"
        "def cycle():\n"
        "    node = Node(); node.self = node\n"
        "    return weakref.ref(node)\n"
        "with without_collection():\n"
        "    print(gc.isenabled()); import json.tool\n"
        "kept = gc.get_freeze_count()\n"
        "later = cycle(); gc.collect()\n"
        "print(gc.isenabled(), kept > 1000, later() is None)\n"
        "with without_collection():\n"
        "    print(gc.isenabled())\n"
        "print(gc.get_freeze_count() <= kept)\n"
    )
    assert words == ["False", "True", "True", "True", "True", "True"]
    assert not errors


def test_a_switched_off_collector_stays_off():
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.isenabled()


def test_commands_end_without_a_word_from_other_libraries():
    code = "from sdsnn_lightning.cli import main; import sys; sys.argv = ['sdsnn']; main(['fit', '--help'])"
    assert python(code)[1] == ""
