"""An encoder of sentences: words that look at each other, and what they say on average."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mspace.checks import check_int


class _Block(nn.Module):
    """Words look at each other, then each goes through a feed-forward pair of layers, the larger part of a block.

    Both are added to what was there, and normalised, as in BERT (Devlin et al. 2019, after Vaswani et al. 2017).
    """

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.look, self.say = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.first, self.second = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)

    def forward(self, h: Tensor, there: Tensor) -> Tensor:
        """Map states of words (P, width), those of all sentences one after another, with their places (N, T)."""
        wanted = self.look(h)
        table = wanted.new_zeros(*there.shape, wanted.shape[1])
        table[there] = wanted
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in table.chunk(3, 2))
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None])
        h = self.first(h + self.say(heard.transpose(1, 2).flatten(2)[there]))
        return self.second(h + self.outer(F.gelu(self.inner(h))))


class SentenceEncoder(nn.Module):
    """A transformer whose words are averaged and put on the unit sphere, so that a product is a cosine.

    With the sizes of MiniLM by default (Wang et al. 2020; for the average Reimers and Gurevych 2019). The feed-forward
    neurons are those of ``blocks.i.inner``, read by ``blocks.i.outer``. Places that only fill up a short sentence cost
    nothing there, and inputs and outputs of layers are rows of words that exist.

    Args:
        vocabulary: number of word pieces
        width: of the state of a word
        inner: neurons in the feed-forward pair of a block
        depth: number of blocks
        heads: of the attention, a divisor of `width`
        longest: sentence, in word pieces
    """

    def __init__(
        self,
        *,
        vocabulary: int = 30522,
        width: int = 384,
        inner: int = 1536,
        depth: int = 6,
        heads: int = 12,
        longest: int = 512,
    ):
        sizes = {"vocabulary": vocabulary, "width": width, "inner": inner, "depth": depth, "heads": heads}
        vocabulary, width, inner, depth, heads = (check_int(v, name, 1) for name, v in sizes.items())
        longest = check_int(longest, "longest", 1)
        if width % heads:
            raise ValueError(f"heads must divide the width, got {heads} and {width}: take one of its divisors")
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(_Block(width, inner, heads) for _ in range(depth))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map indices of word pieces (N, T), with 1 where one stands and 0 where the row is filled up, to (N, width)."""
        if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
            raise ValueError(
                f"input_ids and attention_mask must both be (N, T), got {tuple(input_ids.shape)} and "
                f"{tuple(attention_mask.shape)}"
            )
        if input_ids.shape[1] > len(self.places.weight):
            most = len(self.places.weight)
            raise ValueError(
                f"input_ids must hold at most {most} word pieces a row, got {input_ids.shape[1]}: cut them"
            )
        there = attention_mask.bool()
        h = self.norm((self.words(input_ids) + self.places.weight[: input_ids.shape[1]])[there])
        for block in self.blocks:
            h = block(h, there)
        whose = there.nonzero()[:, 0]
        total = h.new_zeros(len(there), h.shape[1]).index_add(0, whose, h)
        return F.normalize(total, dim=1)  # of the sum or of the average, it is the same
