"""The local embedding model is all-MiniLM-L6-v2, and means what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import SetupError
from core.models.embedding_local import DIMENSIONS, MAX_TOKENS, MiniLM, find_weights, verified


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(find_weights())


def test_similarities_are_those_the_published_model_has(model: MiniLM) -> None:
    # The example of the model's own card and its published scores.
    source, *others = model.embed(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    assert [round(float(source @ other), 3) for other in others] == [0.695, 0.943, 0.257]


def test_meaning_decides_and_not_letters(model: MiniLM) -> None:
    cat, feline, economy = model.embed(["The cat sleeps", "A feline is taking a nap", "The economy shrank"])
    assert cat @ feline > 0.5
    assert cat @ economy < 0.2


def test_a_question_is_nearer_to_the_policy_that_answers_it(model: MiniLM) -> None:
    question, policy, other = model.embed(
        ["What is our minimum score?", "We never approve a score below 620", "The board prefers short reports"]
    )
    assert question @ policy > question @ other + 0.2


def test_a_batch_gives_each_text_the_vector_it_has_alone(model: MiniLM) -> None:
    texts = ["short", "a somewhat longer sentence about loans", "x " * 90, "Ünïcødé ✓", "short"]
    together = model.embed(texts)
    assert together.shape == (5, DIMENSIONS)
    alone = np.concatenate([model.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_longer_texts_are_cut_at_the_models_limit(model: MiniLM) -> None:
    words = ["loan"] * (MAX_TOKENS - 2)
    whole, longer = model.embed([" ".join(words), " ".join([*words, "economy", "cat"])])
    np.testing.assert_array_equal(whole, longer)
    assert model.count_tokens([" ".join(["loan"] * 1000)]) == MAX_TOKENS


def test_weights_other_than_the_published_ones_are_refused(tmp_path: Path) -> None:
    forged = tmp_path / "model.safetensors"
    forged.write_bytes(b"not the model")
    with pytest.raises(SetupError, match="not the published model"):
        verified(forged)
