"""One decode step over tensors that never move, run as it is or captured once as a CUDA graph and replayed.

The step calls the decoder's own modules for everything that has weights but plain norms. Token, position and every
layer's write entry lie on the device and are advanced there, so a step asks nothing of the host, and its replay
launches one graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self

import torch
from torch import Tensor

from llava.errors import InputError
from llava.model.decode_attention import attend_to_cache
from llava.model.decode_norm import normalize
from llava.model.finite_logits import all_finite
from llava.model.static_cache import LayerGroup, PromptCache, allocate, capacities, rotate, table_length
from llava.model.static_checks import check_graphs

KEPT = 3  # idle decoders; each holds a cache as large as its prompt's, 0.4 GB for 6,300 tokens of a 7B model


class StaticDecoder:
    """Decodes one batch of prompts at a time; its tensors and graphs serve later prompts of the same layout too.

    Args:
        model: a causal model with a decoder as Qwen2's under ``model.model``.
        prompt: the first prompt; it decides the sizes.

    Attributes:
        ids: (batch, rows) int64, the new tokens.
        logits: (batch, vocabulary) fp32, those of the next token.
        sound: bool scalar, whether all logits since the prompt were finite.
        used: steps since the prompt.
    """

    def __init__(self, model: Any, prompt: PromptCache) -> None:
        self.model = model
        self.groups = allocate(prompt)
        self.layout = layout(model, prompt)
        batch, device = prompt.keys[0].shape[0], prompt.keys[0].device
        self.token = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self.step_number = torch.zeros(1, dtype=torch.long, device=device)
        self.ids = torch.zeros(batch, table_length(prompt.new_tokens), dtype=torch.long, device=device)
        self.logits = torch.zeros(batch, model.lm_head.out_features, dtype=torch.float32, device=device)
        self.sound = torch.ones((), dtype=torch.bool, device=device)
        self.used = self.room = 0
        self._graphs: dict[bool, Any] = {}

    def fits(self, wanted: tuple[Any, ...], prompt: PromptCache) -> bool:
        """Whether a prompt of a layout fits these tensors and graphs, which then read at most twice what it needs."""
        pairs = zip(capacities(prompt), self.groups, strict=False)
        return (
            self.layout == wanted
            and table_length(prompt.new_tokens) <= self.ids.shape[1]
            and all(needed <= group.capacity <= 2 * needed for needed, group in pairs)
        )

    @torch.no_grad()
    def start(self, prompt: PromptCache, logits: Tensor) -> None:
        """Begin with a prompt.

        Args:
            prompt: what :meth:`fits` agreed to.
            logits: (batch, vocabulary) of its last position.
        """
        for group in self.groups:
            group.fill(prompt, self.model.model.rotary_emb)
        self.step_number.zero_()
        self.logits.copy_(logits)
        self.sound.copy_(all_finite(self.logits))
        self.used, self.room = 0, prompt.new_tokens

    @torch.no_grad()
    def choose(self) -> None:
        """Take the best-scored token of :attr:`logits`, the earliest of equals."""
        self.put(self.logits.argmax(dim=-1))

    @torch.no_grad()
    def put(self, tokens: Tensor) -> None:
        """Make (batch,) ``tokens`` the next ones."""
        self.token.copy_(tokens[:, None])
        self.ids.index_copy_(1, self.step_number, self.token)

    @torch.no_grad()
    def step(self, greedy: bool = True, graph: bool = False) -> None:
        """Run the decoder on the chosen token; with ``greedy`` choose the next one as well.

        Args:
            greedy: see above; otherwise the caller reads :attr:`logits` and calls :meth:`put`.
            graph: replay a CUDA graph; the first call for each ``greedy`` captures it.

        Raises:
            InputError: if all entries of the cache are used, or graphs are asked for where there are none.
        """
        if self.used >= self.room:
            raise InputError(
                f"the static cache has room for {self.room} new tokens and all are used: start with more new_tokens"
            )
        if graph and greedy not in self._graphs:
            self._rehearse(lambda: self._advance(greedy))
            self._graphs[greedy] = self._capture(lambda: self._advance(greedy))
        if graph:
            self._graphs[greedy].replay()
        else:
            self._advance(greedy)
        self.used += 1

    def lengths(self) -> list[int]:
        """Entries filled in each layer."""
        return [group.prompt + self.used for group in self.groups for _ in group.layers]

    def entries(self, number: int, length: int) -> tuple[Tensor, Tensor]:
        """Copies of the first entries of one layer, each (batch, kv_heads, length, head_dim)."""
        group = next(group for group in self.groups if number in group.layers)
        at, batch = number - group.layers[0], self.token.shape[0]
        keys, values = (whole[at][:, :length].unflatten(0, (batch, -1)) for whole in (group.keys, group.values))
        return keys.clone(), values.clone()

    def _advance(self, greedy: bool) -> None:
        """One step: launches only, nothing is asked of the host."""
        decoder = self.model.model
        hidden = decoder.embed_tokens(self.token)[:, 0]
        for group in self.groups:
            rotary = group.open_slot(self.step_number)
            for number, keys, values in zip(group.layers, group.keys, group.values, strict=True):
                hidden = _layer(decoder.layers[number], hidden, rotary, keys, values, group)
        self.logits.copy_(self.model.lm_head(normalize(decoder.norm, hidden)))
        self.sound.logical_and_(all_finite(self.logits))
        for counter in (self.step_number, *(group.slot for group in self.groups)):
            counter.add_(1)
        if greedy:
            self.choose()

    def _rehearse(self, run: Callable[[], None]) -> None:
        """Run twice beside the current stream, as a capture needs; what changed is put back.

        The two entries behind the prompt stay written: the mask hides them until they are written again.
        """
        device = self.token.device
        changing = [self.token, self.step_number, self.ids, self.logits, self.sound]
        changing += [tensor for group in self.groups for tensor in (group.slot, group.bias)]
        saved = [tensor.clone() for tensor in changing]
        with _side_stream(device):
            for _ in range(2):
                run()
        for tensor, before in zip(changing, saved, strict=True):
            tensor.copy_(before)

    def _capture(self, run: Callable[[], None]) -> Any:
        """``run`` as a CUDA graph; capturing executes nothing.

        Raises:
            InputError: without CUDA.
        """
        check_graphs(self.token.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may take memory meanwhile
            run()
        return graph


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    """A stream of its own on a GPU, in order with the current one; nothing elsewhere."""
    if device.type != "cuda":
        yield
        return
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def _layer(
    layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, group: LayerGroup
) -> Tensor:
    """One decoder layer on one token per row, (batch, dim)."""
    attention, states = layer.self_attn, normalize(layer.input_layernorm, hidden)
    query, key, value = (
        projection(states).unflatten(-1, (-1, attention.head_dim))
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    rotated = rotate(torch.cat([query, key], dim=1), *rotary)
    query, key = rotated.split([query.shape[1], key.shape[1]], dim=1)
    keys.index_copy_(1, group.slot, key.reshape(-1, 1, attention.head_dim))
    values.index_copy_(1, group.slot, value.reshape(-1, 1, attention.head_dim))
    hidden = hidden + attention.o_proj(attend_to_cache(query, keys, values, group.bias, attention.scaling))
    return hidden + layer.mlp(normalize(layer.post_attention_layernorm, hidden))


def layout(model: Any, prompt: PromptCache) -> tuple[Any, ...]:
    """What tensors and graphs of a decoder depend on beside lengths: equal means they can be used again.

    The addresses of the weights are part of it, since a graph reads them where they were when it was captured.
    """
    like = prompt.keys[0]
    weights = tuple(parameter.data_ptr() for part in (model.model, model.lm_head) for parameter in part.parameters())
    return like.shape[:2], like.dtype, like.device, torch.is_inference_mode_enabled(), prompt.groups(), weights


class IdleDecoder:
    """Keeps the decoders of the latest prompts for the next ones. A copy of the model starts without any.

    Prompts that alternate, such as those of a model with and without compression, so find their tensors and graphs
    again; what is kept is bounded by :data:`KEPT`, and the one unused for longest goes first.
    """

    def __init__(self) -> None:
        self._decoders: list[StaticDecoder] = []  # the latest last
        self._lock = Lock()

    def take(self, model: Any, prompt: PromptCache) -> StaticDecoder:
        """An idle decoder that ``prompt`` fits, else a new one; it is the caller's alone until it is given back."""
        wanted = layout(model, prompt)
        with self._lock:
            # where the weights moved away from a decoder, no prompt will fit it again
            self._decoders[:] = [decoder for decoder in self._decoders if decoder.layout[-1] == wanted[-1]]
            for place in reversed(range(len(self._decoders))):
                if self._decoders[place].fits(wanted, prompt):
                    return self._decoders.pop(place)
            del self._decoders[: -KEPT + 1 or None]  # its memory is free before the next one takes its own
        return StaticDecoder(model, prompt)

    def give_back(self, decoder: StaticDecoder) -> None:
        """Keep a decoder; beyond :data:`KEPT` the one unused for longest is dropped."""
        with self._lock:
            self._decoders.append(decoder)
            del self._decoders[:-KEPT]

    def clear(self) -> None:
        """Free the tensors and graphs."""
        with self._lock:
            self._decoders.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()
