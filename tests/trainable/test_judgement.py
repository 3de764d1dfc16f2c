from trainable.judgement import Validation, best_of, gives_up, overfits


def run(scores, training=None):
    training = training or [0.0] * len(scores)
    return [Validation(10 * (i + 1), s, s, t) for i, (s, t) in enumerate(zip(scores, training, strict=True))]


def test_the_best_is_the_first_of_equals():
    assert best_of(run([3, 1, 2, 1])).step == 20
    assert best_of([]) is None
    assert best_of([Validation(1, None, 1.0, 1.0)]) is None


def test_gives_up_after_so_many_without_a_better_one():
    assert not gives_up(run([3, 2, 2.5]), 2)
    assert gives_up(run([3, 2, 2.5, 2]), 2)
    assert not gives_up(run([3, 2, 2.5, 1.9]), 2)
    assert not gives_up(run([1, 2, 3, 4]), 0)
    assert not gives_up([], 1)


def test_overfitting_is_training_falling_and_validation_rising():
    assert overfits(run([9, 1, 2, 3, 4], [9, 8, 7, 6, 5]))
    assert overfits(run([1, 3, 2, 4], [8, 6, 7, 5]))  # trends, not every step
    assert not overfits(run([4, 3, 2, 1], [8, 7, 6, 5]))
    assert not overfits(run([1, 2, 3, 4], [5, 6, 7, 8]))
    assert not overfits(run([1, 2, 3], [8, 7, 6]))
