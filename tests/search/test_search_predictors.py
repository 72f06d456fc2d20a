"""Predictors: what they learn, what pretraining gives them, that they repeat, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.predictors import (
    MLP,
    PredictedScores,
    Pretraining,
    TargetTransform,
    Trees,
    features,
    fit,
    pretrain_encoder,
)
from fbnetv3_zoo.search.predictors.mlp import _FILE, ENCODER, Encoder, PerceptronEnsemble, TrainingPhase, fingerprint
from fbnetv3_zoo.search.predictors.predictor import _phases
from fbnetv3_zoo.search.space import PAPER, TINY, Choice, Codes, Dimension, Levels, NetworkCosts, Range, Space

WIDTHS = tuple(Dimension(f"width_{n}", Range(1, 9), "architecture") for n in range(6))
KIND = Dimension("kind", Choice(("a", "b", "c")), "architecture")
RATE = Dimension("rate", Levels((0.001, 0.01, 0.1, 1.0)))
SPACE = Space("joint", others=(RATE, *WIDTHS, KIND))
NETWORKS = Space("networks", others=(*WIDTHS, KIND))
RECIPES = Space("recipes", others=(RATE, Dimension("momentum", Range(0, 9))))
SMALL = MLP(members=2, steps=60)


def sizes(codes: Codes) -> np.ndarray:
    """What a network costs: the product of its widths."""
    return np.prod(codes[:, :6] + 1.0, axis=1)


def score(codes: Codes) -> np.ndarray:
    """Rises with the size, best at the third rate, with a bonus for the second kind of small networks."""
    small = codes[:, :6].sum(1) < 24
    return np.log(sizes(codes)) / 3 - (codes[:, 7] - 2) ** 2 + (codes[:, 6] == 1) * small


def points(space: Space, number: int, seed: int = 0) -> Codes:
    return space.sample(number, np.random.default_rng(seed), method="uniform")


def tau(one: np.ndarray, other: np.ndarray) -> float:
    return float(kendalltau(one, other).statistic)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    codes = points(SPACE, 3000)
    return pretrain_encoder(SPACE, codes, {"size": sizes(codes)}, kind=replace(SMALL, members=5), steps=300)


# What is learned


def test_a_function_of_network_and_recipe_is_learned_from_300_points() -> None:
    codes, asked = points(SPACE, 300), points(SPACE, 2000, 1)
    prediction = fit(MLP(), SPACE, codes, score(codes)).predict(asked)
    assert prediction.members.shape == (5, 2000)
    assert tau(prediction.mean, score(asked)) > 0.85
    assert ((prediction.mean - score(asked)) ** 2).mean() < 0.05 * score(asked).var()
    seen = fit(MLP(), SPACE, codes, score(codes)).predict(codes).mean
    assert ((seen - score(codes)) ** 2).mean() < 0.01 * score(codes).var()


def test_trees_learn_it_too() -> None:
    codes, asked = points(SPACE, 300), points(SPACE, 2000, 1)
    first, again = (
        fit(Trees(members=2, trees=60), SPACE, codes, score(codes), seed=3).predict(asked) for _ in range(2)
    )
    assert tau(first.mean, score(asked)) > 0.7
    assert first.members.shape == (2, 2000)
    np.testing.assert_array_equal(first.members, again.members)
    assert (first.members[0] != first.members[1]).any()


def test_members_disagree_more_where_nothing_was_seen() -> None:
    codes = points(SPACE, 100)
    low = codes[codes[:, :6].sum(1) < 24]
    predictor = fit(MLP(), SPACE, low, score(low))
    far = np.full((1, 8), 8) * (SPACE.sizes > 8) + np.array([[0] * 6 + [1, 2]])
    assert predictor.predict(far).spread[0] > 2 * np.median(predictor.predict(low).spread)


def test_mean_and_spread_are_over_the_members() -> None:
    prediction = PredictedScores(np.array([[1.0, 2.0], [3.0, 2.0]]))
    assert prediction.mean.tolist() == [2.0, 2.0]
    assert prediction.spread.tolist() == [1.0, 0.0]
    one = fit(replace(SMALL, members=1), SPACE, points(SPACE, 9), np.arange(9.0)).predict(points(SPACE, 4))
    assert one.spread.tolist() == [0.0] * 4


@pytest.mark.parametrize("space", [NETWORKS, RECIPES], ids=["no recipe", "no network"])
def test_spaces_of_one_part(space: Space) -> None:
    codes, asked = points(space, 80), points(space, 300, 1)
    wanted = codes.sum(1), asked.sum(1)
    assert tau(fit(MLP(), space, codes, wanted[0].astype(float)).predict(asked).mean, wanted[1]) > 0.85


def test_an_encoder_is_no_hindrance_where_there_are_no_networks(encoder: Encoder) -> None:
    codes = points(RECIPES, 20)
    given, without = (fit(SMALL, RECIPES, codes, codes[:, 0] * 1.0, encoder=e).predict(codes) for e in (encoder, None))
    np.testing.assert_array_equal(given.members, without.members)


def test_two_points_are_enough() -> None:
    codes = np.array([[0] * 8, [8] * 6 + [2, 3]])
    predicted = fit(SMALL, SPACE, codes, np.array([0.2, 0.8])).predict(codes).mean
    assert np.isfinite(predicted).all()
    assert predicted[0] < predicted[1]


@pytest.mark.parametrize("constant", [0.0, 0.1, 71.3, -1e6])
def test_scores_that_are_all_the_same_are_predicted(constant: float) -> None:
    codes = points(SPACE, 40)
    prediction = fit(MLP(), SPACE, codes, np.full(40, constant)).predict(codes)
    np.testing.assert_allclose(prediction.mean, constant, atol=0.2)


def test_predictions_do_not_depend_on_the_company() -> None:
    codes, asked = points(SPACE, 50), points(SPACE, 5000, 1)
    predictor = fit(SMALL, SPACE, codes, score(codes))
    together = predictor.predict(asked).members
    np.testing.assert_allclose(predictor.predict(asked[4000:4010]).members, together[:, 4000:4010], rtol=1e-4)
    assert predictor.predict(asked[:0]).members.shape == (2, 0)


def test_the_arguments_stay_as_they_are() -> None:
    codes, scores = points(SPACE, 50), score(points(SPACE, 50))
    before = codes.copy(), scores.copy()
    fit(SMALL, SPACE, codes, scores).predict(codes)
    np.testing.assert_array_equal(codes, before[0])
    np.testing.assert_array_equal(scores, before[1])


# Repeating

DIGEST = """
import hashlib, numpy as np
from fbnetv3_zoo.search.predictors import MLP, fit, pretrain_encoder
from fbnetv3_zoo.search.space import NetworkCosts
from fbnetv3_zoo.search.space import TINY
codes = TINY.sample(600, np.random.default_rng(0))
costs = NetworkCosts(TINY)(codes)
kind = MLP(hidden=160, embedding=96, steps=20)  # wide enough for BLAS to want threads
encoder = pretrain_encoder(TINY, codes, costs, kind=kind, steps=30)
found = hashlib.sha256(encoder.layers["encoder.first"].tobytes())
predictor = fit(kind, TINY, codes[:100], np.log(costs["macs"][:100]), encoder=encoder, seed=4)
found.update(predictor.predict(codes).members.tobytes())
print(found.hexdigest())
"""


def test_the_same_seed_gives_the_same_predictor_whatever_the_number_of_threads() -> None:
    digests = set()
    for threads in ("1", "4"):
        env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        told = subprocess.run([sys.executable, "-c", DIGEST], env=env, capture_output=True, text=True, check=True)
        digests.add(told.stdout)
    assert len(digests) == 1


def test_another_seed_gives_another_predictor() -> None:
    codes = points(SPACE, 50)
    one, again, other = (fit(SMALL, SPACE, codes, score(codes), seed=s).predict(codes).members for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


# Pretraining


def test_the_paper_s_macs_and_parameters_can_be_told_from_the_encoding() -> None:
    codes = PAPER.sample(6000, np.random.default_rng(0))
    costs = NetworkCosts(PAPER)(codes)
    statistics = {name: costs[name] for name in ("macs", "parameters")}
    found = pretrain_encoder(PAPER, codes, statistics, kind=MLP(members=2), steps=600)
    assert found.statistics == ("macs", "parameters")
    assert min(found.r2) > 0.96
    assert min(found.kendall) > 0.89
    assert max(*found.r2, *found.kendall) < 1


def test_a_statistic_that_never_changes_is_told_as_nothing_known() -> None:
    codes = points(SPACE, 100)
    found = pretrain_encoder(SPACE, codes, {"same": np.full(100, 3.0), "size": sizes(codes)}, kind=SMALL, steps=20)
    assert (found.r2[0], found.kendall[0]) == (0.0, 0.0)
    assert found.kendall[1] > 0


@pytest.mark.parametrize("pretraining", [Pretraining.FINE_TUNE, Pretraining.FROZEN_FIRST])
def test_what_pretraining_teaches_is_used(encoder: Encoder, pretraining: Pretraining) -> None:
    codes, asked = points(SPACE, 25, 5), points(SPACE, 1000, 6)
    wanted = np.log(sizes(codes)), np.log(sizes(asked))
    kinds = [MLP(pretraining=p) for p in (pretraining, Pretraining.NONE)]
    given, alone = (tau(fit(k, SPACE, codes, wanted[0], encoder=encoder).predict(asked).mean, wanted[1]) for k in kinds)
    assert given > 0.8
    assert given > alone + 0.1


def test_without_pretraining_the_encoder_is_not_looked_at(encoder: Encoder) -> None:
    codes, kind = points(SPACE, 25), MLP(steps=30, pretraining=Pretraining.NONE)
    given, without = (fit(kind, SPACE, codes, score(codes), encoder=e).predict(codes).members for e in (encoder, None))
    np.testing.assert_array_equal(given, without)


def moved(encoder: Encoder, kind: MLP) -> float:
    """How far the encoder is from where it was when a predictor has been fitted, at most."""
    codes = points(SPACE, 40)
    fitted = fit(kind, SPACE, codes, score(codes), encoder=encoder)
    layers = fitted.network.encoder_layers  # type: ignore[attr-defined]
    return max(float(np.abs(layers[name] - encoder.layers[name]).max()) for name in ENCODER)


def test_when_the_encoder_moves(encoder: Encoder) -> None:
    frozen = MLP(steps=1, pretraining=Pretraining.FROZEN_FIRST)
    assert moved(encoder, frozen) == 0
    assert moved(encoder, replace(frozen, steps=2)) > 0
    slow, fast = (moved(encoder, MLP(steps=1, weight_decay=0, encoder_rate=rate)) for rate in (0.1, 1.0))
    assert fast == pytest.approx(0.03, rel=1e-2)  # Adam's first step is as long as the rate
    assert slow == pytest.approx(0.003, rel=1e-2)


# Encoders as files


def test_a_saved_encoder_is_loaded_as_it_was(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "encoder.safetensors")
    loaded = Encoder.load(tmp_path / "encoder.safetensors")
    assert sorted(loaded.layers) == sorted(encoder.layers)
    for name, layer in encoder.layers.items():
        np.testing.assert_array_equal(loaded.layers[name], layer)
    for name in ("space", "fingerprint", "statistics", "r2", "kendall"):
        assert getattr(loaded, name) == getattr(encoder, name)
    codes = points(SPACE, 20)
    one, other = (fit(MLP(), SPACE, codes, score(codes), encoder=e).predict(codes).members for e in (encoder, loaded))
    np.testing.assert_array_equal(one, other)


def test_an_encoder_cut_short_anywhere_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in (*range(40), *range(40, len(data), 997), len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ZooError) as raised:
            Encoder.load(path)
        assert str(raised.value).startswith(f"{path}: cannot be read as an encoder (")
        assert "\n" not in str(raised.value)


def test_a_changed_byte_is_noticed(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "changed.safetensors"
    encoder.save(path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ZooError) as raised:
        Encoder.load(path)
    assert str(raised.value) == f"{path}: is damaged (its contents do not fit the digest in it); run stage 1 again"
    data[-100] ^= 1
    told = data.index(b"kendall")
    data[told] ^= 1
    path.write_bytes(data)
    with pytest.raises(ZooError, match="is damaged"):
        Encoder.load(path)


def test_other_files_are_no_encoders(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    other = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, other)
    for path, told in (
        (other, "is no encoder (format 'fbnetv3_zoo.encoder 1'); Encoder.save writes such files"),
        (tmp_path / "none.safetensors", "no such file"),
        (tmp_path, "is a folder, not an encoder"),
    ):
        with pytest.raises(ZooError) as raised:
            Encoder.load(path)
        assert str(raised.value) == f"{path}: {told}"


@pytest.mark.parametrize(
    ("names", "metadata", "said"),
    [
        (ENCODER[:1], {"encoder": "{}"}, "lacks encoder.second"),
        (ENCODER, {}, "lacks encoder"),
        ((*ENCODER, "third"), {"encoder": "{}"}, "has 'third' of type float32, unlike an encoder"),
    ],
)
def test_an_encoder_with_other_contents_is_refused(
    names: tuple[str, ...], metadata: dict[str, str], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.safetensors"
    _FILE.write(path, {name: np.zeros((2, 3, 4), np.float32) for name in names}, metadata)
    with pytest.raises(ZooError) as raised:
        Encoder.load(path)
    assert str(raised.value) == f"{path}: {said}; run stage 1 again"


# Refusals


def test_an_encoder_of_other_networks_is_refused(encoder: Encoder) -> None:
    codes = points(TINY, 9)
    with pytest.raises(ZooError) as raised:
        fit(MLP(), TINY, codes, np.arange(9.0), encoder=encoder)
    assert str(raised.value) == (
        "the encoder was made for other architectures (of space joint) than those of space tiny; "
        "run stage 1 on this space"
    )


@pytest.mark.parametrize(
    ("kind", "mine", "theirs"),
    [(MLP(members=3), (5, 52, 32), (3, 52, 32)), (MLP(hidden=8), (5, 52, 32), (5, 52, 8))],
)
def test_an_encoder_of_another_shape_is_refused(
    encoder: Encoder, kind: MLP, mine: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    codes = points(SPACE, 9)
    with pytest.raises(ZooError) as raised:
        fit(kind, SPACE, codes, np.arange(9.0), encoder=encoder)
    assert str(raised.value) == (
        f"the encoder of stage 1 has shape {mine} in encoder.first, the predictor {theirs}; run stage 1 with the same "
        "members, hidden and embedding"
    )


def test_a_fingerprint_tells_the_networks_of_spaces_apart() -> None:
    other = Space("other", others=(*WIDTHS, replace(KIND, options=Choice(("a", "b", "d")))))
    assert fingerprint(SPACE) == fingerprint(NETWORKS)  # the recipe is no part of it
    assert len({fingerprint(s) for s in (NETWORKS, other, TINY, TINY.hold({"resolution": 32}), PAPER)}) == 4
    assert fingerprint(PAPER.hold({"resolution": 224})) != fingerprint(PAPER)


def test_what_cannot_be_learned_from_is_refused() -> None:
    codes = points(SPACE, 9)
    for scores, told in (
        (np.arange(8.0), "scores have shape (8,); give one for each of the 9 points"),
        (np.full(9, np.nan), "scores to fit a predictor on must be finite"),
        (np.full(9, np.inf), "scores to fit a predictor on must be finite"),
    ):
        with pytest.raises(ZooError) as raised:
            fit(SMALL, SPACE, codes, scores)
        assert str(raised.value) == told
    with pytest.raises(ZooError, match=r"^a predictor needs at least 2 scored points, not 1$"):
        fit(SMALL, SPACE, codes[:1], np.zeros(1))


def test_what_stage_1_cannot_learn_from_is_refused() -> None:
    nothing = "stage 1 needs architectures to choose from and statistics of them"
    codes = points(RECIPES, 20)
    with pytest.raises(ZooError, match=rf"^space recipes: {nothing}$"):
        pretrain_encoder(RECIPES, codes, {"size": np.zeros(20)})
    with pytest.raises(ZooError, match=rf"^space joint: {nothing}$"):
        pretrain_encoder(SPACE, points(SPACE, 20), {})
    with pytest.raises(ZooError, match=r"^stage 1 needs at least 10 points, not 9$"):
        pretrain_encoder(SPACE, points(SPACE, 9), {"size": np.zeros(9)})


def test_kinds_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ZooError, match=r"^MLP.members is 0; it must be a whole number of at least 1$"):
        MLP(members=0)
    with pytest.raises(ZooError, match=r"^MLP.learning_rate is 0; it must be a number above 0$"):
        MLP(learning_rate=0)
    with pytest.raises(ZooError, match=r"^MLP.encoder_rate is 2; it must be a number above 0 and at most 1$"):
        MLP(encoder_rate=2)
    with pytest.raises(ZooError, match=r"^Trees.depth is 0; it must be a whole number of at least 1$"):
        Trees(depth=0)


# Parts


def test_features_of_a_point() -> None:
    space = Space("few", others=(Dimension("rate", Range(0, 40)), KIND, Dimension("depth", Levels((1, 2, 5)))))
    found = features(space, np.array([[1, 20, 0], [2, 40, 2], [0, 0, 1]]))
    assert found.shape == (3, 3 + 8 + 3)
    assert found[0].tolist() == [0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, -1, 0, 0]
    assert found[1].tolist() == [0, 0, 1, 1, *[1] * 7, 1, 1, 1]
    assert found[2].tolist() == [1, 0, 0, -1, *[0] * 7, 0, 1, 0]
    assert features(space, np.array([[1, 20, 0]]), part="architecture").tolist() == [[0, 1, 0]]
    assert features(space.hold({"kind": "b", "rate": 3}), np.array([[0, 0, 2]])).tolist() == [[1, 1, 1]]
    plain = features(space, np.array([[1, 20, 0], [2, 10, 1]]), thresholds=False)
    assert plain.tolist() == [[0, 1, 0, 0, -1], [0, 0, 1, -0.5, 0]]


def test_switches_to_the_letter_of_the_paper() -> None:
    literal = MLP(pretraining=Pretraining.FROZEN_FIRST, epochs=50)
    frozen, rest = _phases(literal, Pretraining.FROZEN_FIRST, 96)
    assert (frozen.steps, frozen.encoder_rate, rest.steps, rest.encoder_rate) == (150, 0, 150, 1)
    assert rest.learning_rate < frozen.learning_rate == literal.learning_rate
    assert [phase.steps for phase in _phases(literal, Pretraining.NONE, 20)] == [50]
    train = points(SPACE, 64)
    found = [fit(replace(SMALL, transform=transform), SPACE, train, score(train)) for transform in (True, False)]
    far = points(SPACE, 200, seed=1)
    learned, plain = (predictor.predict(far).mean for predictor in found)
    assert tau(plain, score(far)) > 0.4
    assert not np.allclose(learned, plain)


def test_targets_keep_the_order_and_come_back() -> None:
    scores = np.array([10.0, 89.0, 90.0, 90.5, 90.5, 91.0, 91.2, 91.3])
    target = TargetTransform(scores)
    learned = target.standard(scores)
    np.testing.assert_allclose(target.scores(learned), scores)
    assert (np.diff(learned) > 0).tolist() == (np.diff(scores) > 0).tolist()
    assert learned[1] > -1  # one very bad score does not press all others together
    beyond = target.scores(np.linspace(-10, 10, 401))
    assert (np.diff(beyond) > 0).all()
    assert beyond[-1] > 91.3
    assert np.isfinite(TargetTransform(np.array([1.0, 1.0 + 1e-16])).scores(learned)).all()


@pytest.mark.parametrize("outputs", [0, 2])
def test_the_written_out_gradient_is_the_slope(outputs: int) -> None:
    rng = np.random.default_rng(0)
    network = PerceptronEnsemble(members=2, architecture=4, recipe=3, hidden=6, embedding=5, rng=rng, outputs=outputs)
    x = rng.standard_normal((2, 7, 4 if outputs else 7)).astype(np.float32)
    wanted = rng.standard_normal((2, 7, 2) if outputs else (2, 7)).astype(np.float32)

    def loss() -> float:
        if outputs:
            layer = network.layers["proxy"].astype(np.float64)
            told = network.encode(x)[1] @ layer[:, 1:] + layer[:, :1]
            return float(((told - wanted) ** 2).mean((1, 2)).sum())
        return float((network.forward(x)[0].astype(np.float64) * wanted).sum())

    if outputs:
        network.proxy(x, wanted)
    else:
        network.backward(network.forward(x)[1], wanted, with_encoder=True)
    written = network.gradient.copy()
    for place in np.ndindex(written.shape):
        kept = network.flat[place]
        above, below = [], []
        for step, into in ((1e-3, above), (-1e-3, below)):
            network.flat[place] = kept + step
            into.append(loss())
        network.flat[place] = kept
        assert written[place] == pytest.approx((above[0] - below[0]) / 2e-3, abs=0.02), place


def test_a_phase_of_no_encoder_rate_leaves_the_encoder() -> None:
    from fbnetv3_zoo.search.predictors.mlp import train_network

    rng = np.random.default_rng(0)
    network = PerceptronEnsemble(members=2, architecture=4, recipe=0, hidden=6, embedding=5, rng=rng)
    before = network.flat.copy()
    x = rng.standard_normal((20, 4)).astype(np.float32)
    train_network(network, x, x.sum(1), (TrainingPhase(5, 0.1, 0.1, encoder_rate=0.0),), rng)
    start = network.start_of_head
    np.testing.assert_array_equal(network.flat[:, :start], before[:, :start])
    assert (network.flat[:, start:] != before[:, start:]).any()
