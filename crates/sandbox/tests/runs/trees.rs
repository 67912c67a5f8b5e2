//! Layers below and changes above.

use std::fs;
use std::path::Path;

use crate::bench::{ALL, Bench};
use crate::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    a_command_that_changes_nothing_leaves_nothing,
    a_hundred_and_fifty_layers_are_one_root,
    without_layers_the_upper_tree_is_the_root,
    deleted_files_become_whiteouts,
    every_rung_makes_the_same_layers,
    records_of_links_go_where_the_links_go,
    another_root_inside_is_the_root_of_its_paths,
];

fn a_command_that_changes_nothing_leaves_nothing() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.path("upper"));
        fs::set_permissions(base.join("root"), std::os::unix::fs::PermissionsExt::from_mode(0o751)).unwrap();
        bench.tree("upper");
        fs::remove_dir(upper.join("root")).unwrap();
        bench.run(&[&base], &upper).args(&["--", "true"]).run();
        assert_eq!(bench.dump(&upper), "/ 0:0 0751 directory\n", "{who:?}");
        let left: Vec<String> =
            fs::read_dir(&upper).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(left, ["root"], "{who:?}");
    }
}

fn a_hundred_and_fifty_layers_are_one_root() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let mut lowers = vec![base];
        for number in 0..150 {
            let tree = bench.tree(&format!("layer, number: {number}"));
            fs::write(tree.join("root").join(format!("layer-{number}")), "").unwrap();
            lowers.push(tree);
        }
        let lowers: Vec<&Path> = lowers.iter().map(std::path::PathBuf::as_path).collect();
        assert_eq!(bench.shell(&lowers, &upper, "ls / | grep -c ^layer-"), "150\n", "{who:?}");
    }
}

fn without_layers_the_upper_tree_is_the_root() {
    for who in ALL {
        let bench = Bench::new(who);
        let base = bench.base();
        assert_eq!(bench.shell(&[], &base, "echo hello > /hello; cat /hello"), "hello\n", "{who:?}");
        assert_eq!(fs::read_to_string(base.join("root/hello")).unwrap(), "hello\n");
        assert!(!base.join("root/proc").exists(), "{who:?}");
    }
}

fn deleted_files_become_whiteouts() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        bench.shell(&[&base], &upper, "rm /etc/motd; rm -r /etc/pam.d; mkdir /etc/pam.d");
        let dump = bench.dump(&upper);
        assert_eq!(
            dump, "/ 0:0 0755 directory\n/etc 0:0 0755 directory\n/etc/motd whiteout\n/etc/pam.d 0:0 0755 directory\n",
            "{who:?}"
        );
        assert!(layer::view::is_opaque(&upper.join("root/etc/pam.d")).unwrap());
    }
}

/// What is there before: a layer of its own, and the first of two commands over one upper tree.
const BEFORE: [&str; 2] = [
    "cd /work; mkdir -p dir/sub gone full other tofile tolink; echo 1 > dir/one; echo 2 > dir/sub/two; echo x > full/x; \
     echo y > full/y; ln -s dir link; echo file > file; echo a > a; ln a b; ln a c; mkfifo fifo; mknod null c 1 3; \
     echo gone > gone/in; touch -d @1000000 old; cp /bin/busybox capable; setcap cap_net_raw+ep capable; \
     mkdir same; echo s > same/s; mkdir kept; echo k > kept/k; touch -d @3000000 kept; touch -d @3000000 other; ln -s nowhere dangling; echo t > tofile/t; echo m > mode; mkdir -m 2775 shared",
    "cd /work; rm -r gone; rm file; echo first > added; mkdir fresh; echo f > fresh/f; echo more >> dir/one",
];

/// Every kind of change, over what the trees below show and over what the upper tree has already.
const CHANGES: &str = "cd /work; \
     rm -r full; mkdir full; echo x > full/x; echo z > full/z; \
     rm -r tofile; echo now a file > tofile; rmdir tolink; ln -s dir tolink; rm link; mkdir link; echo in > link/in; \
     chmod 750 kept; chmod 600 kept/k; rm added; rm fresh/f; echo g > fresh/g; mkdir gone; echo again > gone/again; echo back > file; \
     mv dir moved; mkdir -p dir/sub; cp -a moved/sub/two dir/sub; \
     rm b; ln a d; mv c e; ln -s x f; mv -T f dangling; touch -d @2000000 old; \
     busybox truncate -s 1000000 sparse; echo end >> sparse; chmod 600 mode; chown 5:6 null; rm fifo; mknod fifo c 5 1; \
     setcap -r capable; cp /bin/busybox able; setcap cap_chown+ep able; chmod 4755 /bin/busybox; \
     cp -a same/s same/t; mv same/t same/s; echo s > same/new; rm same/new; \
     echo 'new:x:300:300::/:/bin/sh' >> /etc/passwd; cp /etc/group /etc/group-; mv /etc/group- /etc/group; \
     setpriv --reuid 105 --regid 106 --clear-groups touch /tmp/mine; touch shared/s; chmod 700 other; \
     /probe probe acl /work/acl; rm -r /home; ln -s work /home; chmod 711 /; mkdir -p /opt/a/b; rm -r /var; mkdir /var; \
     touch \"$(printf 'odd\\377\\nname')\"";

fn every_rung_makes_the_same_layers() {
    let layers = ALL.map(|who| {
        let bench = Bench::new(who);
        let (base, first, upper) = (bench.base(), bench.tree("first"), bench.tree("upper"));
        bench.shell(&[&base], &first, BEFORE[0]);
        bench.shell(&[&base, &first], &upper, BEFORE[1]);
        bench.shell(&[&base, &first], &upper, CHANGES);
        bench.builder("layer").arg(&base).arg(&first).arg(&upper).run()
    });
    let lines: Vec<Vec<&str>> = layers.iter().map(|layer| layer.lines().collect()).collect();
    assert!(lines[0].len() > 40, "{}", layers[0]);
    for (who, other) in ALL.iter().zip(&lines).skip(1) {
        let missing: Vec<_> = lines[0].iter().filter(|line| !other.contains(line)).collect();
        let extra: Vec<_> = other.iter().filter(|line| !lines[0].contains(line)).collect();
        assert!(*other == lines[0], "{who:?}: only on root: {missing:#?}\nonly here: {extra:#?}");
    }
}

fn records_of_links_go_where_the_links_go() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, first, second) = (bench.base(), bench.tree("first"), bench.tree("second"));
        let make = "cd /work; ln -s x renamed; ln -s x linked; ln -s x touched; mkfifo fifo; ln -s x replaced; \
                    chown -h 1:1 renamed; chown -h 2:2 linked; chown -h 3:3 touched; chown 4:4 fifo; chown -h 5:5 replaced";
        bench.shell(&[&base], &first, make);
        let change = "cd /work; mv renamed other; ln -P linked second; touch -h touched; chmod 600 fifo; rm replaced; \
                      ln -s y replaced; stat -c '%u:%g %n' other second touched fifo replaced; \
                      stat -c '%u:%g %n' linked";
        let seen = bench.shell(&[&base, &first], &second, change);
        assert_eq!(seen, "1:1 other\n2:2 second\n3:3 touched\n4:4 fifo\n0:0 replaced\n2:2 linked\n", "{who:?}");
        let expected = "/ 0:0 0755 directory\n/work 0:0 0755 directory\n/work/fifo 4:4 0600 fifo\n\
                        /work/linked 2:2 0777 link to x\n/work/other 1:1 0777 link to x\n/work/renamed whiteout\n\
                        /work/replaced 0:0 0777 link to y\n/work/second 2:2 0777 link to x\n\
                        /work/touched 3:3 0777 link to x\n";
        assert_eq!(bench.dump(&second), expected, "{who:?}");
    }
}

fn another_root_inside_is_the_root_of_its_paths() {
    for who in ALL {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let script = "mkdir -p /work/jail/bin /work/jail/d; cp /bin/busybox /work/jail/bin; ln -s /d /work/jail/link; \
                      chroot /work/jail /bin/busybox sh -c 'echo > /link/file; busybox chown 7:7 /link/file; \
                      busybox stat -c %u:%g /d/file'; chown 8:8 /work/jail/bin; stat -c %u:%g /work/jail/d/file /d 2>&1";
        let seen = bench.run(&[&base], &upper).args(&["--", "/bin/sh", "-c", script]).output();
        let seen = String::from_utf8(seen.stdout).unwrap();
        assert!(seen.starts_with("7:7\n7:7\n") && seen.contains("cannot statx '/d'"), "{who:?}: {seen}");
        let dump = bench.dump(&upper);
        assert!(dump.contains("/work/jail/d/file 7:7 0644") && dump.contains("/work/jail/bin 8:8"), "{who:?}: {dump}");
    }
}
