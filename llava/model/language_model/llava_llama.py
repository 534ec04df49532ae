"""Configuration name of LLaVA on Llama, which lmms-eval imports; this runtime has no Llama decoder."""

from transformers import LlamaConfig


class LlavaConfig(LlamaConfig):
    """Llama's configuration under LLaVA-NeXT's model type."""

    model_type = "llava_llama"
