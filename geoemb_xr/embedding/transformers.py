"""The block that Presto's and Galileo's networks are made of; their own attention goes into it."""

from __future__ import annotations

from typing import Any

from geoemb_xr.core.errors import require


def block(attention: Any, dims: int) -> Any:
    """Attention, then two layers, each added to what came in.

    Parameters
    ----------
    attention : torch.nn.Module
        Attention of tokens ``(n, count, dims)`` and a mask ``(n, count)`` of those that are there.
    dims : int
        Length of a token.

    Returns
    -------
    torch.nn.Module
        Called as the attention is; its parts have the names that published weights have.
    """
    nn = require("torch", "encoders").nn

    class TransformerBlock(nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dims), nn.LayerNorm(dims)
            self.attn = attention
            self.mlp = nn.ModuleDict({"fc1": nn.Linear(dims, 4 * dims), "fc2": nn.Linear(4 * dims, dims)})

        def forward(self, tokens: Any, there: Any) -> Any:
            tokens = tokens + self.attn(self.norm1(tokens), there)
            inner = nn.functional.gelu(self.mlp["fc1"](self.norm2(tokens)))
            return tokens + self.mlp["fc2"](inner)

    return TransformerBlock()
