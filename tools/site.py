"""What MkDocs is told while it builds the site: linked files of other folders come along, settings become tables."""

import importlib
import posixpath
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_SETTINGS = re.compile(r"^::: settings ([\w.]+)$", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):(<(?:code|autoref|span))")


def on_files(files: Any, config: Any) -> Any:
    """Add what the pages link to outside docs/, and what that links to in turn."""
    from mkdocs.structure.files import File

    pages = list(files.documentation_pages())
    for page in pages:  # grows while it is walked through
        for _, target, _ in _LINK.findall(page.content_string):
            path = _path(page.src_uri, target)
            if path is not None and files.get_file_from_path(_place(path)) is None:
                added = File.generated(config, _place(path), abs_src_path=str(ROOT / path))
                files.append(added)
                pages += [added] if added.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where the site keeps a file, and write settings as tables."""
    here = page.file.src_uri

    def moved(found: re.Match[str]) -> str:
        path = _path(here, found[2])
        return found[0] if path is None else f"{found[1]}{_between(here, _place(path))}{found[3]}"

    return _SETTINGS.sub(lambda found: settings_table(found[1]), _LINK.sub(moved, markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Names alone where docstrings name functions as Sphinx reads them; tables that scroll with the keyboard too."""
    return _ROLE.sub(r"\1", html).replace("<table>", '<table tabindex="0">')


def settings_table(name: str) -> str:
    """The settings of the configuration ``name`` (module and class) as a Markdown table, as the flags show them."""
    from medveil.config import about_of, range_of, shown

    module, _, cls = name.rpartition(".")
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for item in fields(getattr(importlib.import_module(module), cls)):
        text = about_of(item).text
        if text:
            default = "" if item.default in (None, (), MISSING) else f"`{shown(item, item.default)}`"
            more = f" ({told})" if (told := range_of(item)) else ""
            rows.append(f"| `{item.name}` | {default} | {text.replace('|', chr(92) + '|')}{more} |")
    return "\n".join(rows)


def _path(page: str, target: str) -> str | None:
    """The file, from the root of the repository, that ``target`` on ``page`` of the site leads to; None for no file."""
    here = page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    return None if path.startswith("..") or not (ROOT / path).is_file() else path


def _place(path: str) -> str:
    """Where the site keeps the file ``path``. Code and settings are text there, whatever a browser makes of them."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}.txt" if path.endswith((".py", ".yaml", ".html", ".def")) else f"repository/{path}"


def _between(page: str, place: str) -> str:
    return posixpath.relpath(place, posixpath.dirname(page) or ".")
