//! What a command reaches, and what it does not.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::pty::OpenptFlags;

use crate::bench::{ALL, As, Bench, WITH_NAMESPACES};
use crate::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    without_network_there_is_only_a_loopback_interface,
    calls_that_lead_out_are_refused,
    calls_that_wait_for_a_disk_succeed_at_once,
    devices_terminals_and_links_of_dev_are_there,
    root_inside_has_the_usual_capabilities_and_no_more,
    device_nodes_made_inside_lead_nowhere,
    mounts_are_seen_and_leave_no_trace,
    without_namespaces_the_network_and_other_processes_are_out_of_reach,
    paths_of_open_files_work_without_a_mounted_proc,
    files_in_memory_are_read_by_their_user_and_are_nowhere_on_disk,
    a_directory_in_memory_is_for_everybody,
    on_a_terminal_keys_reach_what_runs_in_front,
];

fn without_network_there_is_only_a_loopback_interface() {
    let interfaces = |text: &str| -> Vec<String> {
        text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    };
    let host = interfaces(&fs::read_to_string("/proc/net/dev").unwrap());
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let text = bench.shell(&[&base], &upper, "cat /proc/net/dev");
        assert_eq!(interfaces(&text), ["lo"], "{who:?}");
        bench.shell(&[&base], &upper, "ping -c1 -W1 127.0.0.1 >/dev/null; test ! -e /etc/resolv.conf");
        let outside = bench.run(&[&base], &upper).arg("--host").shell("cat /proc/net/dev").run();
        assert_eq!(interfaces(&outside), host, "{who:?}");
        let names = bench.run(&[&base], &upper).arg("--host").shell("cat /etc/hosts").run();
        assert_eq!(names, fs::read_to_string("/etc/hosts").unwrap());
        assert_eq!(bench.dump(&upper).lines().count(), 1, "{}", bench.dump(&upper));
    }
}

fn calls_that_lead_out_are_refused() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        bench.run(&[&base], &upper).args(&["--", "/probe", "probe", "refused"]).run();
    }
}

fn calls_that_wait_for_a_disk_succeed_at_once() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        bench.run(&[&base], &upper).args(&["--", "/probe", "probe", "durable"]).run();
    }
}

fn devices_terminals_and_links_of_dev_are_there() {
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
                      if echo x > /dev/full; then echo full takes; fi; echo out > /dev/stdout; ls /dev | tr '\\n' ' '; \
                      test -c /dev/pts/ptmx; echo x > /dev/shm/x; ls /sys; stat -c %a:%F /dev/null; \
                      if chmod 600 /dev/null; then echo changed; fi";
        let text = bench.run(&[&base], &upper).shell(&format!("({script}) 2>/dev/null")).run();
        let names = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ";
        assert_eq!(text, format!("4\n4\nout\n{names}666:character special file\n"), "{who:?}");
    }
}

fn root_inside_has_the_usual_capabilities_and_no_more() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let text = bench.shell(&[&base], &upper, "grep Cap /proc/self/status | tr '\\t\\n' '  '");
        let usual = "00000000a80425fb";
        let expected = format!(
            "CapInh: 0000000000000000 CapPrm: {usual} CapEff: {usual} CapBnd: {usual} CapAmb: 0000000000000000 "
        );
        assert_eq!(text, expected, "{who:?}");
    }
    for who in [As::Root, As::RangedUser] {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let user = bench.run(&[&base], &upper).args(&["--user", "105:106:200"]).shell("grep CapEff /proc/self/status");
        assert_eq!(user.run(), "CapEff:\t0000000000000000\n", "{who:?}");
    }
}

fn device_nodes_made_inside_lead_nowhere() {
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "mknod /tmp/zero c 1 5; mknod /dev/shm/zero c 1 5; stat -c '%F %t:%T' /tmp/zero; \
                      for node in /tmp/zero /dev/shm/zero; do head -c 1 $node 2>/dev/null | wc -c; done";
        let text = bench.shell(&[&base], &upper, script);
        assert_eq!(text, "character special file 1:5\n0\n0\n", "{who:?}");
    }
}

fn mounts_are_seen_and_leave_no_trace() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let cache = bench.path("cache");
        bench.builder("make-tree").arg(&cache).run();
        let secret = bench.path("secret");
        fs::write(&secret, "hush").unwrap();
        // A layer whose directory hides everything below it: there the place must be made, and removed.
        let opaque = bench.tree("opaque");
        let below = bench.shell(
            &[&base],
            &opaque,
            "rm -r /var/lib; mkdir -m 711 /var/lib; chown 5:6 /var/lib; cat /proc/self/status | wc -l",
        );
        assert!(below.trim().parse::<u32>().unwrap() > 10);
        let mounts = [
            format!("{}:/root/.cache/pip", cache.display()),
            format!("{}:/run/secrets/key:ro", secret.display()),
            "memory:/scratch".to_owned(),
            format!("{}:/var/lib/deep/cache", cache.display()),
            format!("{}:/tmp", cache.display()),
        ];
        let mut builder = bench.run(&[&base, &opaque], &upper);
        for mount in &mounts {
            builder = builder.args(&["--mount", mount]);
        }
        let script = "echo kept > /root/.cache/pip/kept; cat /run/secrets/key; echo x > /scratch/x; ls /tmp /scratch; \
                      if echo x 2>/dev/null > /run/secrets/key; then echo written; fi; stat -c '%u:%g %a' /var/lib; \
                      test -d /var/lib/deep/cache/root";
        // Copies are made before and brought back after the run, each for itself, and root may write to all of them.
        let seen = match who {
            As::Chroot => "hush/scratch:\nx\n\n/tmp:\nroot\nwritten\n5:6 711\n",
            As::Root | As::RangedUser | As::PlainUser => "hush/scratch:\nx\n\n/tmp:\nkept\nroot\n5:6 711\n",
        };
        assert_eq!(builder.shell(script).run(), seen, "{who:?}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "hush");
        assert_eq!(fs::read_to_string(cache.join("kept")).unwrap(), "kept\n");
        let dump = bench.dump(&upper);
        // To make a place below an opaque directory, the directories above it are copied up, if something is mounted.
        let expected = "/ 0:0 0755 directory\n/var 0:0 0755 directory\n/var/lib 5:6 0711 directory\n";
        let expected = if who == As::Chroot { "/ 0:0 0755 directory\n" } else { expected };
        assert_eq!(dump, expected, "{who:?}");
    }
}

fn without_namespaces_the_network_and_other_processes_are_out_of_reach() {
    let bench = Bench::new(As::Chroot);
    let (base, upper) = (bench.base(), bench.tree("upper"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "for as in 0 105; do \
         setpriv --reuid $as --regid $as --clear-groups busybox nc -w 2 192.0.2.1 80 </dev/null 2>&1 || true; done; \
         busybox nc -w 2 127.0.0.1 {port} </dev/null && echo near; \
         kill -0 {outside} 2>/dev/null || echo alone; kill -0 -{outside} 2>/dev/null || echo no group; \
         sleep 100 & kill -0 $! && kill $! && echo own; setsid sleep 100 & kill -9 -1; echo here",
        outside = std::process::id()
    );
    let accepting = std::thread::spawn(move || drop(listener.accept()));
    let text = bench.shell(&[&base], &upper, &script);
    let far = "nc: can't connect to remote host (192.0.2.1): Network is unreachable\n";
    assert_eq!(text, format!("{far}{far}near\nalone\nno group\nown\nhere\n"));
    accepting.join().unwrap();
}

fn paths_of_open_files_work_without_a_mounted_proc() {
    let script = "exec 7</etc/motd; cat /proc/self/fd/0 </etc/motd; cat /dev/fd/7; echo out > /dev/stdout; \
                  echo error > /dev/stderr; mkfifo -m 640 /work/fifo; stat -c %a /work/fifo; readlink /proc/self/exe; \
                  readlink /proc/self/cwd; (echo kept > /dev/stdout) > /work/file; cat /work/file; \
                  cat /proc/sys/kernel/hostname; cat /proc/1/environ 2>/dev/null || echo hidden; \
                  wc -l </proc/net/route";
    let bench = Bench::new(As::Chroot);
    let (base, upper) = (bench.base(), bench.tree("upper"));
    let text = bench.shell(&[&base], &upper, script);
    let expected = "hello\nhello\nout\nerror\n640\n/bin/busybox\n/\nkept\nstone\nhidden\n1\n";
    assert_eq!(text, expected);
}

fn files_in_memory_are_read_by_their_user_and_are_nowhere_on_disk() {
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "stat -c '%u:%g %a' /run/secrets/one; cat /run/secrets/one /run/secrets/two; \
                      grep -c ' /run/secrets/one .*tmpfs' /proc/self/mountinfo; \
                      if echo x 2>/dev/null > /run/secrets/one || chmod 644 /run/secrets/one 2>/dev/null; then \
                      echo written; fi";
        let mounts = ["--mount", "hidden=hush\n:/run/secrets/one", "--mount", "hidden=quiet\n:/run/secrets/two"];
        let run = |user: &str| bench.run(&[&base], &upper).args(&mounts).args(&["--user", user]).shell(script).run();
        assert_eq!(run("0:0"), "0:0 400\nhush\nquiet\n1\n", "{who:?}");
        assert_eq!(run("105:106"), "105:106 400\nhush\nquiet\n1\n", "{who:?}");
        assert_eq!(bench.dump(&upper), "/ 0:0 0755 directory\n", "{who:?}");
    }
}

fn a_directory_in_memory_is_for_everybody() {
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let builder = bench.run(&[&base], &upper).args(&["--mount", "memory:/scratch", "--user", "105:106"]);
        let script = "stat -c '%a' /scratch; echo x > /scratch/x; cat /scratch/x";
        assert_eq!(builder.shell(script).run(), "1777\nx\n", "{who:?}");
        assert_eq!(bench.dump(&upper), "/ 0:0 0755 directory\n", "{who:?}");
    }
}

fn on_a_terminal_keys_reach_what_runs_in_front() {
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let (ours, theirs) = terminal();
        let mut builder = bench.run(&[&base], &upper).args(&["--terminal", "--", "/bin/sh", "-i"]);
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let mut child = builder.command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        // The builder has the only other copies.
        drop((builder, theirs));
        let mut shown = Screen { ours: fs::File::from(ours.try_clone().unwrap()), text: String::new() };
        let press = |keys: &str| assert_eq!(rustix::io::write(&ours, keys.as_bytes()), Ok(keys.len()));
        press("echo up-$((40 + 2)); sleep 600\r");
        shown.wait_for("up-42");
        std::thread::sleep(Duration::from_millis(300));
        press("\u{3}");
        press("stty size; tty </dev/tty >/dev/null; echo alive-$((40 + 2)) > /left; cat /left; exit 7\r");
        shown.wait_for("alive-42");
        assert!(shown.text.contains("24 99"), "{who:?}: {}", shown.text);
        assert!(!shown.text.contains("job control"), "{who:?}: {}", shown.text);
        assert_eq!(child.wait().unwrap().code(), Some(7), "{who:?}: {}", shown.text);
        assert!(bench.dump(&upper).contains("/left 0:0 0644"), "{who:?}");
    }
}

/// A terminal of 24 lines and 99 columns: our side and theirs.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&ours).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).unwrap();
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&ours, size).unwrap();
    (ours, theirs)
}

/// What a terminal shows.
struct Screen {
    ours: fs::File,
    text: String,
}

impl Screen {
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let started = Instant::now();
        let mut buffer = [0; 4096];
        while !self.text.contains(text) {
            assert!(started.elapsed() < Duration::from_secs(30), "no `{text}` in {}", self.text);
            let length = self.ours.read(&mut buffer).unwrap_or_else(|error| panic!("{error}: {}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}
