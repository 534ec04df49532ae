"""LLaVA-OneVision and LLaVA-Video on transformers' SigLIP and Qwen2, behind the import surface of LLaVA-NeXT."""

from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

__all__ = ["RUNTIME_OF", "LlavaQwenConfig", "LlavaQwenForCausalLM"]

RUNTIME_OF = "holitom"  # tells it from other packages of this name, see holitom.errors
