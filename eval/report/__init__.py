"""One page for a reviewer, made from measured results: ``python -m eval.report results -o report/``."""
