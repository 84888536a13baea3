"""Nearest neighbours and binary codes, against every distance computed one by one."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch
from torch import nn

from layerwise import models
from layerwise.errors import InputError, MachineError
from layerwise.explain.hashing import Encoder, learn, nearest_codes
from layerwise.explain.neighbours import Neighbours, last_hidden, nearest, pixels, precision


def test_nearest_by_hand() -> None:
    database = np.array([[0, 0], [3, 4], [0, 1], [0, 1]], np.float32)
    found = nearest(database, np.array([[0, 0], [3, 3]], np.float32), 3)
    assert found.indices.tolist() == [[0, 2, 3], [1, 2, 3]]  # of equals the first comes first
    assert found.distances[0].tolist() == [0, 1, 1]
    assert found.distances[1, 0] == 1


def test_nearest_equals_all_distances_in_float64() -> None:
    """Also where float32's short cut loses the digits: vectors near to one another, and far from 0."""
    generator = np.random.default_rng(0)
    for centre in (0.0, 1000.0):
        database = (centre + generator.normal(size=(300, 50))).astype(np.float32)
        queries = (centre + generator.normal(size=(40, 50))).astype(np.float32)
        difference = database[None].astype(np.float64) - queries[:, None]
        distances = np.sqrt(np.square(difference).sum(2))
        found = nearest(database, queries, 6)
        assert np.array_equal(found.indices, np.argsort(distances, axis=1, kind="stable")[:, :6])
        assert np.allclose(found.distances, np.sort(distances, axis=1)[:, :6], rtol=1e-12)


def test_float32_alone_would_be_wrong() -> None:
    """The negative control: FAISS's own answer to a large search is not the true one where vectors are far from 0."""
    import faiss

    generator = np.random.default_rng(0)
    database = (100 + generator.normal(size=(2000, 784))).astype(np.float32)
    queries = (100 + generator.normal(size=(200, 784))).astype(np.float32)
    true = [np.argsort(np.square(database.astype(np.float64) - query).sum(1), kind="stable")[:6] for query in queries]
    index = faiss.IndexFlatL2(784)
    index.add(database)
    assert not np.array_equal(index.search(queries, 6)[1], true)
    assert np.array_equal(nearest(database, queries, 6).indices, true)


def test_what_does_not_fit_is_said() -> None:
    vectors = np.zeros((3, 4), np.float32)
    for queries, k in ((np.zeros((1, 5), np.float32), 1), (vectors, 4), (vectors, 0)):
        with pytest.raises(InputError, match="neighbours of vectors"):
            nearest(vectors, queries, k)
    codes = np.zeros((3, 1), np.uint8)
    with pytest.raises(InputError, match="4 neighbours of codes"):
        nearest_codes(codes, codes, 4)


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name == "faiss":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MachineError, match=r"checkout of Layerwise: pip install -c constraints.txt '\.\[neighbours\]'"):
        nearest(np.zeros((3, 4), np.float32), np.zeros((1, 4), np.float32), 1)


def test_last_hidden_layer_is_what_the_last_weights_take() -> None:
    torch.manual_seed(0)
    model = models.build("alexnet", num_classes=3, map_side=1, hidden_features=5)
    images = torch.randn(4, 3, 67, 67)
    found = last_hidden(model, [{"image": images[:3]}, {"image": images[3:]}])
    assert found.shape == (4, 5)
    model.eval()
    with torch.no_grad():
        expected = model.head[:-1](model.features(images))
        logits = model.head.fc8(torch.from_numpy(found))
        assert torch.allclose(logits, model(images), atol=1e-6)
    assert np.allclose(found, expected, atol=1e-6)


def test_features_of_a_network_without_fully_connected_layers_are_averaged_maps() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    images = torch.randn(2, 1, 5, 5)
    found = last_hidden(model, [{"image": images}])
    assert np.allclose(found, model[0](images).mean((2, 3)).detach(), atol=1e-6)
    assert model.training


def test_no_pictures_and_an_exception_leave_nothing_behind() -> None:
    model = models.build("resnet20", in_channels=1)
    for take in (lambda: last_hidden(model, []), lambda: pixels([])):
        with pytest.raises(InputError, match="no pictures to take"):
            take()
    with pytest.raises(RuntimeError):
        last_hidden(model, [{"image": torch.randn(1, 1, 8, 8)}, {"image": torch.randn(1, 2, 8, 8)}])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_pixels_are_the_pictures() -> None:
    images = torch.randn(3, 2, 2, 2)
    assert np.array_equal(pixels([{"image": images[:1]}, {"image": images[1:]}]), images.reshape(3, 8).numpy())


def test_large_pictures_are_averaged_down() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pixels([{"image": images}], side=2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert pixels([{"image": images}], side=4).shape == (1, 16)


def test_precision_counts_neighbours_of_the_same_class() -> None:
    found = Neighbours(np.array([[0, 1], [2, 0]]), np.zeros((2, 2)))
    assert precision(found, np.array([5, 6, 7]), np.array([5, 7])) == 50.0


def test_codes_are_compared_by_differing_bits() -> None:
    generator = np.random.default_rng(0)
    database, queries = (generator.integers(0, 256, (rows, 4), np.uint8) for rows in (200, 7))
    bits = np.unpackbits(database[None] ^ queries[:, None], axis=2).sum(2)
    found = nearest_codes(database, queries, 5)
    assert np.array_equal(found.distances, np.sort(bits, axis=1)[:, :5])
    assert np.array_equal(np.take_along_axis(bits, found.indices, 1), found.distances)


def test_an_encoder_cuts_units_by_hand() -> None:
    """One layer pair of identities: tanh(tanh(x)) is above 0 where x is."""
    eye = np.eye(8, dtype=np.float32)
    encoder = Encoder(np.zeros(8, np.float32), 2.0, (eye, eye), (np.zeros(8, np.float32),) * 2, np.zeros(8, np.float32))
    vector = np.array([[1, -1, 1, 1, -1, -1, -1, 2]], np.float32)
    assert np.allclose(encoder.units(vector), np.tanh(np.tanh(vector / 2)))
    assert encoder.codes(vector).tolist() == [[0b10110001]]


def test_codes_learned_keep_neighbours_together() -> None:
    """Four far clusters: the nearest codes are of the own cluster; each bit halves the training vectors."""
    generator = np.random.default_rng(0)
    centres = 4 * generator.normal(size=(4, 20))
    labels = np.arange(200) % 4
    vectors = (centres[labels] + 0.3 * generator.normal(size=(200, 20))).astype(np.float32)
    encoder = learn(vectors, bits=16, epochs=60, seed=0)
    codes = encoder.codes(vectors)
    assert codes.shape == (200, 2)
    ones = np.unpackbits(codes, axis=1).mean(0)
    assert np.all((ones > 0.3) & (ones <= 0.5))
    assert precision(nearest_codes(codes, codes, 5), labels, labels) > 95
    random = generator.integers(0, 256, codes.shape, np.uint8)
    assert precision(nearest_codes(random, random, 5), labels, labels) < 60  # the negative control
    assert np.array_equal(learn(vectors, bits=16, epochs=60, seed=0).codes(vectors), codes)
    assert not np.array_equal(learn(vectors, bits=16, epochs=60, seed=1).codes(vectors), codes)


def test_codes_are_whole_bytes() -> None:
    with pytest.raises(InputError, match="codes of 12 bits"):
        learn(np.zeros((3, 4), np.float32), bits=12, epochs=1, seed=0)
