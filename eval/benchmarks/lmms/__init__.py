"""Our side of lmms-eval: models that log every answer, and one result file per run. lmms-eval is imported on use."""
