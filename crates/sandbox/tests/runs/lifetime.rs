//! How runs begin, go on and end.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::bench::{ALL, As, Bench, WITH_NAMESPACES, eventually, mounts_with, processes_with};
use crate::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    the_exit_status_of_a_command_arrives,
    what_cannot_be_run_is_an_error_that_names_it,
    output_arrives_while_the_command_runs,
    an_interrupt_kills_everything,
    nothing_is_left_when_the_builder_is_killed,
    orphans_end_with_the_command,
    a_command_gets_exactly_what_the_job_says,
    runs_in_several_threads_do_not_disturb_each_other,
    a_rung_that_does_not_work_is_an_error_with_a_reason,
];

fn the_exit_status_of_a_command_arrives() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        for (script, expected) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
            let output = bench.run(&[&base], &upper).shell(script).output();
            assert_eq!(output.status.code(), Some(expected), "{who:?} {script} {output:?}");
        }
    }
}

fn what_cannot_be_run_is_an_error_that_names_it() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let cases: [(&[&str], &str); 5] = [
            (&["--", "missing"], "cannot execute `missing`: No such file"),
            (&["--", "/etc/passwd"], "cannot execute `/etc/passwd`: Permission denied"),
            (&["--directory", "/nowhere", "--", "true"], "cannot start in the directory `/nowhere`: No such file"),
            (&["--mount", "/nowhere:/mnt", "--", "true"], "cannot mount at `/mnt`: No such file"),
            (&["--"], "the command is empty"),
        ];
        for (arguments, expected) in cases {
            let output = bench.run(&[&base], &upper).args(arguments).output();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(99) && error.contains(expected), "{who:?} {arguments:?}: {error}");
        }
    }
}

fn output_arrives_while_the_command_runs() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let mut builder = bench.run(&[&base], &upper).shell("echo one; sleep 1; echo two >&2");
        let mut child = builder.command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        let first = Instant::now();
        assert_eq!(lines.next().unwrap().unwrap(), "two", "both streams are one");
        assert!(first.elapsed() > Duration::from_millis(500), "{who:?}: both lines came at the end");
        assert!(child.wait().unwrap().success());
    }
}

const STUBBORN: &str = "trap '' TERM INT HUP; (sleep 987.MARK) & (setsid sleep 987.MARK) & echo ready; sleep 987.MARK";

fn an_interrupt_kills_everything() {
    for (who, mark) in ALL.into_iter().zip(["61", "62", "63", "64"]) {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = STUBBORN.replace("MARK", mark);
        let start = Instant::now();
        let output = bench.run(&[&base], &upper).args(&["--interrupt-after", "300"]).shell(&script).output();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "interrupted\n", "{who:?}");
        assert!(start.elapsed() < Duration::from_secs(3), "{who:?} took {:?}", start.elapsed());
        assert_eq!(processes_with(&format!("987.{mark}")), Vec::<String>::new());
        assert!(!upper.join("work").exists());
    }
}

fn nothing_is_left_when_the_builder_is_killed() {
    for (who, mark) in ALL.into_iter().zip(["71", "72", "73", "74"]) {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        // The layers are mounted by names relative to the run; another mount shows whose run it is.
        let cache = bench.tree("cache").display().to_string();
        let mount = format!("{cache}:/cache");
        let secret = bench.path("secret");
        std::fs::write(&secret, "hush").unwrap();
        let secret = format!("{}:/run/secret:ro", secret.display());
        let script = format!("grep -q hush /run/secret; {}", STUBBORN.replace("MARK", mark));
        let mut builder = bench.run(&[&base], &upper).args(&["--mount", &mount, "--mount", &secret]).shell(&script);
        let mut child = builder.command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        let marked = format!("987.{mark}");
        assert!(eventually(|| processes_with(&marked).len() > 2), "{who:?}: nothing was running");
        assert!(who == As::Chroot || !mounts_with(&cache).is_empty(), "{who:?}: nothing was mounted");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| processes_with(&marked).is_empty()), "{who:?} {:?}", processes_with(&marked));
        assert!(eventually(|| mounts_with(&cache).is_empty()), "{who:?}");
        let left = upper.join("work/root/run/secret");
        assert!(eventually(|| std::fs::read(&left).unwrap_or_default().is_empty()), "{who:?}: a secret is left");
        assert_eq!(bench.shell(&[&base], &upper, "echo again"), "again\n", "{who:?}: what was left is in the way");
    }
}

fn orphans_end_with_the_command() {
    for (who, mark) in ALL.into_iter().zip(["81", "82", "83", "84"]) {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let start = Instant::now();
        let script = format!("setsid sleep 987.{mark} & (sleep 987.{mark} &); echo done");
        assert_eq!(bench.shell(&[&base], &upper, &script), "done\n");
        assert!(start.elapsed() < Duration::from_secs(3), "{who:?} waited for an orphan");
        assert_eq!(processes_with(&format!("987.{mark}")), Vec::<String>::new());
    }
}

fn a_command_gets_exactly_what_the_job_says() {
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "echo $GREETING; pwd; hostname; umask; ulimit -n; cat; ls -1 /proc/self/fd | wc -l; \
                      ps -o pid= | wc -l; readlink /proc/self/fd/0 | cut -c1-5; cut -d' ' -f6 /proc/1/stat; \
                      env | sort | cut -d= -f1 | tr '\\n' ' '";
        let text = bench
            .run(&[&base], &upper)
            .args(&["--env", "GREETING=hello", "--directory", "/var/lib", "--stdin", "from outside\n"])
            .shell(script)
            .run();
        // Descriptors of `ls`: 0, 1, 2 and the directory; processes: 1, the shell, `ps` and `wc`.
        let expected = "hello\n/var/lib\nstone\n0022\n1024\nfrom outside\n4\n4\n/memf\n1\nGREETING PATH PWD ";
        assert_eq!(text.trim_end(), expected.trim_end(), "{who:?}");
    }
}

fn runs_in_several_threads_do_not_disturb_each_other() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "for i in 1 2 3 4 5 6 7 8; do echo $i > /work/$i; chown $i:$i /work/$i; done; \
                      setpriv --reuid 105 --regid 106 --clear-groups touch /tmp/x; stat -c %u /tmp/x";
        let text = bench.run(&[&base], &upper).args(&["--runs", "8"]).shell(script).run();
        assert_eq!(text, "105\n".repeat(8), "{who:?}");
        let dumps: Vec<String> = (0..8).map(|number| bench.dump(&upper.join(number.to_string()))).collect();
        assert!(dumps.iter().all(|dump| *dump == dumps[0]), "{dumps:?}");
        assert!(dumps[0].contains("/work/8 8:8 0644 file of 2 bytes"), "{}", dumps[0]);
    }
}

fn a_rung_that_does_not_work_is_an_error_with_a_reason() {
    let error = |who: As, rung: &str| {
        let mut builder = Bench::new(who).builder("reason").command;
        let arguments: Vec<_> = builder.get_args().map(std::ffi::OsStr::to_os_string).collect();
        let arguments =
            arguments.into_iter().map(|argument| if argument == who.rung() { rung.into() } else { argument });
        let output = std::process::Command::new(builder.get_program()).args(arguments).output().unwrap();
        builder.env_clear();
        String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap()
    };
    let refused = error(As::PlainUser, "chroot");
    assert!(refused.contains("`chroot` is not possible: needs user id 0, this process has 65534"), "{refused}");
    let refused = error(As::PlainUser, "root");
    assert!(refused.contains("`root` is not possible: needs CAP_SYS_ADMIN"), "{refused}");
    assert_eq!(error(As::Root, "auto"), "root: the best there is\n");
    let reason = error(As::PlainUser, "auto");
    assert!(reason.starts_with("userns-single: root: needs CAP_SYS_ADMIN, which this process does not have; userns: "));
    let reason = error(As::RangedUser, "auto");
    assert_eq!(reason, "userns: root: needs CAP_SYS_ADMIN, which this process does not have\n");
    let late = Bench::new(As::Root).builder("late").run();
    assert!(late.starts_with("the process already has 2 threads"), "{late}");
}
