"""Check that the links in the Markdown files lead somewhere: `python scripts/check_links.py`.

Links to other sites are not followed: a check must not fail because somebody else's server is away.
"""

import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

SKIPPED_FOLDERS = {"node_modules", "build", "dist"}  # and those that begin with a dot

FENCE = re.compile(r"^(?P<fence>\s*(?:```+|~~~+)).*?^(?P=fence)[`~]*\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
TARGETS = (
    re.compile(r"\]\(\s*<(?P<target>[^>\n]*)>"),  # [text](<target with spaces>)
    re.compile(
        r"\]\(\s*(?P<target>[^\s<()]*(?:\([^\s()]*\)[^\s()]*)*)"
    ),  # [text](target "title"), images too
    re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(?P<target>[^\s>]+)", re.MULTILINE),  # [label]: target
    re.compile(r"<(?:a|img|source)\s[^>]*?(?:href|src)=\"(?P<target>[^\"]*)\""),
)
HEADING = re.compile(
    r"^ {0,3}#{1,6}\s+(?P<title>.+?)(?:\s+#+)?\s*$|^(?P<underlined>\S.*)\n(?:=+|-+)\s*$", re.MULTILINE
)
ANCHOR = re.compile(r"<[^>]+\s(?:id|name)=\"(?P<anchor>[^\"]+)\"")
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def main() -> int:
    root = Path.cwd()
    files = sorted(_markdown_files(root))
    problems = [problem for file in files for problem in _broken_links(file, root)]
    for problem in problems:
        print(problem)
    print(f"links: {len(files)} files, {len(problems)} broken links")
    return 1 if problems else 0


def _markdown_files(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name for name in subfolders if name not in SKIPPED_FOLDERS and not name.startswith(".")
        ]
        yield from (Path(folder, name) for name in names if name.endswith(".md"))


def _broken_links(file: Path, root: Path) -> Iterator[str]:
    text = _without_code(file.read_text(encoding="utf-8"))
    for pattern in TARGETS:
        for match in pattern.finditer(text):
            if problem := _problem(match["target"], file, root):
                line = text.count("\n", 0, match.start("target")) + 1
                yield f"{file.relative_to(root)}:{line}: {match['target']} {problem}"


def _problem(target: str, file: Path, root: Path) -> str | None:
    """What is wrong with a link, None if it leads somewhere or to another site."""
    if SCHEME.match(target) or target.startswith("//"):
        return None
    path, _, anchor = unquote(target).partition("#")
    destination = (file.parent / path).resolve() if path else file
    if not destination.is_relative_to(root):
        return "leads out of the checkout"
    if not destination.exists():
        return "does not exist"
    if anchor and destination.suffix == ".md" and anchor not in _anchors(destination):
        return "has no such heading"
    return None


@cache
def _anchors(file: Path) -> frozenset[str]:
    """What a link may name in a file: its headings, as GitHub spells them, and its HTML anchors."""
    text = FENCE.sub("", file.read_text(encoding="utf-8"))
    anchors = {match["anchor"] for match in ANCHOR.finditer(text)}
    seen: dict[str, int] = {}
    for match in HEADING.finditer(text):
        slug = _slug(match["title"] or match["underlined"])
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return frozenset(anchors)


def _slug(title: str) -> str:
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)  # of a link its text
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")


def _without_code(text: str) -> str:
    """The same text with code and comments blanked, line numbers kept."""
    for pattern in (FENCE, COMMENT, CODE):
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    return text


if __name__ == "__main__":
    sys.exit(main())
