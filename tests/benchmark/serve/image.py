"""Makes an image layout with one image of layers that do not compress: DIRECTORY LAYERS BYTES-OF-EACH."""

import hashlib
import io
import json
import os
import sys
import tarfile

root, layers, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
blobs = os.path.join(root, "blobs", "sha256")
os.makedirs(blobs)


def put(data, kind):
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(blobs, digest), "wb") as file:
        file.write(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def layer(number):
    content = os.urandom(size)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(f"file-{number}")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return put(out.getvalue(), "application/vnd.oci.image.layer.v1.tar")


descriptors = [layer(number) for number in range(layers)]
config = {"architecture": "amd64", "os": "linux", "config": {}}
config["rootfs"] = {"type": "layers", "diff_ids": [descriptor["digest"] for descriptor in descriptors]}
config = put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
kind = "application/vnd.oci.image.manifest.v1+json"
manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors}
entry = put(json.dumps(manifest).encode(), kind)
entry["annotations"] = {"org.opencontainers.image.ref.name": "localhost:5100/large:v1"}
with open(os.path.join(root, "index.json"), "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
with open(os.path.join(root, "oci-layout"), "w") as file:
    file.write('{"imageLayoutVersion":"1.0.0"}')
