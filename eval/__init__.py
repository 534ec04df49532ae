"""What the project measures; installed, this package is called ``holitom_eval`` (see :mod:`eval.own_name`)."""

if __name__ != "eval":
    from .own_name import answer_to_eval

    answer_to_eval()
