"""Constants of LLaVA prompts."""

IGNORE_INDEX = -100  # label that the loss leaves out
IMAGE_TOKEN_INDEX = -200  # stands in input_ids for one image or video
DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
