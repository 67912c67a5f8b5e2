"""drystone and buildah side by side: see `run` beside this file."""

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time

import dockerfiles
import mirror

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
SPECS = os.path.join(REPOSITORY, "specs/opencontrail")
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(REPOSITORY, "target"))

# The part that is built by default: a base, three services on it, a second base, and two more with their subcontainers.
DEFAULT = ["redis", "memcached", "rabbitmq", "keystone", "nova-api", "nova-scheduler", "nova-conductor"]
SUITES = ["bookworm", "bookworm-updates", "bookworm-security"]

SCENARIOS = {
    "cold": "cold: empty caches, empty registry",
    "segments": "drystone keeps its packages' segments and nothing else; buildah is cold",
    "no-op": "nothing changed",
    "entrypoint": "one line more in one leaf's entrypoint",
    "package": "one package more in one image",
    "fresh": "a fresh runner with a remote cache, nothing changed",
}


def main():
    arguments = parse()
    if os.geteuid() != 0:
        sys.exit("benchmark: buildah and mmdebstrap get root here, so run this as root")
    os.makedirs(arguments.work, exist_ok=True)
    wanted = dockerfiles.all_images(SPECS) if arguments.full else arguments.images
    with contextlib.ExitStack() as stack:
        bench = Bench(arguments, wanted, stack)
        bench.fill_mirror()
        rows = bench.run(arguments.scenarios)
        table = bench.table(rows)
    print(table)
    with open(os.path.join(arguments.work, "table.md"), "w", encoding="utf-8") as file:
        file.write(table + "\n")


def parse():
    parser = argparse.ArgumentParser(prog="tests/benchmark/run")
    parser.add_argument("--full", action="store_true", help="all images of specs/opencontrail that Debian alone can make")
    parser.add_argument("--images", nargs="+", default=DEFAULT, help="these, and what they are built on")
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=SCENARIOS)
    parser.add_argument("--drystone", default=os.path.join(TARGET, "release/drystone"), help="the program to measure")
    parser.add_argument("--work", default=os.path.join(REPOSITORY, "target/benchmark"), help="where everything is kept")
    return parser.parse_args()


class Measure:
    """What a command took: seconds, seconds of processors, and the most memory that one of its processes had."""

    def __init__(self, code, wall, usage):
        self.code, self.wall = code, wall
        self.cpu, self.peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def cells(self):
        return [f"{self.wall:.1f} s", f"{self.cpu:.1f} s", f"{self.peak:.0f} MiB"]


def measure(command, log, env=None):
    """Runs a command to its end; what it prints goes to the file `log`."""
    with open(log, "ab") as out:
        out.write(f"\n+ {' '.join(command)}\n".encode())
        out.flush()
        started = time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return Measure(child.returncode, time.monotonic() - started, usage)


class Registry:
    """A docker-registry of Debian's."""

    def __init__(self, directory):
        self.directory, self.process = directory, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"localhost:{self.port}"

    def start(self):
        """Starts it anew, empty."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": self.directory}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }
        path = self.directory + ".json"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["docker-registry", "serve", path], **quiet)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.1)
        sys.exit("benchmark: docker-registry does not listen")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def size(self):
        """Bytes of all blobs."""
        blobs = os.path.join(self.directory, "docker/registry/v2/blobs")
        return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(blobs) for name in names)


class Drystone:
    """drystone with a layout, a cache and a registry of its own."""

    def __init__(self, bench):
        self.bench, self.registry = bench, Registry(bench.at("drystone-registry"))
        self.family = bench.at("specs/family")

    def up(self, *more, place="drystone"):
        mirrors = [part for suite, url in self.bench.suites.items() for part in ("--mirror", f"{suite}={url}")]
        command = [self.bench.program, "up", self.family, "--once", "--registry", self.registry.address]
        command += ["--layout", self.bench.at(place, "oci"), "--cache-dir", self.bench.at(place, "cache")]
        return measure(command + mirrors + list(more), self.bench.at("drystone.log"))

    def forget(self, areas=None):
        """Removes what was built, and of the cache these areas, or all."""
        shutil.rmtree(self.bench.at("drystone/oci"), ignore_errors=True)
        for area in areas or [""]:
            shutil.rmtree(self.bench.at("drystone/cache", area), ignore_errors=True)
        self.registry.start()


class Buildah:
    """buildah with a storage and a registry of its own."""

    def __init__(self, bench):
        self.bench, self.registry = bench, Registry(bench.at("buildah-registry"))
        self.contexts = bench.at("contexts")

    def script(self, place, cache):
        """The commands that build and push all images."""
        storage = f"--root {self.bench.at(place, 'storage')} --runroot {self.bench.at(place, 'run')} --storage-driver overlay"
        options = "--layers --isolation chroot --network host --tls-verify=false -q"
        repository = f"{self.registry.address}/cache"
        options += {"": "", "to": f" --cache-to {repository}", "from": f" --cache-from {repository}"}[cache]
        lines = ["set -e"]
        for image in self.bench.images:
            context, name = os.path.join(self.contexts, image.name), f"{self.registry.address}/{image.name}:bench"
            if image.parent == "scratch":
                packages = ",".join(image.spec["packages"])
                sources = " ".join(f"'deb [trusted=yes] {url} {suite} main'" for suite, url in self.bench.suites.items())
                lines.append(
                    f"[ -e {context}/rootfs.tar ] || mmdebstrap --quiet --variant=essential --include={packages}"
                    f" bookworm {context}/rootfs.tar {sources}"
                )
            lines.append(f"buildah {storage} build {options} -t {name} {context}")
            lines.append(f"buildah {storage} push -q --tls-verify=false {name}")
        return "\n".join(lines)

    def up(self, place="buildah", cache=""):
        return measure(["sh", "-c", self.script(place, cache)], self.bench.at("buildah.log"))

    def forget(self):
        # A build that failed leaves its container's root mounted.
        with open("/proc/mounts", encoding="utf-8") as file:
            mounted = [line.split()[1] for line in file]
        for place in reversed([place for place in mounted if place.startswith(self.bench.at("buildah/storage"))]):
            subprocess.run(["umount", "--lazy", place], check=True)
        for directory in ["buildah/storage", "buildah/run"]:
            shutil.rmtree(self.bench.at(directory), ignore_errors=True)
        for image in self.bench.images:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.contexts, image.name, "rootfs.tar"))
        self.registry.start()


class Bench:
    def __init__(self, arguments, wanted, stack):
        self.work, self.program = os.path.abspath(arguments.work), arguments.drystone
        for log in ["drystone.log", "buildah.log"]:
            open(self.at(log), "w", encoding="utf-8").close()
        self.images = dockerfiles.read(SPECS, wanted)
        upstream = archives()
        addresses = sorted(set(upstream.values()))
        self.mirror, local = mirror.start(self.at("mirror"), addresses)
        stack.callback(self.mirror.shutdown)
        self.suites = {suite: local[addresses.index(address)] for suite, address in upstream.items()}
        self.drystone, self.buildah = Drystone(self), Buildah(self)
        for tool in (self.drystone, self.buildah):
            stack.callback(tool.registry.stop)
        dockerfiles.write_family(self.images, SPECS, self.drystone.family)
        dockerfiles.write_contexts(self.images, self.drystone.family, self.buildah.contexts, self.buildah.registry.address)

    def at(self, *parts):
        return os.path.join(self.work, *parts)

    def fill_mirror(self):
        """Builds once, so that the mirror has what both tools ask for: the same packages. Nothing of it counts, and the
        table says what was missing all the same."""
        say("filling the mirror")
        self.drystone.forget()
        if self.drystone.up().code:
            sys.exit("benchmark: the first build failed: see the logs in " + self.work)
        self.mirror.fetched = 0

    def run(self, scenarios):
        rows = []
        for name in SCENARIOS:
            # Later scenarios begin with what `cold` left, so it is always done.
            if name != "cold" and name not in scenarios:
                continue
            say(SCENARIOS[name])
            one, other = getattr(self, name.replace("-", "_"))(rows)
            say(f"drystone {one.wall:.1f} s, buildah {other.wall:.1f} s")
            rows.append((name, one, other))
            if one.code or other.code:
                sys.exit("benchmark: something failed: see the logs in " + self.work)
        return rows

    def cold(self, _):
        self.drystone.forget()
        self.buildah.forget()
        rows = self.drystone.up(), self.buildah.up()
        self.bytes = self.drystone.registry.size(), self.buildah.registry.size()
        return rows

    def segments(self, rows):
        self.drystone.forget(["layers", "steps", "trees", "debs"])
        return self.drystone.up(), rows[0][2]

    def no_op(self, _):
        return self.drystone.up(), self.buildah.up()

    def entrypoint(self, _):
        parents = {image.parent for image in self.images}
        leaves = [image for image in self.images if image.name not in parents]
        image = next(image for image in leaves if os.path.exists(os.path.join(image.directory, "entrypoint.sh")))
        for path in [os.path.join(self.drystone.family, image.name), os.path.join(self.buildah.contexts, image.name)]:
            with open(os.path.join(path, "entrypoint.sh"), "a", encoding="utf-8") as file:
                file.write("# one line more\n")
        return self.drystone.up(), self.buildah.up()

    def package(self, _):
        image = next(image for image in self.images if image.name in ("memcached", "redis", "keystone"))
        image.spec["packages"].append("less")
        with open(os.path.join(self.drystone.family, image.name, "image.yaml"), "w", encoding="utf-8") as file:
            json.dump(image.spec, file)
        path = os.path.join(self.buildah.contexts, image.name, "Dockerfile")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(" && apt-get clean", " less && apt-get clean", 1))
        return self.drystone.up(), self.buildah.up()

    def fresh(self, _):
        cache = f"{self.drystone.registry.address}/cache:main"
        self.drystone.up("--cache-to", cache)
        self.buildah.up(cache="to")
        for place in ["fresh-drystone", "fresh-buildah"]:
            shutil.rmtree(self.at(place), ignore_errors=True)
        one = self.drystone.up("--cache-from", cache, place="fresh-drystone")
        return one, self.buildah.up(place="fresh-buildah", cache="from")

    def table(self, rows):
        head = "| | drystone | CPU | peak | buildah | CPU | peak | ratio |"
        lines = [head, "|---|---|---|---|---|---|---|---|"]
        for name, one, other in rows:
            cells = [SCENARIOS[name], *one.cells(), *other.cells(), ratio(one.wall, other.wall)]
            lines.append("| " + " | ".join(cells) + " |")
        one, other = self.bytes
        megabytes = [f"{size / 1e6:.0f} MB" for size in (one, other)]
        lines.append(f"| bytes in the registry | {megabytes[0]} | | | {megabytes[1]} | | | {one / other:.2f} |")
        names = " ".join(image.name for image in self.images)
        lost = [SCENARIOS[name] for name, one, other in rows if one.wall > other.wall]
        lines += ["", f"Images: {names}.", f"Machine: {machine(self.work)}."]
        lines += [f"Files that the mirror had to fetch while something was measured: {self.mirror.fetched}."]
        lines += [f"Versions: {versions(self.program)}."]
        lines.append(f"drystone was slower at: {'; '.join(lost)}." if lost else "drystone was slower at none of these.")
        return "\n".join(lines)


def ratio(one, other):
    return f"1/{other / one:.1f}" if other > one else f"{one / other:.1f}"


def archives():
    """Where this machine's apt has each suite."""
    line = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    listed = [line.split() for line in subprocess.check_output(line, text=True).splitlines()]
    found = {suite: address for suite, address in reversed(listed) if suite in SUITES}
    if "bookworm" not in found:
        sys.exit("benchmark: apt on this machine has no source for bookworm")
    return {suite: found[suite] for suite in SUITES if suite in found}


def machine(work):
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    kind = subprocess.check_output(["stat", "--file-system", "--format", "%T", work], text=True).strip()
    model = models[0] if models else "?"
    return f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release()}, {kind}"


def versions(program):
    commands = [program, "--version"], ["buildah", "--version"], ["mmdebstrap", "--version"]
    return ", ".join(subprocess.check_output(command, text=True).splitlines()[0].strip() for command in commands)


def say(text):
    print(f"benchmark: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
