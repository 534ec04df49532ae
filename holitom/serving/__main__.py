"""The folder from which ``vllm serve`` loads a checkpoint's LLM, made if it is not there; its path is printed.

vllm serve "$(python -m holitom.serving CHECKPOINT)" --enable-prompt-embeds --served-model-name decoder
"""

import sys
from pathlib import Path

from holitom.cli import Parser, user_errors
from holitom.serving.decoder_folder import decoder_folder, default_cache


@user_errors
def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder of a LLaVA-OneVision or LLaVA-Video checkpoint")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where to make it (default %(default)s)")
    options = parser.parse_args()
    sys.stdout.write(f"{decoder_folder(options.checkpoint, options.cache)}\n")


if __name__ == "__main__":
    main()
