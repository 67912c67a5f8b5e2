# Compiles the Python modules of packages, each package in a process of its own; what comes out is what py_compile writes
# where SOURCE_DATE_EPOCH is set: bytecode with the hash of its source in it, which is checked (PEP 552).
#
# Takes a directory and the number of processes; reads the names of files there, a line each: modules.rs says what is in
# them. The bytecode of the modules of a file, each after its length, goes to one beside it with `.pyc` at the end of its
# name, unless a module cannot be compiled. Anything that would not happen again ends everything.
import importlib.machinery, importlib.util, marshal, os, sys

directory, places = sys.argv[1], int(sys.argv[2])
CHECKED_HASH = 0b11
HEADER = importlib.util.MAGIC_NUMBER + CHECKED_HASH.to_bytes(4, "little")


def take(file):
    return file.read(int.from_bytes(file.read(8), "little"))


def places_of_sources(file):
    """Where each source is in the file, and how long; it stands behind them then."""
    sources = {}
    path = take(file)
    while path:
        length = int.from_bytes(file.read(8), "little")
        sources[path] = (file.tell(), length)
        file.seek(length, os.SEEK_CUR)
        path = take(file)
    return sources


def read(path, offset=0, length=-1):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def bytecode(module, source):
    loader = importlib.machinery.SourceFileLoader("<py_compile>", module)
    code = loader.source_to_code(source, module)
    return HEADER + importlib.util.source_hash(source) + marshal.dumps(code)


def compile_package(place):
    part = place + ".part"
    with open(place, "rb") as file, open(part, "wb") as made:
        sources = places_of_sources(file)
        module = take(file)
        while module:
            path = take(file)
            # What is not the package's own is the interpreter's.
            source = read(place, *sources[path]) if path in sources else read(path)
            try:
                # A text and not bytes, and one that is held here: whether marshal marks a name as one to refer to depends on
                # how many know it.
                code = bytecode(os.fsdecode(module), source)
            except Exception as error:
                print("%s: %s" % (os.fsdecode(module), error), file=sys.stderr)
                return 3 if isinstance(error, (MemoryError, OSError)) else 0
            made.write(len(code).to_bytes(8, "little"))
            made.write(code)
            module = take(file)
    os.rename(part, place + ".pyc")
    return 0


def wait():
    _, status = os.wait()
    if status:
        sys.exit("python3 ended with wait status %d" % status)


os.umask(0o022)
running = 0
# Python before 3.7 has no such bytecode: the packages' scripts make what it has.
for name in sys.stdin.read().split() if hasattr(importlib.util, "source_hash") else []:
    if running == places:
        wait()
        running -= 1
    if os.fork() == 0:
        status = 3
        try:
            status = compile_package(os.path.join(directory, name))
        except Exception as error:
            print("%s: %s" % (name, error), file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(status)
    running += 1
while running:
    wait()
    running -= 1
