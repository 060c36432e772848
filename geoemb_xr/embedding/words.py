"""Text as vectors of a joint space of images and text: the text half of SigLIP."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from geoemb_xr.core.errors import SourceError, require

#: The model of this text encoder; its image encoder made the SigLIP variants of Major TOM and EarthEmbeddings.
SIGLIP = "google/siglip-so400m-patch14-384"
#: Environment variable with a folder of its weights, for machines without a network.
FOLDER = "GEOEMB_SIGLIP"
#: Tokens that a text is filled up to, as in training.
_TOKENS = 64


def siglip(texts: Sequence[str]) -> np.ndarray:
    """Vectors of unit length, float32 ``(text, 1152)``.

    Texts are in lower case and without punctuation first, as in training (Zhai et al. 2023).

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    SourceError
        If the weights are not at hand.
    """
    torch = require("torch", "text")
    tokenizer, network = _loaded(_folder())
    plain = [" ".join(re.sub(r"[^\w\s]", " ", text.lower()).split()) for text in texts]
    tokens = tokenizer(plain, padding="max_length", truncation=True, max_length=_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        found = network(input_ids=tokens["input_ids"]).pooler_output.float()
    return np.asarray(torch.nn.functional.normalize(found, dim=1).numpy(), np.float32)


def _folder() -> str:
    """The folder of the weights: the one that was named, or the hub's local or downloaded copy."""
    named = os.environ.get(FOLDER)
    if named is not None:
        if not os.path.isdir(named):
            raise SourceError(f"{FOLDER}={named!r} is not a folder: it should hold the files of {SIGLIP}")
        return named
    hub = require("huggingface_hub", "text")
    try:
        return str(hub.snapshot_download(SIGLIP, allow_patterns=["*.json", "*.model", "*.safetensors"]))
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(
            f"words need the text encoder {SIGLIP}, which could not be fetched: {error}. Fetch it where there is a "
            f"connection (hf download {SIGLIP}), and name its folder in the environment variable {FOLDER}"
        ) from error


@lru_cache(maxsize=1)
def _loaded(folder: str) -> tuple[Any, Any]:
    """The tokenizer and the network, with weights from safetensors alone."""
    transformers = require("transformers", "text")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        network = transformers.SiglipTextModel.from_pretrained(folder, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder} does not hold the text encoder {SIGLIP}: {error}") from error
    return tokenizer, network.eval()
