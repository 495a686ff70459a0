"""Files of an unpacked package -> (path, text) documents: source code, HTML, manual pages, dictionaries, archives.

Knows file formats only; neither domains nor quality.
"""

import gzip
import html
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packages import Package

DOCUMENT_BYTES = 60_000

LEADING_NOTICE = re.compile(r"\A\s*(?:/\*.*?\*/|(?:(?://|#|--)[^\n]*\n)+)", re.S)
NOTICE_WORDS = re.compile(r"copyright|licen[cs]e|SPDX", re.I)

HTML_DROPPED = re.compile(r"<(script|style|head|nav|header|footer|svg)\b.*?</\1\s*>|<!--.*?-->", re.S | re.I)
HTML_PRE = re.compile(r"<pre\b[^>]*>(.*?)</pre\s*>", re.S | re.I)
HTML_BLOCK = re.compile(r"</?(?:p|div|h[1-6]|li|ul|ol|dl|dt|dd|tr|table|br|section|article|hr|blockquote)\b[^>]*>", re.I)
HTML_TAG = re.compile(r"<[^>]*>")

ROFF_ESCAPES = (
    (re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)"), ""), (re.compile(r"\\s[-+]?\d+"), ""), (re.compile(r"\\(?:aq|\(aq|\[aq\])"), "'"),
    (re.compile(r"\\\((?:dq|lq|rq)"), '"'), (re.compile(r"\\\((?:bu|sq)"), "*"), (re.compile(r"\\\((?:em|en)|\\\[(?:em|en)\]"), "-"),
    (re.compile(r"\\\((?:oq|cq|ga)"), "'"), (re.compile(r"\\\((?:ti|ha)"), "~"), (re.compile(r"\\e|\\\(rs"), "\\\\"), (re.compile(r"\\-"), "-"), (re.compile(r"\\[&:%|^/,)c]"), ""),
    (re.compile(r"\\[ ~0]"), " "), (re.compile(r"\\\*\(?..|\\\*\[[^\]]*\]|\\[hvmw]'[^']*'|\\\[[^\]]*\]|\\m\[[^\]]*\]"), ""),
)
ROFF_FONT = {"B", "I", "BR", "RB", "IR", "RI", "BI", "IB", "SM", "SB"}


def splitLong(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Cuts text over 60 kB at line ends into documents of about that length."""
    if len(text) <= DOCUMENT_BYTES * 1.5:
        yield path, text
        return
    start = index = 0
    while start < len(text):
        end = text.find("\n", start + DOCUMENT_BYTES)
        end = len(text) if end < 0 else end + 1
        yield f"{path}@{index}", text[start:end]
        start, index = end, index + 1


def withoutNotice(source: str) -> str:
    """Source code without the comments at its top that only repeat a licence; the licence is recorded per package."""
    while (match := LEADING_NOTICE.match(source)) and NOTICE_WORDS.search(match.group(0)):
        source = source[match.end():]
    return source.lstrip("\n")


def fromHtml(page: str) -> str:
    page = HTML_DROPPED.sub(" ", page)
    parts = []
    for index, part in enumerate(HTML_PRE.split(page)):
        if index % 2:
            parts.append("\n" + HTML_TAG.sub("", part).strip("\n") + "\n")
        else:
            part = HTML_TAG.sub("", HTML_BLOCK.sub("\x00", part))
            lines = (" ".join(line.split()) for line in part.split("\x00"))
            parts.append("\n".join(line for line in lines if line))
    return html.unescape("\n".join(parts))


def fromManual(page: str) -> str:
    """Manual page source (roff, macros of man(7)) -> running text."""
    lines: list[str] = []
    paragraph: list[str] = []

    def endParagraph() -> None:
        if paragraph:
            lines.append(" ".join(paragraph))
            paragraph.clear()

    literal = table = False
    for line in page.splitlines():
        if line.startswith((".TS", ".TE")):
            table = line.startswith(".TS")
            continue
        if table or line.startswith(("'", '.\\"')):
            continue
        for pattern, replacement in ROFF_ESCAPES:
            line = pattern.sub(replacement, line)
        if line.startswith("."):
            macro, _, rest = line[1:].strip().partition(" ")
            words = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', rest)]
            if macro in ("SH", "SS", "TH"):
                endParagraph()
                lines.append(("\n" if macro != "SS" else "") + " ".join(words))
            elif macro in ROFF_FONT:
                joined = ("" if len(macro) == 2 and macro not in ("SM", "SB") else " ").join(words)
                (lines if literal else paragraph).append(joined)
            elif macro in ("nf", "EX"):
                endParagraph()
                literal = True
            elif macro in ("fi", "EE"):
                literal = False
            elif macro in ("PP", "P", "LP", "TP", "sp", "br", "IP", "RS", "RE", "TQ", "HP"):
                endParagraph()
                if macro == "IP" and words:
                    paragraph.append(words[0])
        elif literal:
            lines.append(line)
        elif line.strip():
            paragraph.append(line.strip())
        else:
            endParagraph()
    endParagraph()
    return "\n".join(lines)


def decode(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8").replace("\r\n", "\n").replace("\f", "")
    except UnicodeDecodeError:
        return None


def readArchive(path: Path, source: Package) -> Iterator[tuple[str, bytes]]:
    """Members of a .zip (Java) or .tar.xz (C) that lie in one of the package's folders."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".java") and any(folder in name for folder in source.folders):
                    yield name, archive.read(name)
    else:
        with tarfile.open(path, "r|xz") as archive:
            for member in archive:
                name = "/" + member.name.partition("/")[2]
                if member.isfile() and name.endswith((".c", ".h")) and name.startswith(source.folders):
                    yield name[1:], archive.extractfile(member).read()


def readDocuments(folder: Path, source: Package) -> Iterator[tuple[str, str]]:
    """Yields (path inside the package, text) for every file the package entry asks for, in sorted order."""
    for path in sorted(folder.rglob("*")):
        name = "/" + str(path.relative_to(folder))
        if path.is_symlink() or not path.is_file() or not name.endswith(source.suffixes):
            continue
        isArchive = name.endswith((".zip", ".tar.xz"))
        if isArchive:
            for member, raw in readArchive(path, source):
                if (text := decode(raw)) is not None:
                    yield from splitLong(member, withoutNotice(text))
            continue
        if source.folders and not any(part in name for part in source.folders):
            continue
        raw = gzip.decompress(path.read_bytes()) if name.endswith((".gz", ".dz")) else path.read_bytes()
        text = raw.decode("utf-8", "ignore") if name.endswith(".dz") else decode(raw)
        if text is None:
            continue
        if name.endswith(".gz"):
            if "/man/" not in name:
                continue
            text = fromManual(text)
        elif name.endswith(".html"):
            text = fromHtml(text)
        elif not name.endswith(".dz"):
            text = withoutNotice(text)
        yield from splitLong(name[1:], text)
