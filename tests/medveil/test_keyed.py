"""Keyed randomness: the published generator, and independence of batch, order and device."""

import torch

from medveil import keyed
from medveil.kernels.draws.reference import philox


def test_philox_matches_the_known_answers_of_its_authors():
    zero = [torch.zeros(1, dtype=torch.int64)] * 4
    ones = [torch.full((1,), 0xFFFFFFFF, dtype=torch.int64)] * 4
    assert [int(w) for w in philox(zero, (0, 0))] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    answer = [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert [int(w) for w in philox(ones, (0xFFFFFFFF, 0xFFFFFFFF))] == answer


def test_a_samples_numbers_do_not_depend_on_its_batch():
    together = keyed.uniform(7, "start", 3, keyed.keys_of(["a", "b", "c"]), (2, 5))
    alone = keyed.uniform(7, "start", 3, keyed.keys_of(["b"]), (2, 5))
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


def test_seed_purpose_and_step_each_change_the_numbers():
    keys = keyed.keys_of(["a"])
    base = keyed.words(0, "start", 0, keys, (8,))
    for seed, purpose, step in ((1, "start", 0), (0, "other", 0), (0, "start", 1)):
        assert not torch.equal(base, keyed.words(seed, purpose, step, keys, (8,)))


def test_uniform_and_integers_cover_their_range():
    u = keyed.uniform(0, "u", 0, keyed.keys_of(["a"]), (100_000,))
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01
    n = keyed.integers(0, "n", 0, keyed.keys_of(["a"]), 7, (10_000,))
    assert sorted(n.unique().tolist()) == list(range(7))


def test_permutation_is_a_function_of_seed_and_epoch():
    assert sorted(keyed.permutation(50, 1, "order", 2)) == list(range(50))
    assert keyed.permutation(50, 1, "order", 2) == keyed.permutation(50, 1, "order", 2)
    assert keyed.permutation(50, 1, "order", 2) != keyed.permutation(50, 1, "order", 3)
