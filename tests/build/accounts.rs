//! `users` and `groups` of a spec.

use fixtures::{DebBuilder, Owner, TarEntry};

use crate::support::family::{Bench, FAMILY};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:100:100::/:/usr/sbin/nologin\n+nis\n";
const GROUP: &str = "root:x:0:\ndaemon:x:100:\nadm:x:4:daemon\nshadow:x:42:\n";
const SHADOW: &str = "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n";
const GSHADOW: &str = "root:*::\ndaemon:*::\nadm:*::daemon\nshadow:*::\n";

/// A family with `base`, which has accounts as Debian has them, and `app` on it.
fn bench(app: &str) -> Bench {
    let bench = Bench::new();
    let secret = |path: &str, text: &str| {
        let mut entry = TarEntry::file(path, 0o640, text);
        entry.owner = Owner::new(0, 42, "", "");
        entry
    };
    let accounts = DebBuilder::new("accounts", "1")
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
        .entry(secret("etc/shadow", SHADOW))
        .entry(secret("etc/gshadow", GSHADOW));
    bench.archive([accounts.build()], &[]);
    bench
        .spec("family.yaml", FAMILY)
        .spec("base/image.yaml", "from: scratch\npackages: [accounts]\n")
        .spec("app/image.yaml", &format!("from: base\n{app}"));
    bench
}

const APP: &str = "\
groups: [{name: work, gid: 500}, {name: tools, system: true}, {name: free}]
users:
  - {name: redis, system: true, home: /var/lib/redis}
  - {name: worker, uid: 5000, group: work, groups: [adm, tools, '42'], shell: /bin/sh}
  - {name: free}
  - {name: next}
files: [{content: x, target: /x, owner: 'worker:tools'}]
";

#[test]
fn users_and_groups_are_lines_in_the_files_of_the_image() {
    let mut digests = Vec::new();
    for rung in ["root", "userns-single"] {
        let bench = bench(APP);
        bench.build(&["--sandbox", rung]).success();
        let file = |name: &str| bench.file("app", &format!("etc/{name}")).unwrap();
        assert_eq!(
            file("passwd"),
            "root:x:0:0:root:/root:/bin/sh\ndaemon:x:100:100::/:/usr/sbin/nologin\n\
             redis:x:102:102::/var/lib/redis:/usr/sbin/nologin\nworker:x:5000:500::/nonexistent:/bin/sh\n\
             free:x:1000:1000::/nonexistent:/usr/sbin/nologin\nnext:x:1001:1001::/nonexistent:/usr/sbin/nologin\n+nis\n"
        );
        assert_eq!(
            file("group"),
            "root:x:0:\ndaemon:x:100:\nadm:x:4:daemon,worker\nshadow:x:42:worker\nwork:x:500:\ntools:x:101:worker\n\
             free:x:1000:\nredis:x:102:\nnext:x:1001:\n"
        );
        assert!(file("shadow").starts_with(SHADOW), "{}", file("shadow"));
        assert!(file("shadow").contains("\nworker:!:16749:0:99999:7:::\n"), "{}", file("shadow"));
        assert!(file("gshadow").contains("\nadm:*::daemon,worker\n"), "{}", file("gshadow"));
        let listing = bench.listing("app");
        assert!(listing.contains("-rw-r----- 0/42") && listing.contains(" 5000/101 "), "{listing}");
        assert!(bench.build(&["--sandbox", rung]).success().stderr.contains("nothing to build"));
        bench.spec("app/image.yaml", &format!("from: base\n{}", APP.replace("uid: 5000", "uid: 5001")));
        assert!(bench.build(&["--sandbox", rung]).success().stderr.contains("built 1 of 2"));
        digests.push(bench.digests());
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn an_image_without_accounts_gets_those_of_its_spec() {
    let bench = bench("");
    bench.spec("app/image.yaml", "from: scratch\nusers: [{name: app}]\n");
    bench.build(&[]).success();
    let file = |name: &str| bench.file("app", name);
    assert_eq!(file("etc/passwd").as_deref(), Some("app:!:1000:1000::/nonexistent:/usr/sbin/nologin\n"));
    assert_eq!(file("etc/group").as_deref(), Some("app:x:1000:\n"));
    assert_eq!(file("etc/shadow"), None);
    assert_eq!(bench.listing("app").lines().filter(|line| line.ends_with(" etc/")).count(), 1);
}

#[test]
fn accounts_that_clash_are_shown_where_they_are_named() {
    let cases = [
        ("groups: [{name: adm}]", "has a group `adm` already, with the number 4"),
        ("groups: [{name: app, gid: 4}]", "the number 4 is that of the group `adm`"),
        ("groups: [{name: app}, {name: app}]", "has a group `app` already"),
        ("users: [{name: daemon}]", "has a user `daemon` already, with the number 100"),
        ("users: [{name: app, uid: 0}]", "the number 0 is that of the user `root`"),
        ("users: [{name: app, uid: 65535}]", "means \"no user\""),
        ("users: [{name: app, group: staff}]", "has no group `staff` at this point"),
        ("users: [{name: app, groups: [adm, '77']}]", "has no group `77` at this point"),
        ("users: [{name: app, home: '/a:b'}]", "`/a:b` cannot stand in /etc/passwd"),
        ("users: [{name: '12'}]", "`12` is a number"),
    ];
    for (app, expected) in cases {
        let failed = bench(app).build(&[]).failure(2, &["app/image.yaml:2:", expected]);
        assert!(failed.stdout.is_empty(), "{}", failed.stdout);
    }
}
