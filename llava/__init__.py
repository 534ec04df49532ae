"""LLaVA-OneVision and LLaVA-Video on transformers' SigLIP and Qwen2, behind the import surface of LLaVA-NeXT."""

from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

__all__ = ["LlavaQwenConfig", "LlavaQwenForCausalLM"]
