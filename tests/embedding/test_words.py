"""Words in the spaces of SigLIP's variants: the publisher's network, and clear refusals elsewhere."""

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.embedding import words


@pytest.fixture
def patches():
    found = gx.open("major-tom", gx.example("major-tom", container="siglip")).load()
    return found.assign_attrs(version="S2RGB-SigLIP")  # an example's own is "synthetic"


def test_words_without_weights_say_how_to_get_them(patches, monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(SourceError, match=r"no route to host.*hf download google/siglip.*GEOEMB_SIGLIP"):
        patches.emb.search("solar farm")
    monkeypatch.setenv("GEOEMB_SIGLIP", str(tmp_path / "nowhere"))
    with pytest.raises(
        SourceError, match=r"nowhere' is not a folder: it should hold the files of google/siglip"
    ):
        patches.emb.similarity("solar farm")


def test_variants_learnt_from_images_alone_have_no_words():
    other = gx.open("major-tom", gx.example("major-tom")).isel(location=slice(3))
    other.attrs["version"] = "S2L1C-SSL4EO"
    with pytest.raises(EmbeddingError, match=r"S2L1C-SSL4EO was learnt from images alone.*S2RGB-SigLIP"):
        other.emb.search("solar farm")
    with pytest.raises(
        EmbeddingError, match=r"only in the variant SigLIP of earth-embeddings; this one is DINOv2"
    ):
        gx.product("earth-embeddings").text(["solar farm"], "DINOv2")


@pytest.mark.slow  # imports transformers
def test_words_are_found_by_the_publishers_network(patches, monkeypatch, tmp_path):
    """A small network of SigLIP's kind with random weights, saved as the published one is."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {"<pad>": 0, "<unk>": 1, **{w: i for i, w in enumerate(("solar", "farm", "harbour"), start=2)}}
    tokens = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", unk_token="<unk>")
    torch.manual_seed(0)
    config = transformers.SiglipTextConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_size=1152,
    )  # fmt: skip
    network = transformers.SiglipTextModel(config).eval()
    fast.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    monkeypatch.setenv("GEOEMB_SIGLIP", str(tmp_path))
    ids = torch.tensor([[2, 3, *[0] * 62], [4, *[0] * 63]])
    with torch.inference_mode():
        expected = network(input_ids=ids).pooler_output.numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(words.siglip(["Solar farm!", "harbour"]), expected, atol=1e-6)
    best = patches.emb.search("solar farm", 3)
    vectors = patches.transpose("location", "band").values
    cosines = vectors @ expected[0] / np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(best.similarity, np.sort(cosines)[::-1][:3], atol=1e-5)
