"""Every command of ``eval`` with one line each: ``python -m eval``; each says more with ``--help``."""

from eval.instruments.commands import show_commands

if __name__ == "__main__":
    show_commands("eval")
