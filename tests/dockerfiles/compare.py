"""Compares an image of a layout with one that buildah pushed as `dir:`: the configuration, and every path's type, mode,
owner, link, attributes and content. Prints what differs, a line each. Reads layers with Python's tarfile only.

    compare.py LAYOUT REFERENCE DIR
"""

import hashlib
import json
import os
import posixpath
import sys
import tarfile

# What buildah leaves in an image in which it ran something: places for its mounts. We leave none.
MOUNT_POINTS = {
    "/dev", "/proc", "/sys", "/run", "/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/secrets",
    "/run/.containerenv", "/tmp", "/var", "/var/tmp",
}

# What is about the machine that made an image, or that only docker's own builder fills.
NOT_COMPARED = {
    "Hostname", "Domainname", "Image", "AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "StdinOnce", "Tty",
    "ArgsEscaped", "NetworkDisabled", "MacAddress",
}


def documents(path, reference):
    if not os.path.exists(os.path.join(path, "index.json")):
        with open(os.path.join(path, "manifest.json")) as file:
            manifest = json.load(file)
        return manifest, lambda digest: os.path.join(path, digest.split(":")[1])
    blob = lambda digest: os.path.join(path, "blobs", "sha256", digest.split(":")[1])
    with open(os.path.join(path, "index.json")) as file:
        entries = json.load(file)["manifests"]
    name = "org.opencontainers.image.ref.name"
    entry = next(entry for entry in entries if entry.get("annotations", {}).get(name) == reference)
    with open(blob(entry["digest"])) as file:
        return json.load(file), blob


def clean(name):
    return posixpath.normpath("/" + name.lstrip("/"))


def described(archive, entry):
    mode = "" if entry.issym() else "%04o" % (entry.mode & 0o7777)
    owner = "%d:%d" % (entry.uid, entry.gid)
    extra = sorted((key, value) for key, value in entry.pax_headers.items() if key.startswith("SCHILY.xattr."))
    if entry.isdir():
        return ("directory", mode, owner, extra)
    if entry.issym():
        return ("link", mode, owner, entry.linkname)
    if entry.isreg():
        return ("file", mode, owner, extra, hashlib.sha256(archive.extractfile(entry).read()).hexdigest()[:16])
    return ("other", mode, owner, extra)


def tree_of(manifest, blob):
    tree = {}
    for layer in manifest["layers"]:
        archive = tarfile.open(blob(layer["digest"]))
        for entry in archive:
            path = clean(entry.name)
            directory, name = posixpath.split(path)
            if name.startswith(".wh."):
                hidden = directory if name == ".wh..wh..opq" else posixpath.join(directory, name[4:])
                below = hidden.rstrip("/") + "/"
                gone = [known for known in tree if known.startswith(below)]
                if name != ".wh..wh..opq" and hidden in tree:
                    gone.append(hidden)
                for known in gone:
                    del tree[known]
                continue
            if not entry.isdir():
                for known in [known for known in tree if known.startswith(path + "/")]:
                    del tree[known]
            tree[path] = tree[clean(entry.linkname)] if entry.islnk() else described(archive, entry)
    tree.pop("/", None)
    return tree


def config_of(manifest, blob):
    with open(blob(manifest["config"]["digest"])) as file:
        document = json.load(file)
    config = {key: value for key, value in document.get("config", {}).items() if value and key not in NOT_COMPARED}
    labels = {key: value for key, value in config.get("Labels", {}).items() if not key.startswith("io.buildah.")}
    config["Labels"] = labels
    config["author"] = document.get("author")
    for key in ("architecture", "os"):
        config[key] = document.get(key)
    return {key: value for key, value in config.items() if value}


def main():
    layout, reference, theirs = sys.argv[1:4]
    ours, theirs = documents(layout, reference), documents(theirs, None)
    our_tree, their_tree = tree_of(*ours), tree_of(*theirs)
    for path in sorted(our_tree.keys() | their_tree.keys()):
        our, their = our_tree.get(path), their_tree.get(path)
        if our != their and not (our is None and path in MOUNT_POINTS):
            print(f"{path}: ours {our}, theirs {their}")
    our_config, their_config = config_of(*ours), config_of(*theirs)
    for key in sorted(our_config.keys() | their_config.keys()):
        if our_config.get(key) != their_config.get(key):
            print(f"config {key}: ours {our_config.get(key)!r}, theirs {their_config.get(key)!r}")


main()
