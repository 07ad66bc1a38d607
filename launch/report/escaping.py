"""What others wrote, as text of a file that is opened by a program which would read more into it."""

from medveil.launch.errors import printable


def for_csv(text: str) -> str:
    """``text`` for a cell of a CSV file: never a formula, which a spreadsheet would run."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@", "\t", "\n")) else shown


def for_markdown(text: str) -> str:
    """``text`` as one line of Markdown that is neither a tag nor a link."""
    return printable(" ".join(text.splitlines())).replace("<", "&lt;").replace("[", "\\[")
