"""``synthvid`` as tasks of lmms-eval: ``--include_path eval/synthetic/task --tasks synthvid,synthvid_long``."""
