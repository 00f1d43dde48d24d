import threading
import time

import numpy as np
import pytest

from historyad.data.ahead import N_THREADS, ahead
from historyad.errors import InputError

IMAGES = [np.full((2, 3, 1), number, np.uint8) for number in range(12)]


@pytest.fixture
def decoded():
    """Return the numbers that were decoded, and a function that decodes all but the fifth."""
    numbers = []

    def decode(number):
        numbers.append(number)
        return None if number == 5 else IMAGES[number]

    return numbers, decode


def test_the_order_is_kept_and_none_is_passed_on(decoded):
    found = list(ahead(decoded[1], range(12), 3, 1000))
    assert found.pop(5) is None
    assert [int(image[0, 0, 0]) for image in found] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert sorted(decoded[0]) == list(range(12))


def test_it_looks_ahead_no_further_than_asked_and_stops(decoded):
    images = ahead(decoded[1], range(12), 3, 1000)
    next(images)
    images.close()
    assert len(decoded[0]) <= 4
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_few_large_images_are_held(decoded):
    most, seen = 2 + N_THREADS, 0  # images that there is room for, and those that were begun
    for _ in ahead(decoded[1], range(12), 64, 2 * 6):
        seen += 1
        time.sleep(0.02)
        assert len(decoded[0]) - seen <= most
    assert seen == len(decoded[0]) == 12


def test_an_error_comes_where_its_image_would(decoded):
    def refuse(number):
        if number == 3:
            raise InputError("damaged")
        return decoded[1](number)

    images = ahead(refuse, range(12), 64, 1000)
    assert [int(next(images)[0, 0, 0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="damaged"):
        next(images)
