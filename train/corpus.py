"""Builds the training corpus: packages of a Debian release -> clean, labelled, deduplicated documents.

    python train/corpus.py --work <scratch folder> [--heldout models/demo/heldout]

Reads the packages by name with `apt-get download`, unpacks them without installing, and writes
`documents.jsonl` (training) and `valid.jsonl` (never trained on) into the scratch folder, the shipped
held-out text into --heldout and the record of what was used into `train/corpus.json`.

Knows nothing of tokens. How a file becomes text is `documents.py`; which text is refused is `quality.py`.
"""

import argparse
import hashlib
import json
import subprocess
from collections import defaultdict
from pathlib import Path

from documents import readDocuments
from packages import LICENCES, PACKAGES
from quality import isCleanCode, isCleanProse, withoutRepeatedLines

PROSE = {"english", "german", "french"}
DOMAIN_BYTES = 21_000_000
HELDOUT_PER_MILLE = 16
SHIPPED_BYTES_PER_DOMAIN = {"profile": 17_000, "evaluation": 48_000}
PIECE_BYTES = (1_000, 4_500)


def hashOf(text: str) -> int:
    """A stable 64-bit hash, so that every split is a property of the text and not of the run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def isHeldOut(document: dict) -> bool:
    """Parts of a file that was too long for one document are never held out: their neighbours are trained on."""
    return "@" not in document["id"].rpartition("/")[2] and hashOf(document["id"] + "#held") % 1000 < HELDOUT_PER_MILLE


def downloadAndUnpack(name: str, work: Path) -> tuple[Path, str]:
    """Returns the folder a package was unpacked into and its version."""
    archives, unpacked = work / "debs", work / "unpacked" / name
    archives.mkdir(parents=True, exist_ok=True)
    if not list(archives.glob(f"{name}_*.deb")):
        subprocess.run(["apt-get", "download", name], cwd=archives, check=True, capture_output=True)
    archive = next(archives.glob(f"{name}_*.deb"))
    if not unpacked.exists():
        unpacked.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True)
    shown = subprocess.run(["dpkg-deb", "-f", str(archive), "Version"], check=True, capture_output=True, text=True)
    return unpacked, shown.stdout.strip()


def licenceNote(folder: Path, name: str) -> str:
    """The licence of `Files: *` and the next in the package's machine-readable copyright file."""
    if name in LICENCES:
        return LICENCES[name]
    path = folder / "usr/share/doc" / name / "copyright"
    named = []
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("License:") and (value := line[8:].strip()) and value not in named:
            named.append(value)
    return ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "") if named else f"see /usr/share/doc/{name}/copyright"


def collect(work: Path) -> tuple[list[dict], list[dict]]:
    """Returns (documents, package records). A document is {"id", "domain", "package", "text"}."""
    seen: set[int] = set()
    byDomain: dict[str, list[dict]] = defaultdict(list)
    records = []
    for source in PACKAGES:
        folder, version = downloadAndUnpack(source.name, work)
        kept = []
        for path, text in readDocuments(folder, source):
            clean = isCleanProse(text) if source.domain in PROSE else isCleanCode(text)
            key = hashOf(text)
            if clean and key not in seen:
                seen.add(key)
                kept.append({"id": f"{source.name}:{path}", "domain": source.domain, "package": source.name, "text": text})
        if source.domain in PROSE:
            kept = withoutRepeatedLines(kept)
        kept.sort(key=lambda document: hashOf(document["id"]))
        taken, used = [], 0
        for document in kept:
            if used >= source.limit:
                break
            taken.append(document)
            used += len(document["text"].encode())
        byDomain[source.domain] += taken
        records.append({"package": source.name, "version": version, "domain": source.domain, "licence": licenceNote(folder, source.name)})
        print(f"{source.domain:11} {source.name:24} {len(taken):6} documents {used / 1e6:7.2f} MB", flush=True)

    documents = []
    for domain, found in byDomain.items():
        found.sort(key=lambda document: hashOf(document["id"]))
        used = 0
        for document in found:
            if used >= DOMAIN_BYTES:
                break
            documents.append(document)
            used += len(document["text"].encode())
    return documents, records


def pieces(document: dict) -> list[dict]:
    """Cuts one held-out document into at most three pieces of 1 to 4.5 kB, at line ends, evenly spread."""
    smallest, largest = PIECE_BYTES
    cut, current, size = [], [], 0
    target = smallest + hashOf(document["id"] + "#length") % (largest - smallest)
    for line in document["text"].splitlines(keepends=True):
        length = len(line.encode())
        if current and size + length > target:
            cut.append("".join(current))
            current, size = [], 0
        current.append(line)
        size += length
    if current:
        cut.append("".join(current))
    cut = [piece.strip("\n") for piece in cut]
    cut = [piece for piece in cut if smallest * 0.9 <= len(piece.encode()) <= 5_000]
    step = max(1, len(cut) // 3)
    return [{"id": f"{document['id']}#{index}", "domain": document["domain"], "text": piece} for index, piece in enumerate(cut[::step][:3])]


def shipHeldout(heldout: list[dict], folder: Path) -> list[dict]:
    """Writes profile.jsonl and evaluation.jsonl; returns the held-out documents that neither file uses."""
    chosen = {"profile": [], "evaluation": []}
    used: dict[tuple[str, str], int] = defaultdict(int)
    rest = []
    for document in sorted(heldout, key=lambda document: hashOf(document["id"] + "#split")):
        domain, cut = document["domain"], pieces(document)
        open_ = [split for split, limit in SHIPPED_BYTES_PER_DOMAIN.items() if used[split, domain] < limit]
        if not cut or not open_:
            rest.append(document)
            continue
        split = min(open_, key=lambda split: used[split, domain] / SHIPPED_BYTES_PER_DOMAIN[split])
        chosen[split] += cut
        used[split, domain] += sum(len(piece["text"].encode()) for piece in cut)
    folder.mkdir(parents=True, exist_ok=True)
    for split, found in chosen.items():
        found.sort(key=lambda piece: hashOf(piece["id"] + "#order"))
        writeLines(folder / f"{split}.jsonl", found)
        print(f"{split}: {len(found)} pieces, {sum(len(piece['text'].encode()) for piece in found)} bytes")
    return rest


def writeLines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="scratch folder for packages and documents")
    parser.add_argument("--heldout", type=Path, default=Path("models/demo/heldout"))
    parser.add_argument("--record", type=Path, default=Path(__file__).with_name("corpus.json"))
    options = parser.parse_args()

    documents, records = collect(options.work)
    training = [document for document in documents if not isHeldOut(document)]
    heldout = [document for document in documents if isHeldOut(document)]
    valid = shipHeldout(heldout, options.heldout)
    writeLines(options.work / "documents.jsonl", training)
    writeLines(options.work / "valid.jsonl", valid)

    byPackage: dict[tuple[str, str], int] = defaultdict(int)
    byDomain: dict[str, int] = defaultdict(int)
    for document in training:
        size = len(document["text"].encode())
        byPackage[document["package"], document["domain"]] += size
        byDomain[document["domain"]] += size
    total = sum(byDomain.values())
    for record in records:
        record["bytes"] = byPackage[record["package"], record["domain"]]
    options.record.write_text(json.dumps({
        "trainingBytes": total,
        "trainingDocuments": len(training),
        "heldoutDocuments": len(heldout),
        "domains": {domain: {"bytes": size, "share": round(size / total, 4)} for domain, size in sorted(byDomain.items())},
        "packages": [record for record in records if record["bytes"]],
    }, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(training)} documents, {total / 1e6:.1f} MB;", {domain: f"{size / total:.1%}" for domain, size in byDomain.items()})


if __name__ == "__main__":
    main()
