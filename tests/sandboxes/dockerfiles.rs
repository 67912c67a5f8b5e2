//! One Dockerfile with users, owners, modes and every kind of mount gives one image in every sandbox.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::{in_container, make_image};
use crate::build::same_bytes::{all_bytes, given_to};
use crate::support::docker::Docker;
use crate::support::family::Bench;
use crate::support::program::run;
use crate::support::users::{self, Ranged};

const DOCKERFILE: &str = r#"
FROM scratch AS base
COPY busybox /bin/busybox
COPY passwd group shadow /etc/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
RUN mkdir -m 1777 /tmp && mkdir -p /root /home/app && chown app:app /home/app

FROM base AS other
RUN echo given > /given && chown 7:8 /given && chmod 640 /given

FROM base
RUN echo mason:x:4000:4000::/srv:/bin/sh >> /etc/passwd && echo mason:x:4000: >> /etc/group
RUN echo stone:x:4001:mason >> /etc/group
COPY --chown=app:extra --chmod=4750 tree/file /srv/setuid
COPY --chown=12:34 tree /srv/tree/
COPY --chown=mason tree/file /srv/of-mason
COPY --from=other /given /srv/
COPY --link --from=other --chown=0:65535 /given /srv/linked
ADD --chown=app:app packed.tar /srv/packed/
COPY <<EOF /srv/written
a text
EOF
WORKDIR /srv/work
RUN <<EOF
set -e
chown mason:stone . && chmod 2775 .
mkdir sub && stat -c '%u:%g %a' sub > of-sub
cp /bin/busybox suid && chown 0:106 suid && chmod 6755 suid && ln suid name
mknod -m 640 null c 1 3 && mkfifo -m 600 fifo && chown app fifo && ln -s nowhere link && chown -h app:extra link
rm -r /srv/tree/deep && mkdir /srv/tree/deep && mv /srv/tree/file /srv/tree/moved && rm /srv/of-mason
EOF
USER app:extra
RUN id > /tmp/id && touch /home/app/mine && mkdir /home/app/.hidden && ! touch /etc/mine 2>/dev/null
USER mason
RUN id -G > made-by-mason && umask 077 && touch private
USER root
RUN --mount=type=bind,source=tree,target=/mnt cat /mnt/file /mnt/deep/file > seen
RUN --mount=type=bind,source=tree,target=/mnt,rw touch /mnt/x && ls /mnt > listed
RUN --mount=type=bind,from=other,source=/given,target=/g stat -c '%u:%g %a' /g > of-given
RUN --mount=type=cache,target=/cache,uid=1000,gid=1001,mode=0750 stat -c '%u:%g %a' /cache > of-cache && touch /cache/x
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x && ls -A /scratch > of-scratch
RUN --mount=type=secret,id=token test -s /run/secrets/token && ls /run > of-secret
RUN --mount=type=ssh,uid=1000 test -S "$SSH_AUTH_SOCK" && echo "$SSH_AUTH_SOCK" > of-ssh
USER app
RUN --mount=type=secret,id=token,uid=1000,mode=0400 wc -c < /run/secrets/token > /tmp/size
"#;

/// A bench with the context, owned by that user, and an agent's socket for as long as the second lives.
fn bench_of(user: u32, dockerfile: &str) -> (Bench, UnixListener) {
    let bench = Bench::new();
    fs::create_dir_all(bench.at("context/tree/deep")).unwrap();
    let text = |path: &str, text: &str| fs::write(bench.at(path), text).unwrap();
    text("context/Dockerfile", dockerfile);
    text("context/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n");
    text("context/group", "root:x:0:\napp:x:1001:\nextra:x:2002:app\n");
    text("context/shadow", "root:*:::::::\napp:*:::::::\n");
    text("context/tree/file", "a file\n");
    text("context/tree/deep/file", "a file below\n");
    text("token", "hunter2hunter2");
    fs::copy("/bin/busybox", bench.at("context/busybox")).expect("tests/run installs busybox-static");
    let archive = fixtures::tar(&[fixtures::TarEntry::file("a/b", 0o4711, "packed")]);
    fs::write(bench.at("context/packed.tar"), archive).unwrap();
    let agent = UnixListener::bind(bench.at("agent")).unwrap();
    (given_to(bench, user), agent)
}

/// Arguments of the program, with paths as seen from a directory that the bench's stands for.
fn arguments(at: &str) -> Vec<String> {
    let ssh = format!("default={at}/agent");
    let secret = format!("id=token,src={at}/token");
    let context = format!("{at}/context");
    ["build", "-t", "test", "--ssh", &ssh, "--secret", &secret, &context].map(str::to_owned).to_vec()
}

#[track_caller]
fn build(bench: &Bench, mut program: Command, sandbox: &str) {
    bench.surround(&mut program);
    let at = bench.at("").to_str().unwrap().trim_end_matches('/').to_owned();
    run(program.args(arguments(&at)).args(["--sandbox", sandbox])).success();
}

#[test]
fn one_dockerfile_gives_one_image_in_every_sandbox() {
    let (root, _agent) = bench_of(0, DOCKERFILE);
    build(&root, Command::new(root.at("drystone")), "root");
    has_what_the_commands_saw(&root);

    let (single, _agent) = bench_of(users::PLAIN, DOCKERFILE);
    build(&single, users::plain(single.at("drystone")), "userns-single");
    same(&root, &single, "userns-single");

    let (ranged, _agent) = bench_of(users::RANGED, DOCKERFILE);
    build(&ranged, Ranged::new().command(ranged.at("drystone")), "userns");
    same(&root, &ranged, "userns");

    // In an ordinary container there is no file system in memory for secrets.
    let open = |line: &&str| !line.contains("type=secret") && !line.contains("type=ssh");
    let without_secrets: String = DOCKERFILE.lines().filter(open).map(|line| format!("{line}\n")).collect();
    let (root, _agent) = bench_of(0, &without_secrets);
    build(&root, Command::new(root.at("drystone")), "root");
    let (container, _agent) = bench_of(0, &without_secrets);
    let docker = Docker::start();
    make_image(&docker, &container.at(""));
    let fixed = ["--layout", "/site/oci", "--cache-dir", "/site/cache", "--sandbox", "chroot"];
    let all = [arguments("/site"), fixed.map(str::to_owned).to_vec()].concat();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    in_container(&docker, &container.at(""), &[], &all).success();
    same(&root, &container, "chroot");
}

fn has_what_the_commands_saw(bench: &Bench) {
    for (path, expected) in [
        ("of-sub", "0:4001 2755\n"),
        ("seen", "a file\na file below\n"),
        ("listed", "deep\nfile\nx\n"),
        ("of-given", "7:8 640\n"),
        ("of-cache", "1000:1001 750\n"),
        ("of-scratch", "x\n"),
        ("of-secret", "secrets\n"),
        ("made-by-mason", "4000 4001\n"),
    ] {
        assert_eq!(bench.file("test", &format!("srv/work/{path}")).as_deref(), Some(expected), "{path}");
    }
    assert_eq!(bench.file("test", "tmp/size").as_deref(), Some("14\n"));
    let id = bench.file("test", "tmp/id").unwrap();
    assert!(id.starts_with("uid=1000(app) gid=2002(extra)"), "{id}");
    let listing = bench.listing("test");
    for expected in [
        "-rwsr-x--- 1000/2002",
        "-rwsr-sr-x 0/106",
        "crw-r----- 0/4001          1,3",
        "prw------- 1000/4001",
        "lrwxrwxrwx 1000/2002",
        "-rw------- 4000/4001",
        "-rw-r----- 0/65535",
    ] {
        assert!(listing.contains(expected), "no `{expected}` in\n{listing}");
    }
}

#[track_caller]
fn same(root: &Bench, other: &Bench, sandbox: &str) {
    if root.digests() != other.digests() {
        let listings = [root, other].map(|bench| {
            let path = bench.at("listing");
            fs::write(&path, bench.listing("test")).unwrap();
            path
        });
        let difference = run(Command::new("diff").arg("-u").args(&listings)).stdout;
        panic!("root and {sandbox} differ:\n{difference}");
    }
    assert!(all_bytes(root) == all_bytes(other), "{sandbox}: the same digests, and other files");
}
