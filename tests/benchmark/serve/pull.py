"""Pulls one image many times at once with curl: NAME PORT SERVER-PID CLIENTS DIRECTORY."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

name, port, pid, clients, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
base = f"http://127.0.0.1:{port}/v2/large"
accept = "application/vnd.oci.image.manifest.v1+json"


def processor_seconds():
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(key):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024


request = urllib.request.Request(f"{base}/manifests/v1", headers={"Accept": accept})
manifest = json.load(urllib.request.urlopen(request))
parts = [manifest["config"], *manifest["layers"]]
expected = sum(part["size"] for part in parts)
# One curl a client, over one connection; `--fail` and the sum of bytes tell a pull that went wrong.
config = os.path.join(directory, "curl")
with open(config, "w") as file:
    file.write("silent\nshow-error\nfail\n")
    file.write(f'url = "{base}/manifests/v1"\nheader = "Accept: {accept}"\noutput = "/dev/null"\n')
    for part in parts:
        file.write(f'url = "{base}/blobs/{part["digest"]}"\noutput = "/dev/null"\n')
    file.write('write-out = "%{http_code} %{size_download}\\n"\n')

failed = []


def pull():
    done = subprocess.run(["curl", "--config", config], capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    size = sum(int(line[1]) for line in lines[1:])
    if done.returncode != 0 or size != expected or any(line[0] != "200" for line in lines):
        failed.append(done.stderr or done.stdout)


before, started = processor_seconds(), time.monotonic()
threads = [threading.Thread(target=pull) for _ in range(clients)]
for thread in threads:
    thread.start()
peak = 0
while any(thread.is_alive() for thread in threads):
    peak = max(peak, memory("VmRSS"))
    time.sleep(0.05)
seconds = time.monotonic() - started
print(
    f"{name}: {clients} pulls of {expected / 1e6:.0f} MB in {seconds:.1f} s, "
    f"{clients * expected / 1e6 / seconds:.0f} MB/s, {processor_seconds() - before:.1f} processor seconds, "
    f"{peak:.0f} MiB memory (at most {memory('VmHWM'):.0f} since its start), {len(failed)} failed",
    flush=True,
)
if failed:
    print(failed[0], file=sys.stderr)
    sys.exit(1)
