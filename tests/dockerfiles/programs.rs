//! Programs that are compiled or put together in one stage and run from another, in Docker: C, Python, Node.

use super::debian::{build, with_debian};
use crate::support::docker::Docker;
use crate::support::family::Bench;

const C: &[(&str, &str)] = &[
    (
        "Dockerfile",
        "\
FROM builder:v1 AS build
WORKDIR /src
COPY *.c *.h ./
RUN --mount=type=tmpfs,target=/tmp mkdir /out \\
    && gcc -O2 -Wall -Werror -c greet.c \\
    && gcc -O2 -Wall -Werror main.c greet.o -o /out/words \\
    && gcc -O2 -Wall -Werror -static main.c greet.o -o /out/words-static

FROM scratch AS alone
COPY --from=build /out/words-static /words
ENTRYPOINT [\"/words\"]

FROM debian:v1 AS linked
COPY --from=build --chown=nobody:nogroup --chmod=0755 /out/words /usr/local/bin/
USER nobody
ENTRYPOINT [\"words\"]
CMD [\"by\", \"default\"]
",
    ),
    ("greet.h", "void greet(const char *name, int words);\n"),
    (
        "greet.c",
        "#include <stdio.h>\n#include \"greet.h\"\n\
         void greet(const char *name, int words) { printf(\"hello, %s: %d words\\n\", name, words); }\n",
    ),
    (
        "main.c",
        "#include <unistd.h>\n#include \"greet.h\"\n\
         int main(int count, char **words) { greet(getuid() ? \"user\" : \"root\", count - 1); return words[0] == 0; }\n",
    ),
];

const PYTHON: &[(&str, &str)] = &[
    (
        "Dockerfile",
        "\
FROM builder:v1 AS build
RUN python3 -m venv /app
COPY package /tmp/package
RUN /app/bin/pip install --no-index --no-build-isolation --no-cache-dir /tmp/package \\
    && /app/bin/pip uninstall --yes pip setuptools

FROM python:v1
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1
COPY --from=build /app /app
USER nobody
ENTRYPOINT [\"mason\"]
",
    ),
    (
        "package/setup.py",
        "from setuptools import setup\n\
         setup(name='mason', version='1.2', packages=['mason'], package_data={'mason': ['stones.json']},\n      \
         entry_points={'console_scripts': ['mason = mason:main']})\n",
    ),
    ("package/mason/stones.json", "[\"granite\", \"slate\"]\n"),
    (
        "package/mason/__init__.py",
        "\
import importlib.metadata, json, pathlib, sys

def main():
    stones = json.loads(pathlib.Path(__file__).with_name('stones.json').read_text())
    print('mason', importlib.metadata.version('mason'), 'for', *sys.argv[1:], 'has', *stones, 'in', sys.prefix)
",
    ),
];

const NODE: &[(&str, &str)] = &[
    (
        "Dockerfile",
        "\
FROM builder:v1 AS test
WORKDIR /app
COPY package.json ./
COPY node_modules node_modules
COPY src src
COPY test test
RUN node test/wall.js && node -p 'require(\"./package.json\").version' > src/version

FROM node:v1
WORKDIR /app
COPY --from=test --parents /app/./node_modules /app/./src ./
USER nobody
CMD [\"node\", \"src/main.js\"]
",
    ),
    ("package.json", "{\"name\": \"wall\", \"version\": \"3.4.5\", \"dependencies\": {\"stone\": \"1.0.0\"}}\n"),
    ("node_modules/stone/package.json", "{\"name\": \"stone\", \"version\": \"1.0.0\", \"main\": \"lib/stone.js\"}\n"),
    ("node_modules/stone/lib/stone.js", "exports.course = stones => stones.map(stone => `[${stone}]`).join('');\n"),
    (
        "src/main.js",
        "\
const http = require('http');
const {course} = require('stone');
const version = require('fs').readFileSync(__dirname + '/version', 'utf8').trim();
const server = http.createServer((_, answer) => answer.end(`wall ${version} ${course(['a', 'b'])}`));
server.listen(0, '127.0.0.1', () => http.get({host: '127.0.0.1', port: server.address().port}, answer => {
    answer.on('data', text => console.log(`${answer.statusCode} ${text} as ${process.getuid()}`));
    answer.on('end', () => server.close());
}));
",
    ),
    (
        "test/wall.js",
        "require('assert').strictEqual(require('stone').course(['x']), '[x]');\nconsole.log('the test passes');\n",
    ),
];

#[test]
fn programs_made_in_one_stage_run_from_the_next_in_docker() {
    let bench =
        with_debian(&[("builder", "gcc, libc6-dev, python3-venv, nodejs"), ("python", "python3"), ("node", "nodejs")]);
    let docker = Docker::start();
    let site = Site { bench: &bench, docker: &docker };
    site.c();
    site.python();
    site.node();
    bench.layout_is_valid();
}

struct Site<'a> {
    bench: &'a Bench,
    docker: &'a Docker,
}

impl Site<'_> {
    /// Builds, and gives the image to Docker.
    fn build(&self, tag: &str, files: &[(&str, &str)], more: &[&str]) {
        let archive = self.bench.at(&format!("{tag}.tar"));
        let output = format!("type=docker-archive,dest={}", archive.display());
        build(self.bench, tag, files, &[more, &["--output", &output]].concat());
        self.docker.run(["load", "--input", archive.to_str().unwrap()]).success();
    }

    /// What a container of the image prints.
    #[track_caller]
    fn prints(&self, tag: &str, arguments: &[&str], expected: &str) {
        let image = format!("localhost/{tag}:latest");
        let fixed = ["run", "--rm", "--network", "none", &image];
        let ran = self.docker.run(fixed.iter().chain(arguments).copied()).success();
        assert_eq!(ran.stdout, expected, "{}", ran.stderr);
    }

    /// None of these is a file of the image, by the end of its path.
    #[track_caller]
    fn has_none_of(&self, tag: &str, ends: &[&str]) {
        let listing = self.bench.listing(tag);
        let of_listing = |line: &&str| ends.iter().any(|end| line.trim_end_matches('/').ends_with(end));
        let found: Vec<&str> = listing.lines().filter(of_listing).collect();
        assert!(!listing.is_empty() && found.is_empty(), "{tag}: {found:?}");
    }

    fn c(&self) {
        self.build("alone", C, &["--target", "alone"]);
        self.prints("alone", &["a", "b", "c"], "hello, root: 3 words\n");
        let listing = self.bench.listing("alone");
        assert_eq!(listing.lines().count(), 1, "one program and nothing else:\n{listing}");
        self.build("linked", C, &[]);
        self.prints("linked", &[], "hello, user: 2 words\n");
        self.has_none_of("linked", &["bin/gcc", "/gcc-12", "/stdio.h", "/cc1", "main.c", "greet.o", " src", " out"]);
        let owned = self.bench.listing("linked");
        assert!(owned.lines().any(|line| line.starts_with("-rwxr-xr-x 65534/65534 ") && line.ends_with("/words")));
    }

    fn python(&self) {
        self.build("mason", PYTHON, &[]);
        self.prints("mason", &["walls"], "mason 1.2 for walls has granite slate in /app\n");
        self.has_none_of("mason", &["bin/gcc", "/stdio.h", "tmp/package", "/bin/pip", "/ensurepip", "/node"]);
    }

    fn node(&self) {
        self.build("wall", NODE, &[]);
        self.prints("wall", &[], "200 wall 3.4.5 [a][b] as 65534\n");
        self.has_none_of("wall", &["bin/gcc", "/stdio.h", "app/test", "app/package.json", "/python3.11"]);
    }
}
