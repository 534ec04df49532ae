"""The folder of these definitions, for lmms-eval: ``--include_path "$(python -m holitom_eval.synthetic.task)"``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stdout.write(f"{Path(__file__).resolve().parent}\n")
