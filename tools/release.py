"""``make release ADDRESS=https://HOST/OWNER/medveil``: what is uploaded and tagged, checked, in dist/. Uploads nothing.

The README's links lead into the repository; on a package index they would lead nowhere. So what is built is a copy of
the last commit in which they are absolute, at the tag of this version.
"""

import hashlib
import io
import posixpath
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


class Wrong(Exception):
    """What must be mended before a release, in one line."""


def main(address: str, out: Path) -> None:
    """Build into the new folder ``out``. Raises Wrong for what is out of step."""
    if not re.fullmatch(r"https://[^\s/]+/\S+[^/\s]", address):
        raise Wrong("say where the repository will be: make release ADDRESS=https://HOST/OWNER/medveil")
    if out.exists():
        raise Wrong(f"{out} exists: remove it")
    if _git("status", "--porcelain").strip():
        raise Wrong("the work tree differs from the last commit, which is what is released: commit first")
    version = version_of(ROOT)
    notes = notes_of(ROOT, version)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(_git_bytes("archive", "HEAD"))) as archive:
            archive.extractall(source, filter="tar")
        readme = source / "README.md"
        readme.write_text(absolute(readme.read_text(), address, f"v{version}"))
        with (source / "pyproject.toml").open("a") as file:
            file.write(
                f'\n[project.urls]\nSource = "{address}"\nChangelog = "{address}/blob/v{version}/CHANGELOG.md"\n'
            )
        _python("-m", "build", "--no-isolation", "--outdir", str(out.absolute()), str(source))
    files = sorted(out.iterdir())
    _python("-m", "twine", "check", "--strict", *map(str, files))
    sums = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    (out / "TAG").write_text(f"Medveil {version}\n\n{notes}\n\nSHA-256:\n\n{sums}")
    print(f"{out}: {', '.join(file.name for file in files)}, and TAG, the text of the tag")
    if "dev" in version:
        print(f"{version} is no version to publish: set medveil.__version__, CITATION.cff and CHANGELOG.md first")
    else:
        print(f"next: git tag --sign v{version} --cleanup=verbatim --file {out / 'TAG'}; twine upload {out}/medveil-*")


def version_of(root: Path) -> str:
    """The version of the project at ``root``. Raises Wrong where CITATION.cff has another."""
    (version,) = re.findall(r'^__version__ = "(.+)"$', (root / "medveil/__init__.py").read_text(), re.MULTILINE)
    (cited,) = re.findall(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    if cited != version:
        raise Wrong(f"CITATION.cff has version {cited}, medveil.__version__ is {version}")
    return str(version)


def notes_of(root: Path, version: str) -> str:
    """The first section of CHANGELOG.md: that of ``version``, with a date that CITATION.cff has too; of a development
    version the unreleased one. Raises Wrong for anything else.
    """
    _, heading, text = re.split(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), maxsplit=2, flags=re.MULTILINE)[:3]
    if "dev" in version:
        wanted = "[Unreleased]"
    else:
        dates = re.findall(r"^date-released: (\d{4}-\d\d-\d\d)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
        if len(dates) != 1:
            raise Wrong("CITATION.cff must have one date-released: YYYY-MM-DD")
        wanted = f"[{version}] - {dates[0]}"
    if heading.strip() != wanted:
        raise Wrong(f"the first heading of CHANGELOG.md must be ## {wanted}, not ## {heading.strip()}")
    return str(text).strip()


def absolute(text: str, address: str, tag: str) -> str:
    """The Markdown ``text`` of the root's README with links that lead from anywhere: to ``address`` at ``tag``."""

    def led(found: re.Match[str]) -> str:
        picture, shown, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        place = f"{address}/{'raw' if picture else 'blob'}/{tag}/{posixpath.normpath(path)}"
        return f"{picture}[{shown}]({place}{'#' + anchor if anchor else ''})"

    return _LINK.sub(led, text)


def _git(*words: str) -> str:
    return _git_bytes(*words).decode()


def _git_bytes(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


def _python(*words: str) -> None:
    if subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode != 0:
        raise Wrong(f"python {' '.join(words[:2])} failed: its last lines say why")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "", Path("dist"))
    except Wrong as wrong:
        print(f"release: {wrong}", file=sys.stderr)
        sys.exit(2)
