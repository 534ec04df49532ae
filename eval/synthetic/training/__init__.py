"""Training of the tiny model: codes to aim at, vision tower, language model."""
