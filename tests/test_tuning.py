"""The search over knobs: equal numbers of tries, no end at an edge."""

import math

import pytest

from snnparams.experiments.tuning import Knob, best, enclosed, neighbours, next_places, values

KNOBS = {"tau": Knob(20, 2, low=1.5), "rate": Knob(0.01), "spread": Knob(7, 2, low=1, high=30)}
FIRST = [(0, 0, 0), (1, 0, 0), (-1, 0, 0)]


def search(score, tries, knobs=KNOBS, first=FIRST):
    scores = {}
    while places := next_places(knobs, first, scores, tries):
        assert not set(places) & set(scores)
        scores.update({place: score(place) for place in places})
    return scores


def test_values_and_neighbours():
    assert values(KNOBS, (1, -1, 0)) == {"tau": 40, "rate": 0.005, "spread": 7}
    assert neighbours(KNOBS, (-3, 0, -2)) == [(-2, 0, -2), (-3, 1, -2), (-3, -1, -2), (-3, 0, -1)]  # two natural ends
    with pytest.raises(ValueError, match="where tau has no value"):
        values(KNOBS, (-4, 0, 0))
    with pytest.raises(ValueError, match="zip"):
        values(KNOBS, (0, 0))


def test_a_search_finds_a_peak_that_lies_anywhere():
    for peak in ((2, -2, 1), (-3, 3, -2), (0, 0, 0)):  # the second one at natural ends
        scores = search(lambda place, peak=peak: -math.dist(place, peak), 60)
        assert best(scores) == peak
        assert enclosed(KNOBS, scores)


def test_every_search_spends_exactly_its_tries():
    for tries in (3, 4, 9, 24):
        scores = search(lambda place: -sum(map(abs, place)), tries)
        assert len(scores) == tries
        assert list(scores)[:3] == FIRST
    assert not enclosed(KNOBS, search(lambda place: place[1], 24))  # a slope without an end is at an edge for ever


def test_more_tries_go_on_where_fewer_stopped():
    few = search(lambda place: -math.dist(place, (1, 2, 0)), 8)
    more = dict(few)
    while places := next_places(KNOBS, FIRST, more, 20):
        more.update({place: -math.dist(place, (1, 2, 0)) for place in places})
    assert len(more) == 20
    assert few.items() <= more.items()


def test_bad_input():
    with pytest.raises(ValueError, match="tries: expected at least as many as first places, 3, got 2"):
        next_places(KNOBS, FIRST, {}, 2)
    for knob in ((0, 2), (1, 1), (1, 2, 3)):
        with pytest.raises(ValueError, match="knob: expected a factor above 1 and low <= start <= high"):
            Knob(*knob)
