from dataclasses import replace
from types import SimpleNamespace

from trainable.config import CheckpointConfig, TrainConfig
from trainable.evaluation.validation import Validator
from trainable.learning.judgement import Validation, best_of, gives_up, overfits

MEL = "eval/mel"


def run(scores, training=None, ranks_by=MEL):
    training = training or [0.0] * len(scores)
    return [
        Validation(10 * (i + 1), s, s, t, ranks_by)
        for i, (s, t) in enumerate(zip(scores, training, strict=True))
    ]


def test_the_best_is_the_first_of_equals():
    assert best_of(run([3, 1, 2, 1]), MEL).step == 20
    assert best_of([], MEL) is None
    assert best_of([Validation(1, None, 1.0, 1.0)], MEL) is None


def test_gives_up_after_so_many_without_a_better_one():
    assert not gives_up(run([3, 2, 2.5]), 2, MEL)
    assert gives_up(run([3, 2, 2.5, 2]), 2, MEL)
    assert not gives_up(run([3, 2, 2.5, 1.9]), 2, MEL)
    assert not gives_up(run([1, 2, 3, 4]), 0, MEL)
    assert not gives_up([], 1, MEL)


def test_scores_of_another_metric_are_not_compared():
    """The user has changed train.checkpoint.metric or larger_is_better between two starts."""
    before = run([0.1, 0.2, 0.3])
    now = [replace(v, step=v.step + 30, ranks_by="eval/mcd") for v in run([7, 6, 8])]
    assert gives_up(before, 2, MEL)
    assert not gives_up(before, 2, "eval/mcd")
    assert best_of(before, "eval/mcd") is None
    assert best_of([*before, *now], "eval/mcd").score == 6
    assert not gives_up([*before, *now], 2, "eval/mcd")
    assert gives_up([*before, *now], 2, MEL)  # set back
    assert not gives_up([*before, *now[:2]], 3, MEL)


def test_scores_of_older_code_count_as_what_is_ranked_by_now():
    assert best_of(run([3, 1], ranks_by=None), "eval/mcd").score == 1


def test_a_validation_remembers_what_its_score_is_of():
    state = SimpleNamespace(validations=tuple(run([0.1, 0.2])))
    for larger, remembered in ((False, "eval/mcd"), (True, "-eval/mcd")):
        train = TrainConfig(checkpoint=CheckpointConfig(metric="eval/mcd", larger_is_better=larger))
        validator = SimpleNamespace(state=state, train=train)
        Validator.remember(validator, 30, {"eval/mcd": 7.0, "eval/mel": 0.5})
        assert state.validations[-1] == Validation(
            30, -7.0 if larger else 7.0, 0.5, None, remembered
        )


def test_overfitting_is_training_falling_and_validation_rising():
    assert overfits(run([9, 1, 2, 3, 4], [9, 8, 7, 6, 5]))
    assert overfits(run([1, 3, 2, 4], [8, 6, 7, 5]))  # trends, not every step
    assert not overfits(run([4, 3, 2, 1], [8, 7, 6, 5]))
    assert not overfits(run([1, 2, 3, 4], [5, 6, 7, 8]))
    assert not overfits(run([1, 2, 3], [8, 7, 6]))
