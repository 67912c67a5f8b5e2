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
