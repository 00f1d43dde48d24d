import threading

import numpy as np
import pytest
import torch
from tiny import networks_for, tiny_config

from historyad.errors import RunError
from historyad.kinds.choose import choose_kind
from historyad.method.networks import initialise
from historyad.score.batching import in_batches
from historyad.score.score import DetectorScore

VECTORS = np.arange(14, dtype=np.float32).reshape(7, 2)


def columns():
    return choose_kind(VECTORS, tiny_config())


def test_batches_are_filled_up_and_their_filling_is_not_scored():
    kind, sizes = columns(), []

    def score(batch):
        sizes.append(len(batch))
        return batch.sum(1)

    scores = in_batches(score, VECTORS, kind, size=4, grain=4)
    np.testing.assert_allclose(scores, kind.prepare(VECTORS).sum(1))
    assert sizes == [4, 4]
    assert in_batches(score, VECTORS[:0], kind).shape == (0,)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_batches_side_by_side_give_the_scores_of_batches_in_turn(digits, four_threads):
    images, score, threads = digits[0][:300], digit_score(digits[0]), set()

    def noting(batch):
        threads.add(threading.get_ident())
        return score(batch)

    with torch.inference_mode():
        side_by_side = in_batches(noting, images, score.kind, size=16)
        torch.set_num_threads(1)
        in_turn = in_batches(noting, images, score.kind, size=16)
    assert len(threads) > 2
    np.testing.assert_array_equal(side_by_side, in_turn)


def test_threads_inherit_the_modes_and_keep_the_number_of_threads(four_threads):
    x, kind, seen = np.ones((6, 2), np.float32), columns(), set()

    def score(batch):
        seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        assert torch.get_num_threads() == 2  # two batches, four threads
        return batch.sum(1)

    in_batches(score, x, kind, size=3, grain=3)
    with torch.no_grad():
        in_batches(score, x, kind, size=3, grain=3)
    with torch.inference_mode():
        in_batches(score, x, kind, size=3, grain=3)
    assert seen == {(True, False), (False, False), (False, True)}
    assert torch.get_num_threads() == 4


def test_samples_are_shared_out_among_cores_until_batches_are_small(four_threads):
    kind, sizes = columns(), []

    def score(batch):
        sizes.append(len(batch))
        return batch.sum(1)

    for n, expected in ((16, [16]), (40, [16, 32]), (256, [64] * 4), (2048, [256] * 8)):
        sizes.clear()
        in_batches(score, np.ones((n, 2), np.float32), kind)
        assert sorted(sizes) == expected


def test_an_error_in_a_batch_is_that_of_the_whole(four_threads):
    def score(batch):
        raise RunError("this batch")

    with pytest.raises(RunError, match="this batch"):
        in_batches(score, np.ones((9, 2), np.float32), columns(), size=3, grain=3)
    assert torch.get_num_threads() == 4


# --- the score of D_TV alone


def digit_score(images):
    kind, config = choose_kind(images, tiny_config()), tiny_config(hidden=32)
    critic = networks_for((1, 8, 8), config).critic()
    initialise(critic, torch.Generator().manual_seed(0))
    return DetectorScore(kind, critic).eval()


def test_a_score_depends_on_its_own_image_alone(digits):
    images, _ = digits
    score = digit_score(images)
    scores = score.of(images[:300]).anomaly_score
    assert (scores.dtype, scores.shape) == (np.float32, (300,))
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(score.of(images[order]).anomaly_score, scores[order])
    alone = [score.of(images[i : i + 1]).anomaly_score[0] for i in range(20)]
    np.testing.assert_array_equal(alone, scores[:20])
    with torch.no_grad():
        by_hand = score.d_tv(score.kind.floats(images[:300]))
    np.testing.assert_allclose(scores, by_hand.numpy(), atol=1e-5)


def test_the_score_is_the_only_view_and_has_no_end(digits):
    images, _ = digits
    score = digit_score(images)
    scored = score.of(images[:20], views=True)
    assert list(scored.columns()) == ["anomaly_score", "history"]
    assert (scored.views["history"] == scored.anomaly_score).all()
    assert score.of(images[:20]).views is None
    assert (score.unbounded(scored.anomaly_score) == scored.anomaly_score).all()
    assert (score.of_prepared(images[:20]) == scored.anomaly_score).all()


def test_no_samples_have_no_scores(digits):
    images, _ = digits
    assert digit_score(images).of(images[:0]).anomaly_score.shape == (0,)
