import pytest

from sdsnn_lightning.errors import first_line, one_line


@pytest.mark.parametrize(
    ("error", "most", "said"),
    [
        (ValueError("short\nand more"), 160, "short"),
        (ValueError("  words that go on  and on"), 18, "words that go ..."),
        (KeyError(), 160, "KeyError"),
        ("a reason", 160, "a reason"),
    ],
)
def test_the_first_line_is_cut_between_words(error, most, said):
    assert first_line(error, most) == said


def test_a_handed_over_error_says_what_the_original_said():
    told = "Caught DataError in DataLoader worker process 0.\nOriginal Traceback:\n  File\nDataError: a.wav is empty"
    assert one_line(RuntimeError(told)) == "a.wav is empty"
    assert one_line(RuntimeError("two\n lines")) == "two lines"
