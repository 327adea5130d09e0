"""Which images are shown: every rule, and every rule that is none."""

import numpy as np
import pytest

from interpret_robust.analyses.engine.selection import MOST_IMAGES, Selection
from interpret_robust.core.errors import UserError

LABELS = np.array([3, 1, 3, 0, 1, 2, 0, 5, 3, 2])
NO_SCORES = np.full(len(LABELS), np.nan)


def choose(select: str, labels: object = LABELS, score: object = None) -> list[int]:
    numbers = np.asarray(labels)
    return list(
        map(int, Selection(select).indices(numbers, np.zeros(len(numbers)) if score is None else np.asarray(score)))
    )


def test_the_default_is_the_first_image_of_each_class_in_the_order_of_classes() -> None:
    assert Selection() == Selection("first-per-class")
    assert choose("first-per-class") == [3, 1, 5, 0, 7]
    assert choose("first-per-class", np.arange(30)[::-1] // 2) == list(range(28, 8, -2))


def test_random_images_depend_on_the_seed_alone() -> None:
    labels = np.zeros(100)
    choice = choose("random:3", labels)
    assert choice == sorted(set(choice)) and len(choice) == MOST_IMAGES and set(choice) <= set(range(100))
    assert choice == choose("random:3", labels + 1, np.arange(100))
    assert choice != choose("random:4", labels)
    assert choose("random:0", np.zeros(4)) == [0, 1, 2, 3]


def test_random_images_are_drawn_evenly() -> None:
    """200 draws of 10 among 40: 50 times each on average, with a standard deviation of 6."""
    counts = np.bincount([index for seed in range(200) for index in choose(f"random:{seed}", np.zeros(40))])
    assert counts.sum() == 2000 and counts.min() > 25 and counts.max() < 75


def test_given_indices_are_kept_in_their_order() -> None:
    assert choose("indices:7,0,9") == [7, 0, 9]
    assert choose("indices:4") == [4]
    assert choose("indices:" + ",".join("0123456789")) == list(range(10))


def test_extremes_are_the_best_the_middle_and_the_worst() -> None:
    score = np.random.default_rng(0).permutation(21).astype(float)
    ranking = sorted(range(21), key=lambda index: -score[index])
    expected = [*ranking[:3], *ranking[9:12], *ranking[18:]]
    assert score[ranking[10]] == np.median(score)
    assert choose("extremes", np.zeros(21), score) == expected


def test_extremes_are_among_images_that_have_a_score() -> None:
    score = np.array([np.nan, 5, np.inf, 3, -np.inf, 9, 1, 2, 8, 7, 6, 4])
    assert choose("extremes", np.zeros(12), score) == [5, 8, 9, 10, 1, 11, 3, 7, 6]
    assert choose("extremes", np.zeros(12), np.where(score > 4, score, np.nan)) == [5, 8, 9, 10, 1]


def test_equal_scores_are_in_the_order_of_the_images() -> None:
    assert choose("extremes", np.zeros(11)) == [0, 1, 2, 4, 5, 6, 8, 9, 10]


def test_extremes_without_any_score_are_the_users_error() -> None:
    with pytest.raises(UserError, match="no image has a score"):
        choose("extremes", score=NO_SCORES)


@pytest.mark.parametrize(
    "select",
    [
        "",
        "best",
        "first-per-class:3",
        "first-per-class:",
        "random",
        "random:",
        "random:x",
        "random:-1",
        "random:1,2",
        "random:1.5",
        "indices",
        "indices:",
        "indices:1,,2",
        "indices:1,x",
        "indices:-1",
        "indices:0,1,2,3,4,5,6,7,8,9,10",
        "extremes:3",
        "extremes\n",
    ],
)
def test_a_rule_that_is_none_is_refused_before_the_work_and_after(select: str) -> None:
    sentence = "selects nothing: the rules are first-per-class, random:SEED, indices:0,7,42"
    with pytest.raises(UserError, match=sentence):
        Selection(select).resolve({})
    with pytest.raises(UserError, match=sentence):
        choose(select)


def test_an_image_that_is_not_there_is_refused_before_the_work_and_after() -> None:
    sentence = "--select indices:0,10: there are images 0 to 9, not 10"
    with pytest.raises(UserError, match=sentence):
        Selection("indices:0,10").check(10)
    with pytest.raises(UserError, match=sentence):
        choose("indices:0,10")
    Selection("indices:0,10").check(11)
    Selection("random:99").check(3)


def test_a_good_rule_is_kept() -> None:
    for select in ("first-per-class", "random:7", "indices:1,2", "extremes"):
        assert Selection(select).resolve({}) == Selection(select)
