# Compiles Python modules as py3compile does: `py_compile` for each of a package's files in a process of the package's own.
# Reads packages that a blank line divides, one file a line; takes the number of processes. A module that cannot be
# compiled ends its package. Anything that would not happen again ends everything.
import os, py_compile, sys

os.umask(0o022)
packages = [package.split("\n") for package in sys.stdin.read().split("\n\n") if package]
places = int(sys.argv[1])


def compile(files):
    try:
        for file in files:
            py_compile.compile(file, doraise=True)
    except py_compile.PyCompileError as error:
        print(error, file=sys.stderr)
        return 3 if issubclass(error.exc_type, (MemoryError, OSError)) else 0
    return 0


def wait():
    _, status = os.wait()
    if status:
        sys.exit("python3 ended with wait status %d" % status)


running = 0
for files in packages:
    if running == places:
        wait()
        running -= 1
    if os.fork() == 0:
        status = 3
        try:
            status = compile(files)
            sys.stderr.flush()
        finally:
            os._exit(status)
    running += 1
while running:
    wait()
    running -= 1
