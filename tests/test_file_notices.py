"""Files that are there already are said by name where they are few, and in one line where they are many."""

import pytest

from interpret_robust.core.file_notices import gather_unchanged, say_unchanged


@pytest.mark.parametrize(
    ("count", "sentences"),
    [
        (0, []),
        (3, ["0.png is there already", "1.png is there already", "2.png is there already"]),
        (4, ["4 of 9 pictures are there already, such as 0.png"]),
    ],
)
def test_many_files_are_one_line(count: int, sentences: list[str]) -> None:
    messages: list[str] = []
    say_unchanged([f"{place}.png" for place in range(count)], 9, messages.append)
    assert messages == sentences


def test_what_is_new_is_said_at_once_and_the_rest_at_the_end() -> None:
    messages: list[str] = []
    with gather_unchanged(messages.append) as say:
        for place in range(5):
            say(f"{place}.png is there already")
        say("drew new.png")
        assert messages == ["drew new.png"]
    assert messages == ["drew new.png", "5 of 6 pictures are there already, such as 0.png"]


def test_what_was_made_meanwhile_is_not_there_already_and_nothing_counts_twice() -> None:
    messages: list[str] = []
    with gather_unchanged(messages.append) as say:
        for place in range(5):
            say(f"drew {place}.png")
        for name in ("a", "b", "c", "d"):
            say(f"{name}.png is there already")
        for name in ("0", "1", "2", "3", "4", "a", "b", "c", "d"):
            say(f"{name}.png is there already")
        say("wrote report.html")
    assert messages == [
        *(f"drew {place}.png" for place in range(5)),
        "wrote report.html",
        "4 of 10 pictures are there already, such as a.png",
    ]


def fail_after_one(messages: list[str]) -> None:
    with gather_unchanged(messages.append) as say:
        say("a.png is there already")
        raise OSError("full")


def test_an_error_says_nothing_of_what_was_there() -> None:
    messages: list[str] = []
    with pytest.raises(OSError, match="full"):
        fail_after_one(messages)
    assert messages == []
