"""The one error type that reaches a person as a single line."""


class UserError(ValueError):
    """Something the user gave is wrong: the message is one line that names it and says how to mend it.

    The command line prints the message and exits with code 2; as a library it is an ordinary ``ValueError``.
    """
