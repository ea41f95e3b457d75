"""What all attention layers share: projections, layouts, and attention over a band of keys.

Inside, tokens are ``(B, n, E)`` and heads ``(B, H, n, D)``. State keeps projected tokens, so that every token is projected once. The
query, the key and the value of a token lie side by side in one ring, so that a step copies the window once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.naming import named
from ...core.registry import TorchLayer
from ...core.state import StateNode, StepSpec, Wire, rewire
from ...core.step_spec import Inputs
from ...errors import NotStreamable, ShapeMismatch
from ..local import check_home, parameter
from ..native import attention, product

_LAYOUTS = ("(L, N, E)", "(N, L, E)", "(N, E, L)")  # by the dimension that is time
Heads = tuple[Tensor, Tensor, Tensor]  # queries, keys, values (B, H, n, D)


class Attention(TorchLayer, nn.MultiheadAttention):  # type: ignore[misc]
    """Base class: an ``nn.MultiheadAttention``, with its parameters and names, on a stream of tokens.

    A step is ``(N, E)``. A clip is laid out as ``torch.nn`` has it, ``(L, N, E)`` or with ``batch_first`` ``(N, L, E)``, or with
    ``embed_dim_second`` as everywhere in this library, ``(N, E, L)``: in containers it must be that.
    """

    runs_kernel = True
    sequence_len = 0
    embed_dim_second = False
    _cache: tuple[Any, Any] | None = None
    _prepared = frozenset({"_cache"})
    window_mask: Tensor | None  # (L, L), added to the scores of every window

    def _construct(self, first: tuple[Any, ...], sequence_len: int | None, **own: Any) -> None:
        """Set up the ``torch.nn`` module, with its own arguments, and then the stream."""
        init: Any = super().__init__
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype = first
        init(embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype)
        self.configure(sequence_len, **own)

    def configure(self, sequence_len: int | None = None, embed_dim_second: bool = False) -> None:
        """Set the window and the layout."""
        if sequence_len is None or int(sequence_len) < 1:
            raise ValueError(
                f"{type(self).__name__} attends to a window of tokens: give its length as sequence_len=…, at least 1 (got {sequence_len})"
            )
        self.sequence_len, self.embed_dim_second = int(sequence_len), embed_dim_second
        self.register_buffer("window_mask", None, persistent=False)
        self._set_time_dim(2 if embed_dim_second else 1 if self.batch_first else 0)

    def _set_mask(self, mask: Tensor | None) -> None:
        """Give the mask ``(L, L)`` of a window, as ``torch.nn`` means it: ``True`` hides, a float is added to the scores."""
        if mask is None:
            return
        size = (self.sequence_len, self.sequence_len)
        if tuple(mask.shape) != size:
            raise ShapeMismatch(
                f"{type(self).__name__}: a mask for windows of {size[0]} tokens is {size}, got {tuple(mask.shape)}. A mask for a whole "
                "clip is representable only if it is the same band everywhere: give causal=True instead"
            )
        like = self.out_proj.weight
        added = torch.zeros(size, dtype=like.dtype, device=like.device)
        added = added.masked_fill(mask.to(like.device), -math.inf) if mask.dtype == torch.bool else mask.to(added)
        if bool((added == -math.inf).all(1).any()):
            raise ValueError(f"{type(self).__name__}: the mask hides every key from some query, so there is nothing to attend to")
        self.window_mask = added

    # ---- inputs ---------------------------------------------------------------------------------------------------------

    def wire(self, query: Any, key: Tensor | None, value: Tensor | None) -> Wire:
        """What the kernel takes: one stream that attends to itself, or queries, keys and values side by side."""
        if key is None and value is None:
            return query
        if isinstance(key, bool) or isinstance(value, bool):
            raise TypeError(f"{type(self).__name__} takes (query, key, value); give pad_end and update_state by name")
        if key is None:
            raise TypeError(f"{type(self).__name__} got values without keys")
        return [query, key, key if value is None else value]

    def forward_step(  # type: ignore[override]
        self, query: Inputs, key: Tensor | None = None, value: Tensor | None = None, update_state: bool = True
    ) -> Tensor | None:
        """One token of each stream, ``(N, E)``; with one argument it attends to itself."""
        wire: Any = self.wire(query, key, value)
        return cast(Tensor | None, super().forward_step(wire, update_state))

    def forward_steps(  # type: ignore[override]
        self,
        query: Inputs,
        key: Tensor | None = None,
        value: Tensor | None = None,
        pad_end: bool = False,
        update_state: bool = True,
    ) -> Tensor | None:
        """A chunk of tokens of each stream, in the layout of clips; with one argument it attends to itself."""
        wire: Any = self.wire(query, key, value)
        return cast(Tensor | None, super().forward_steps(wire, pad_end, update_state))

    def tokens(self, clip: Wire) -> Wire:
        """Clips in the module's layout as tokens ``(B, n, E)``."""
        if not isinstance(clip, (list, tuple)) and clip.ndim != 3:
            raise ShapeMismatch(f"{type(self).__name__} takes batched clips {_LAYOUTS[self.time_dim]}, got {tuple(clip.shape)}")
        return rewire(lambda t: t.movedim(self.time_dim, 2).transpose(1, 2), clip)

    def _by_token(self, x: Wire | None) -> Wire | None:
        """Chunks ``(B, E, n)`` as tokens ``(B, n, E)``."""
        return None if x is None else rewire(lambda t: t.transpose(1, 2), x)

    def clip(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, n, E)`` in the module's layout."""
        return tokens.transpose(1, 2).movedim(2, self.time_dim)

    def check(self, frame: Any, path: str) -> StepSpec:
        """Refuse steps that the layer can't take; return the frame that leaves."""
        name, specs = named(path, self), frame if isinstance(frame, list) else [frame] * 3
        sizes = (self.embed_dim, self.kdim, self.vdim)
        if len(specs) != 3 or any(isinstance(f, list) for f in specs):
            raise ShapeMismatch(f"{name}: takes one stream, or three (queries, keys, values), got {len(specs)}")
        for what, f, size in zip(("query", "key", "value"), specs, sizes, strict=True):
            if len(f.shape) != 2 or f.shape[1] != size:
                alone = not isinstance(frame, list) and sizes != (self.embed_dim,) * 3
                more = ". Its kdim and vdim need streams of their own: give query, key and value" if alone else ""
                raise ShapeMismatch(f"{name}: expects {what} steps (N, {size}), got {tuple(f.shape)}{more}")
            check_home(self.out_proj.weight, f, name, mixed=torch.is_autocast_enabled(f.device.type))
        found: StepSpec = specs[0]
        return found

    # ---- projections ----------------------------------------------------------------------------------------------------

    def pack(self, x: Wire) -> Tensor:
        """Tokens ``(…, E)``, or a list of three, to their queries, keys and values side by side: ``(…, 3E)``."""
        bias = parameter(self, "in_proj_bias")
        if self._qkv_same_embed_dim:
            weight = parameter(self, "in_proj_weight")
            if isinstance(x, Tensor):
                return product.linear(x, weight, bias)
            weights = weight.chunk(3)
        else:
            weights = [parameter(self, name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        inputs: Sequence[Any] = (x, x, x) if isinstance(x, Tensor) else x
        return torch.cat([product.linear(t, w, b) for t, w, b in zip(inputs, weights, biases, strict=True)], -1)

    def split(self, packed: Tensor, parts: int = 3) -> tuple[Tensor, ...]:
        """What lies side by side, ``(B, n, parts * E)``, as heads ``(B, H, n, D)`` each."""
        batch, count, _ = packed.shape
        return packed.view(batch, count, parts, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)

    def project(self, x: Wire) -> Heads:
        """Tokens ``(B, n, E)``, or a list of three, to queries, keys and values ``(B, H, n, D)``."""
        q, k, v = self.split(self.pack(x))
        return q, k, v

    def ask(self, x: Tensor, place: int) -> Tensor:
        """One token's attention to all tokens ``(B, n, E)``, itself among them: ``(B, E)``, before the output projection.

        Keys and values need not be made: ``q · (W x) = (Wᵀ q) · x``, and the mean of the values is the value of the mean. This is
        a head's size times less work than to project all tokens for one that asks.
        """
        mask = self._mask_row(place)
        if self.constants or self.training or not self._qkv_same_embed_dim:
            q, k, v = self.project(x)
            return self.attend(q[:, :, place : place + 1], k, v, mask).squeeze(1)
        weight, bias, keys, values, value_bias = self._parts()
        q = product.linear(x[:, place], weight, bias).view(-1, self.num_heads, 1, self.head_dim)
        asked = torch.matmul(q, keys).transpose(1, 2)  # (B, 1, H, E); a key's bias adds the same to all scores
        x = x.unsqueeze(1)
        mean = attention.scaled_dot_product_attention(asked, x, x, mask, scale=self.head_dim**-0.5)  # (B, 1, H, E)
        y = torch.matmul(mean.transpose(1, 2), values).flatten(1)
        return y if value_bias is None else y + value_bias

    def _parts(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None]:
        """Views of the packed weight and bias: those of queries, keys, values (transposed), and the bias of the values."""
        weight, bias, size = parameter(self, "in_proj_weight"), parameter(self, "in_proj_bias"), self.embed_dim
        kept = not torch.is_grad_enabled() and isinstance(weight, nn.Parameter)
        home = (weight.data_ptr(), 0 if bias is None else bias.data_ptr()) if kept else None
        if kept and self._cache is not None and self._cache[0] == home:
            return self._cache[1]
        by_head = weight.view(3, self.num_heads, self.head_dim, size)
        biases = (None, None) if bias is None else (bias[:size], bias[2 * size :])
        parts = (weight[:size], biases[0], by_head[1], by_head[2].transpose(1, 2), biases[1])
        if kept:  # views see changes in place, and hold the memory that they are found by
            self.__dict__["_cache"] = (home, parts)
        return parts

    def _with_constants(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append the keys and values that every query sees: ``add_bias_kv``, ``add_zero_attn``."""
        if not self.constants:
            return k, v, mask
        shape = (*k.shape[:-2], 1, k.shape[-1])
        keys, values = [k], [v]
        if self.bias_k is not None and self.bias_v is not None:
            for projected, constant in ((keys, self.bias_k), (values, self.bias_v)):
                projected.append(constant.view(self.num_heads, 1, self.head_dim).expand(shape))
        if self.add_zero_attn:
            keys.append(k.new_zeros(shape))
            values.append(k.new_zeros(shape))
        if mask is not None:
            mask = F.pad(mask, (0, len(keys) - 1), value=True if mask.dtype == torch.bool else 0.0)
        return torch.cat(keys, -2), torch.cat(values, -2), mask

    @property
    def constants(self) -> int:
        """How many keys every query sees beside those of the window."""
        return (parameter(self, "bias_k") is not None) + bool(self.add_zero_attn)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of heads ``(B, H, n, D)``, merged to ``(B, n, E)``. In a mask ``True`` lets a key be seen."""
        k, v, mask = self._with_constants(k, v, mask)
        y = attention.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return y.transpose(1, 2).flatten(2)

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attention weights of heads ``(…, H, n, D)``, mean over heads: ``(…, n, m)``."""
        k, _, mask = self._with_constants(k, k, mask)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)
        return (scores if mask is None else scores + mask).softmax(-1).mean(-3)

    def leave(self, attended: Tensor) -> Tensor:
        """The output projection."""
        own = self._modules["out_proj"]
        return product.linear(attended, parameter(own, "weight"), parameter(own, "bias"))  # type: ignore[arg-type]

    def whole(self, x: Wire) -> Tensor:
        """Attention of all tokens ``(B, n, E)`` to all, as ``torch.nn`` has it, before the output projection."""
        return self.of_packed(self.pack(x))

    def of_packed(self, packed: Tensor) -> Tensor:
        """The same of queries, keys and values side by side, ``(B, n, 3E)``."""
        q, k, v = self.split(packed)
        return self.attend(q, k, v, self._mask_for(q.shape[2]))

    def _mask_row(self, place: int) -> Tensor | None:
        """What one token of a window may see, ``(1, L)``."""
        return None if self.window_mask is None else self.window_mask[place].unsqueeze(0)

    def _mask_for(self, count: int) -> Tensor | None:
        if self.window_mask is not None and count != self.sequence_len:
            raise ShapeMismatch(
                f"{type(self).__name__}: its mask is for windows of {self.sequence_len} tokens, the clip has {count}"
            )
        return self.window_mask

    def _full_forward(self, clip: Wire, need_weights: bool) -> Any:
        """``torch.nn``'s computation on a clip of any length, in the module's layout."""
        x = self.tokens(clip)
        q, k, v = x if isinstance(x, list) else (x, x, x)
        return self._as_torch(q, k, v, self._mask_for(cast(Tensor, k).shape[1]), need_weights)

    def _as_torch(self, q: Any, k: Any, v: Any, mask: Tensor | None, need_weights: bool) -> Any:
        """``torch.nn``'s own code on tokens ``(B, n, E)``, so that its numbers are those of ``torch.nn`` to the last bit."""
        if not self.batch_first:
            turned = {id(t): t.transpose(0, 1) for t in (q, k, v)}
            q, k, v = (turned[id(t)] for t in (q, k, v))
        y, weights = nn.MultiheadAttention.forward(self, q, k, v, need_weights=need_weights, attn_mask=mask)
        y = self.clip(y if self.batch_first else y.transpose(0, 1))
        return (y, weights) if need_weights else y

    # ---- accounting -----------------------------------------------------------------------------------------------------

    _queries_per_step = 1  # how many rows of the window are attended again with every token

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        return self._products()

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        return 0 if self.in_proj_bias is None else 3 * self.embed_dim

    def macs_of_clip(self, node: StateNode, frame: StepSpec, n_in: int, n_out: int) -> int:
        queries, keys = self._queries_per_step, self.sequence_len + self.constants
        if queries > 1:  # window by window
            return n_out * self._multiply_adds(self.sequence_len, queries, keys)
        return self._multiply_adds(n_in if n_out else 0, n_out, keys)

    def _products(self) -> int:
        return self._multiply_adds(1, self._queries_per_step, self.sequence_len + self.constants)

    def _multiply_adds(self, tokens: int, queries: int, keys: int) -> int:
        """Of so many tokens' projections, and of so many queries with so many keys each."""
        projections = tokens * self.embed_dim * (self.embed_dim + self.kdim + self.vdim)
        return projections + queries * (2 * keys * self.embed_dim + self.embed_dim**2)

    def _macs_of_call(self, x: Any, y: Any) -> int:
        """Multiply-adds of a call that took ``x`` and returned ``y``, both in the module's layout, for counters of operations."""
        x, y = (t[0] if isinstance(t, (tuple, list)) else t for t in (x, y))
        rows, n_in = self._rows(x), 1 if x.ndim == 2 else x.shape[self.time_dim]
        if y is None:  # tokens are projected, and wait
            return rows * self._multiply_adds(n_in, 0, 0)
        keys, n_returned = self.sequence_len + self.constants, n_in
        per_query = self._queries_per_step
        if per_query > 1 and y.ndim == x.ndim:  # all tokens of a clip attend to all
            keys, per_query = n_in + self.constants, 1
        elif y.ndim > 2:
            n_returned = 1 if per_query > 1 and y.ndim == 3 else y.shape[self.time_dim]
        return rows * self._multiply_adds(n_in, n_returned * per_query, keys)

    def _rows(self, x: Tensor) -> int:
        return x.shape[1] if x.ndim == 3 and self.time_dim == 0 else x.shape[0]

    def flops(self, include_muls: bool = True, include_adds: bool = False, include_exps: bool = False) -> int:
        """Operations of one step of one row: projections, scores, softmax, weighted values and output projection.

        Args:
            include_muls: multiplications and divisions.
            include_adds: additions, one for each multiply-add; comparisons count as such.
            include_exps: exponentials.

        Example:
            >>> co.SingleOutputMultiheadAttention(8, 2, sequence_len=4).flops()
            336
        """
        rows, keys = self._queries_per_step, self.sequence_len + self.constants
        products, softmax = self._products(), rows * keys * self.num_heads
        muls = products + rows * self.embed_dim + softmax  # the queries are scaled, the exponentials divided by their sum
        adds = products + 3 * softmax  # maximum, its subtraction, sum
        return include_muls * muls + include_adds * adds + include_exps * softmax

    @property
    def kind(self) -> str:
        masked = "" if self.window_mask is None else ", masked"
        return f"{type(self).__name__} {self.timing}, {self.num_heads} heads, {self.constants} constants{masked}"

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, sequence_len={self.sequence_len}, clips {_LAYOUTS[self.time_dim]}"


def in_order(ring: Tensor, n_in: int, last: Tensor) -> Tensor:
    """All tokens of a full ring ``(B, L, C)``, from the oldest on, and one more ``(B, C)``."""
    position, last = n_in % ring.shape[1], last.unsqueeze(1)
    if position == 0:
        return torch.cat((ring, last), 1)
    return torch.cat((ring[:, position:], ring[:, :position], last), 1)


def refuse_unbounded(name: str) -> NotStreamable:
    """Attention without a window."""
    return NotStreamable(
        f"{name} attends to all tokens of a clip, which in a stream have no end. Say over how many it shall attend: "
        "co.continual(…, sequence_len=…) attends to the newest so many, as the module does on clips of that length; with causal=True "
        "every layer attends to so many tokens up to its own, as the module does with a causal band for a mask"
    )
