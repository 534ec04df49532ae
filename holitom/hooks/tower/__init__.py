"""Hooks on the layers of a vision tower."""
