//! Files belong to whom they should, whoever runs the builder.

use crate::bench::{ALL, As, Bench};
use crate::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    every_rung_leaves_the_same_trees,
    ids_beyond_65535_are_there_where_the_kernel_or_the_supervisor_has_them,
    every_way_to_change_an_owner_is_seen_by_every_way_to_look,
    a_process_is_who_it_made_itself,
    access_control_lists_keep_names_that_do_not_exist_here,
    static_programs_are_not_left_out,
    a_job_can_be_someone_other_than_root,
    records_below_are_seen_above,
];

/// What maintainer scripts and run steps do to owners, and some things they should not.
const SCRIPT: &str = r#"
cd /work
# plain owners
echo a > a; chown 105:106 a
echo b > b; chgrp 106 b
mkdir d; chown 105:106 d; chmod 2770 d
# a directory that passes its group on
echo inherited > d/file; mkdir d/sub; ln -s file d/link; mkfifo d/fifo
# set-ID bits are lost when an owner is given, and stay when set afterwards
cp /bin/busybox suid; chmod 4755 suid; chown 105:0 suid
cp /bin/busybox suid2; chown 0:106 suid2; chmod 6755 suid2
cp /bin/busybox sgid; chmod 2644 sgid; chown 0:106 sgid
chmod 4755 a; chown 0:0 a
# capabilities, lost in the same way
cp /bin/busybox capable; setcap cap_net_raw+ep capable; getcap capable
cp /bin/busybox lost; setcap cap_net_raw+ep lost; chown 105:106 lost; getcap lost
cp /bin/busybox owned; chown 105:106 owned; setcap cap_net_bind_service,cap_chown+eip owned
# devices and other nodes
mknod null c 1 3; mknod -m 640 disk b 8 1; chown 0:6 disk; mkfifo -m 600 fifo; chown 105:106 fifo
stat -c '%n %F %u:%g %a %t:%T' null disk fifo
# symbolic links
ln -s a link; chown -h 105:106 link; stat -c '%n %u:%g' link a
# rename, hard link, copies
echo x > n1; chown 7:8 n1; mv n1 n2; ln n2 n3; cp -a n2 n4; cp n2 n5; cp -a disk disk2; cp -a link link2
install -o 105 -g 106 -m 4750 a installed; install -d -o redis -g redis -m 0700 private
tar cf - n2 link d suid2 null | (mkdir out; cd out; tar xpf -)
# other users
setpriv --reuid 105 --regid 106 --clear-groups sh -c 'umask 027; echo r > /tmp/r; mkdir /tmp/rd; ln -s r /tmp/rl; mkfifo /tmp/rf; id'
su redis -s /bin/sh -c 'touch /tmp/by-su; id; id -G'
start-stop-daemon --start --chuid redis:adm --exec /usr/bin/touch -- /tmp/by-ssd
su redis -s /bin/sh -c 'cp /tmp/r /tmp/r2; chgrp extra /tmp/r2; touch d/mine 2>/dev/null || echo no; touch /etc/no 2>/dev/null || echo no'
su redis -s /bin/sh -c 'mkdir -m 2775 /tmp/shared'; chgrp 200 /tmp/shared; chmod 2775 /tmp/shared; su redis -s /bin/sh -c 'touch /tmp/shared/f; mkdir /tmp/shared/g'
# what exists below is copied up
chown 105:106 /etc/motd; chown -h 105 /bin/ls; chmod 0 /etc/motd
# unreadable for everybody but root
echo secret > sealed; chmod 0000 sealed; chown 105 sealed; cat sealed; mkdir locked; chmod 0 locked; touch locked/in; chown 9:9 locked
# extended attributes of users
/probe probe acl /work/acl
# removed again, with records
echo x > gone; chown 5:5 gone; rm gone; ln -s x gone; chown -h 5:5 gone; rm gone; ln -s y gone
# nobody special
chown 65534:65534 n5; chown 65535 b; touch -d @0 b
"#;

fn every_rung_leaves_the_same_trees() {
    let [root, ranged, plain, copied] = ALL.map(|who| {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let text = bench.shell(&[&base], &upper, SCRIPT);
        (text, bench.dump(&upper), bench.layer(&upper, &base))
    });
    let cases = [
        ("printed", &root.0, &ranged.0, "userns:"),
        ("trees", &root.1, &ranged.1, "userns:"),
        ("printed", &root.0, &plain.0, "userns-single:"),
        ("trees", &root.1, &plain.1, "userns-single:"),
        ("printed", &root.0, &copied.0, "chroot:"),
        ("trees", &root.1, &copied.1, "chroot:"),
    ];
    for (name, left, right, mark) in cases {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (left, right) = (lines(left), lines(right));
        let only = |these: &[String], those: &[String], mark: &str| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).map(|line| format!("{mark} {line}")).collect()
        };
        let different = [only(&left, &right, "root:"), only(&right, &left, mark)].concat();
        assert!(different.is_empty(), "{name} differ:\n{}", different.join("\n"));
    }
    // Programs of the host are large; of the bytes that differ, the first says where.
    for (other, mark) in [(&ranged.2, "userns"), (&plain.2, "userns-single"), (&copied.2, "chroot")] {
        let first = root.2.iter().zip(other).position(|(left, right)| left != right);
        assert!(root.2.len() == other.len() && first.is_none(), "the layer of {mark} differs from byte {first:?}");
    }
    let expected = [
        "/work/d/sub 0:106 2755 directory",
        "/work/d/link 0:106 0777 link to file",
        "/work/suid 105:0 0755",
        "/work/suid2 0:106 6755",
        "/work/disk 0:6 0640 Block 8:1",
        "/work/n3 7:8 0644 file of 2 bytes, 2 names",
        "/work/out/null 0:0 0644 Char 1:3",
        "/work/private 105:106 0700 directory",
        "/tmp/rd 105:106 0750 directory",
        "/tmp/by-ssd 105:4 0644",
        "/tmp/r2 105:200 0640",
        "/tmp/shared/g 105:200 2755 directory",
        "/etc/motd 105:106 0000",
        "/bin/ls 105:0 0777 link to busybox",
        "/work/locked/in 0:0 0644",
        "/work/b 65535:106 0644",
        "/work/gone 0:0 0777 link to y",
    ];
    for line in expected {
        assert!(root.1.lines().any(|found| found.starts_with(line)), "`{line}` is not in\n{}", root.1);
    }
    assert!(
        root.1.contains("/work/capable 0:0 0755 file of") && root.1.contains("security.capability=[01, 00, 00, 02")
    );
}

fn ids_beyond_65535_are_there_where_the_kernel_or_the_supervisor_has_them() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let output = bench.run(&[&base], &upper).shell("touch /work/b; chown 4294967294 /work/b").output();
        let said = String::from_utf8_lossy(&output.stdout);
        match who {
            As::Root | As::PlainUser | As::Chroot => {
                assert!(bench.dump(&upper).contains("/work/b 4294967294:0 0644"), "{who:?}");
            }
            // The map of the user namespace ends there.
            As::RangedUser => assert!(said.contains("'/work/b': Invalid argument"), "{said}"),
        }
    }
}

fn every_way_to_change_an_owner_is_seen_by_every_way_to_look() {
    inside("owners");
}

fn a_process_is_who_it_made_itself() {
    inside("identity");
}

fn inside(probe: &str) {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        bench.run(&[&base], &upper).args(&["--", "/probe", "probe", probe]).run();
    }
}

fn access_control_lists_keep_names_that_do_not_exist_here() {
    let dumps = ALL.map(|who| {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        bench.run(&[&base], &upper).args(&["--", "/probe", "probe", "acl", "/work/acl"]).run();
        bench.dump(&upper)
    });
    assert_eq!(dumps[0], dumps[1]);
    assert_eq!(dumps[0], dumps[2]);
    assert!(dumps[0].contains("/work/acl/below") && dumps[0].contains("system.posix_acl_default"), "{}", dumps[0]);
}

fn static_programs_are_not_left_out() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "busybox touch /work/f; busybox chown 5:6 /work/f; busybox stat -c '%u:%g' /work/f; \
                      busybox ls -ln /work | busybox grep -c ' 5 '; busybox chown -h 7 /work/f; busybox stat -c %u /work/f";
        assert_eq!(bench.shell(&[&base], &upper, script), "5:6\n1\n7\n", "{who:?}");
    }
}

fn a_job_can_be_someone_other_than_root() {
    let texts = ALL.map(|who| {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "id -u; id -g; id -G; touch /tmp/mine; touch /etc/no 2>/dev/null || echo no; \
                      mkdir -p /tmp/a/b; (touch /tmp/a/child)";
        let text = bench.run(&[&base], &upper).args(&["--user", "105:106:200"]).shell(script).run();
        (text, bench.dump(&upper))
    });
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
    assert_eq!(texts[0].0, "105\n106\n106 200\nno\n");
    assert!(texts[0].1.contains("/tmp/a/child 105:106 0644"), "{}", texts[0].1);
}

fn records_below_are_seen_above() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, first, second) = (bench.base(), bench.tree("first"), bench.tree("second"));
        let make = "cd /work; echo x > file; chown 5:6 file; ln -s x link; chown -h 7:8 link; mkdir d; chown 9:9 d; mknod null c 1 3";
        bench.shell(&[&base], &first, make);
        let look = "cd /work; stat -c '%u:%g %n' file link d; stat -c '%F' null; chgrp 10 file; echo y >> file; touch d/in; mv null nil";
        let seen = bench.shell(&[&base, &first], &second, look);
        assert_eq!(seen, "5:6 file\n7:8 link\n9:9 d\ncharacter special file\n", "{who:?}");
        let expected = "/ 0:0 0755 directory\n/work 0:0 0755 directory\n/work/d 9:9 0755 directory\n\
                    /work/d/in 0:0 0644 file of 0 bytes, 1 names\n/work/file 5:10 0644 file of 4 bytes, 1 names\n\
                    /work/nil 0:0 0644 Char 1:3\n/work/null whiteout\n";
        assert_eq!(bench.dump(&second), expected, "{who:?}");
    }
}
