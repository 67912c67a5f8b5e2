"""Prints a tree of a file system as a JSON object: each path with everything of it but its times.

    tree.py DIRECTORY

That is type, mode, owner by number and by the tree's own names, extended attributes (capabilities and access control
lists are such), the target of a link, the names of a file with several, size and the digest of the content. Of files
that two equal systems may write differently, the digest of what has to be equal all the same comes besides.
"""

import hashlib
import json
import os
import stat
import sys

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def without_days(lines):
    """shadow(5) without the day on which a password was set."""
    fields = [line.split(b":") for line in lines]
    return [b":".join(line[:2] + line[3:]) for line in fields]


# What has to be equal of a file whose bytes need not be.
ESSENCE = {"/etc/shadow": without_days, "/var/lib/dpkg/triggers/File": sorted}

# Bytecode begins with which module it is from, by time and size or by hash (PEP 552).
HEAD = 16


def tree(root):
    users, groups = names(root + "/etc/passwd"), names(root + "/etc/group")
    found, linked = {}, {}
    pending = [""]
    while pending:
        path = pending.pop()
        status = os.lstat(root + path)
        facts = found[path or "/"] = describe(root, path, status)
        facts["owner"] = f"{users.get(status.st_uid, '?')}:{groups.get(status.st_gid, '?')}"
        if stat.S_ISDIR(status.st_mode):
            pending += [f"{path}/{name}" for name in os.listdir(root + path)]
        elif status.st_nlink > 1:
            linked.setdefault((status.st_dev, status.st_ino), []).append(path)
    for paths in linked.values():
        for path in paths:
            found[path]["names"] = sorted(paths)
    return found


def names(accounts):
    with open(accounts, encoding="utf-8") as lines:
        return {int(line.split(":")[2]): line.split(":")[0] for line in lines}


def describe(root, path, status):
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    facts = {"type": kind, "mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid, "gid": status.st_gid}
    attributes = os.listxattr(root + path, follow_symlinks=False)
    facts["attributes"] = {name: os.getxattr(root + path, name, follow_symlinks=False).hex() for name in attributes}
    if kind == "file":
        facts["size"] = status.st_size
        with open(root + path, "rb") as content:
            facts["sha256"] = hashlib.file_digest(content, "sha256").hexdigest()
        if path in ESSENCE:
            with open(root + path, "rb") as content:
                lines = ESSENCE[path](content.read().splitlines())
            facts["essence"] = hashlib.sha256(b"\n".join(lines)).hexdigest()
        if path.endswith(".pyc"):
            with open(root + path, "rb") as content:
                facts["essence"] = hashlib.sha256(content.read()[HEAD:]).hexdigest()
    if kind == "symlink":
        facts["target"] = os.readlink(root + path)
    if kind.endswith("device"):
        facts["device"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
    return facts


if __name__ == "__main__":
    json.dump(tree(sys.argv[1].rstrip("/")), sys.stdout)
