"""The images of a benchmark: a part of the family as drystone reads it, and the same images as Dockerfiles."""

import base64
import json
import os
import shutil

import yaml

# What of the specs Debian does not have; the real packages are the vendor's, and apt could not install the stand-ins.
NOT_DEBIAN = {"python-contrail", "contrail-lib", "contrail-nova-driver", "nova-cert", "nova-consoleauth"}

# Images that need more of the vendor's than a few packages are left out of --full, with all that is built on them.
VENDOR = {"analytics", "cassandra", "config", "control", "ifmap", "vrouter-agent", "webui", "zookeeper", "neutron-server",
          "nova-compute", "glance-registry"}


class Image:
    """An image as both tools build it."""

    def __init__(self, name, spec, directory):
        self.name, self.spec, self.directory = name, spec, directory

    @property
    def parent(self):
        return self.spec["from"]


def read(specs, wanted):
    """Reads the wanted images of a family and all that they are built on, parents first."""
    images = {}

    def add(name):
        if name == "scratch" or name in images:
            return
        directory = os.path.join(specs, name)
        with open(os.path.join(directory, "image.yaml"), encoding="utf-8") as file:
            spec = yaml.safe_load(file)
        lacking = NOT_DEBIAN & set(spec.get("packages", []))
        if lacking:
            spec["packages"] = [package for package in spec["packages"] if package not in NOT_DEBIAN]
            # What it runs is about these packages.
            spec.pop("run", None)
        add(spec["from"])
        images[name] = Image(name, spec, directory)

    for name in wanted:
        add(name)
    return list(images.values())


def all_images(specs):
    """The images of a family that need no more of the vendor's than single packages."""
    def root(name):
        with open(os.path.join(specs, name, "image.yaml"), encoding="utf-8") as file:
            parent = yaml.safe_load(file)["from"]
        return name in VENDOR or (parent != "scratch" and root(parent))

    names = sorted(name for name in os.listdir(specs) if os.path.isfile(os.path.join(specs, name, "image.yaml")))
    return [name for name in names if not root(name)]


def write_family(images, specs, target):
    """Writes the family for drystone. JSON is YAML."""
    shutil.rmtree(target, ignore_errors=True)
    keyrings = os.path.join(os.path.dirname(target), "keyrings")
    shutil.copytree(os.path.join(specs, "../keyrings"), keyrings, dirs_exist_ok=True)
    with open(os.path.join(specs, "family.yaml"), encoding="utf-8") as file:
        family = yaml.safe_load(file)
    family["sources"].pop("contrail")
    family.pop("vars")
    family["defaults"]["sources"] = ["debian"]
    os.makedirs(target)
    with open(os.path.join(target, "family.yaml"), "w", encoding="utf-8") as file:
        json.dump(family, file, indent=1)
    for image in images:
        shutil.copytree(image.directory, os.path.join(target, image.name))
        with open(os.path.join(target, image.name, "image.yaml"), "w", encoding="utf-8") as file:
            json.dump(image.spec, file, indent=1)
    if os.path.isdir(os.path.join(specs, "common")):
        shutil.copytree(os.path.join(specs, "common"), os.path.join(target, "common"), dirs_exist_ok=True)


def write_contexts(images, family, target, registry):
    """Writes a directory with a Dockerfile for each image; `family` is what `write_family` wrote."""
    shutil.rmtree(target, ignore_errors=True)
    by_name = {image.name: image for image in images}
    for image in images:
        context = os.path.join(target, image.name)
        os.makedirs(context)
        with open(os.path.join(context, "Dockerfile"), "w", encoding="utf-8") as file:
            file.write("\n".join(dockerfile(image, by_name, family, context, registry)) + "\n")


def dockerfile(image, by_name, family, context, registry):
    spec = image.spec
    if image.parent == "scratch":
        # Debian's own image has this too: packages' scripts start no services.
        policy = "RUN printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
        lines = ["FROM scratch", "ADD rootfs.tar /", policy]
    else:
        lines = [f"FROM {registry}/{image.parent}:bench"]
        lines += [shell(command) for command in by_name[image.parent].spec.get("on_build", [])]
        if spec.get("packages"):
            packages = " ".join(spec["packages"])
            # Some scripts ask for the address of the machine's name, which buildah gives a name that has none.
            lines.append(
                "RUN echo 127.0.0.1 $(hostname) >>/etc/hosts && apt-get update -q && DEBIAN_FRONTEND=noninteractive"
                f" apt-get install -qy --no-install-recommends {packages}"
                " && apt-get clean && rm -rf /var/lib/apt/lists/*"
            )
    for number, entry in enumerate(spec.get("files", [])):
        lines += file_lines(entry, number, os.path.join(family, image.name), context)
    lines += [shell(command) for command in spec.get("run", [])]
    lines += [f"ENV {name}={json.dumps(str(value))}" for name, value in spec.get("env", {}).items()]
    lines += [f"LABEL {json.dumps(name)}={json.dumps(str(value))}" for name, value in spec.get("labels", {}).items()]
    lines += [f"EXPOSE {port}" for port in spec.get("expose", [])]
    lines += [f"VOLUME {json.dumps([path])}" for path in spec.get("volumes", [])]
    for key, instruction in [("workdir", "WORKDIR"), ("user", "USER")]:
        if key in spec:
            lines.append(f"{instruction} {spec[key]}")
    for key, instruction in [("entrypoint", "ENTRYPOINT"), ("cmd", "CMD")]:
        if key in spec:
            lines.append(f"{instruction} {json.dumps([str(word) for word in spec[key]])}")
    return lines


def shell(command):
    text = command if isinstance(command, str) else command["command"]
    if "\n" not in text.strip():
        return "RUN " + text.strip()
    # buildah of Debian 12 knows no instruction of several lines.
    return f"RUN echo {base64.b64encode(text.encode()).decode()} | base64 --decode | sh -e"


def file_lines(entry, number, directory, context):
    target = entry["target"]
    if "source" in entry:
        name = os.path.basename(entry["source"])
        shutil.copy(os.path.join(directory, entry["source"]), os.path.join(context, name))
        lines = [f"COPY {name} {target}"]
        path = target + name if target.endswith("/") else target
    elif "content" in entry:
        with open(os.path.join(context, f"text-{number}"), "w", encoding="utf-8") as file:
            file.write(entry["content"])
        lines, path = [f"COPY text-{number} {target}"], target
    elif "link" in entry:
        return [f"RUN mkdir -p {os.path.dirname(target)} && ln -sf {entry['link']} {target}"]
    else:
        lines, path = [f"RUN mkdir -p {target}"], target
    if "mode" in entry:
        lines.append(f"RUN chmod {entry['mode']} {path}")
    if "owner" in entry:
        lines.append(f"RUN chown {entry['owner']} {path}")
    return lines
