"""Reads images with Python's own gzip, tarfile and hashlib, which share no code with what wrote them.

    tree.py LAYOUT REFERENCE   the tree that an image's layers make, one upon the other

Prints a JSON object: each path with its type, mode, owner by number and by the image's own names, size, link target and
the digest of its content. Fails if
a blob is not what its digest says, if a layer is not what its diff ID says, or if a layer is not in order.
"""

import gzip
import hashlib
import json
import os
import sys
import tarfile

KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


ACCOUNTS = ["/etc/passwd", "/etc/group"]


class Hashing:
    """A reader that hashes what passes."""

    def __init__(self, file):
        self.file = file
        self.hash = hashlib.sha256()

    def read(self, size=-1):
        data = self.file.read(size)
        self.hash.update(data)
        return data


def apply(tree, archive):
    """Puts a layer's entries onto a tree, as the image specification says."""
    lower = set(tree)
    for entry in archive:
        path = os.path.normpath("/" + entry.name)
        directory, name = os.path.split(path)
        if name == ".wh..wh..opq":
            for below in [below for below in lower if below.startswith(directory.rstrip("/") + "/")]:
                tree.pop(below, None)
            continue
        if name.startswith(".wh."):
            gone = os.path.join(directory, name[4:])
            assert gone in lower, f"{gone} is taken away, and was not there"
            for below in [below for below in lower if below == gone or below.startswith(gone + "/")]:
                tree.pop(below, None)
            continue
        if entry.islnk():
            target = os.path.normpath("/" + entry.linkname)
            assert target in tree, f"{path} is a link to {target}, which does not come before it"
            tree[path] = tree[target]
            continue
        tree[path] = facts(entry, archive)


def facts(entry, archive):
    found = {"type": KINDS[entry.type], "mode": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid}
    if entry.isreg():
        found["size"] = entry.size
        content = archive.extractfile(entry)
        if os.path.normpath("/" + entry.name) in ACCOUNTS:
            data = content.read()
            found["content"] = data.decode()
            found["sha256"] = hashlib.sha256(data).hexdigest()
        else:
            found["sha256"] = hashlib.file_digest(content, "sha256").hexdigest()
    if entry.issym():
        found["target"] = entry.linkname
    if entry.ischr() or entry.isblk():
        found["device"] = [entry.devmajor, entry.devminor]
    return found


def name_owners(tree):
    """Says who owns what by the names in the tree's own accounts."""
    users, groups = [
        {int(line.split(":")[2]): line.split(":")[0] for line in tree.get(path, {}).pop("content", "").splitlines()}
        for path in ACCOUNTS
    ]
    for found in tree.values():
        found["owner"] = f"{users.get(found['uid'], '?')}:{groups.get(found['gid'], '?')}"
    return tree


def blob(layout, digest):
    path = os.path.join(layout, "blobs", *digest.split(":"))
    with open(path, "rb") as file:
        found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    assert found == digest, f"{path} hashes to {found}"
    return path


def document(layout, digest):
    with open(blob(layout, digest), encoding="utf-8") as file:
        return json.load(file)


def image(layout, reference):
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        index = json.load(file)
    named = "org.opencontainers.image.ref.name"
    found = [entry for entry in index["manifests"] if entry.get("annotations", {}).get(named) == reference]
    assert len(found) == 1, f"{reference} is {len(found)} times in the layout"
    manifest = document(layout, found[0]["digest"])
    config = document(layout, manifest["config"]["digest"])
    diff_ids = config["rootfs"]["diff_ids"]
    assert len(diff_ids) == len(manifest["layers"]), "the configuration has as many diff IDs as there are layers"
    tree = {}
    for layer, diff_id in zip(manifest["layers"], diff_ids):
        path = blob(layout, layer["digest"])
        assert os.path.getsize(path) == layer["size"], f"{path} is not of the size that the manifest says"
        with gzip.open(path) as unpacked:
            hashing = Hashing(unpacked)
            with tarfile.open(fileobj=hashing, mode="r|") as archive:
                apply(tree, archive)
            while hashing.read(1 << 20):
                pass
        found = "sha256:" + hashing.hash.hexdigest()
        assert found == diff_id, f"{path} unpacks to {found}, and the configuration says {diff_id}"
    return tree


if __name__ == "__main__":
    json.dump(name_owners(image(*sys.argv[1:])), sys.stdout)
