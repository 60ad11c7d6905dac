"""A context of llama.cpp: the sequences of an engine, and the room that they have."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from dearlite.errors import ModelFileError, OutOfMemory
from dearlite.llama.bindings import LlamaObjects, captured_log, first_error

# Tokens per call. Measured on two cores: the rate is the same from 256 to 512 and falls above and below.
BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """The context that an engine needs.

    `room` is the number of tokens of each sequence; with `shared` all sequences have it together, and may share the
    cells of a common beginning. `batch` is the largest number of tokens of a call. With `ranks` the context computes
    the rank score of whole sequences, which must then be read in one call.
    """

    room: int
    sequences: int
    shared: bool = False
    batch: int = BATCH_TOKENS
    ranks: bool = False

    def holds(self, other: Plan) -> bool:
        """True if a context of this plan serves `other`, and is not much larger."""
        alike = (self.sequences, self.shared, self.batch, self.ranks) == (
            *(other.sequences, other.shared, other.batch, other.ranks),
        )
        return alike and other.room <= self.room <= 4 * other.room


def new_context(llama: Any, objects: LlamaObjects, plan: Plan, threads: int, abort: Any) -> Any:
    """A pointer to a context of `objects.model`, with its adapter, for `plan`. `abort` is the library's callback.

    Raises OutOfMemory, and ModelFileError for an adapter that the library rejects.
    """
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_seq_max = plan.room * (1 if plan.shared else plan.sequences), plan.sequences
    params.n_batch = params.n_ubatch = plan.batch
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
    params.kv_unified = plan.shared
    params.no_perf = True
    params.abort_callback = abort
    # Set, since a file may ask for another kind of pooling.
    params.pooling_type = llama.LLAMA_POOLING_TYPE_RANK if plan.ranks else llama.LLAMA_POOLING_TYPE_NONE
    params.embeddings = plan.ranks
    with captured_log() as lines:
        context = llama.llama_init_from_model(objects.model, params)
    if not context:
        raise OutOfMemory(
            f"no room for {plan.sequences} prompts of {plan.room} tokens ({first_error(lines, 'no reason given')}): "
            "take a smaller --window, fewer --passage-tokens, or close other programs"
        )
    if objects.adapter:
        kind = llama.llama_adapter_lora_p_ctypes
        if llama.llama_set_adapters_lora(context, (kind * 1)(objects.adapter), 1, (ctypes.c_float * 1)(1.0)):
            llama.llama_free(context)
            raise ModelFileError("llama.cpp rejects this adapter: export it for this model again")
    return context
