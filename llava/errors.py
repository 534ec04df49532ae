"""Errors a user can cause and mend; command lines turn them into one line and exit status 2."""


class InputError(ValueError):
    """A user's mistake: the message names the value, the bound it breaks and the remedy."""


class VideoError(InputError):
    """A video file that cannot be read as a whole video."""


class CheckpointError(InputError):
    """A checkpoint folder that is missing, incomplete or of another architecture."""
