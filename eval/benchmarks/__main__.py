"""The commands of this room with one line each."""

from eval.instruments.commands import show_commands

if __name__ == "__main__":
    show_commands("eval.benchmarks")
