//! What is done inside by a program, because a shell cannot.
#![expect(unsafe_code, reason = "system calls are tried raw, as hostile programs make them")]

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::ExitCode;
use std::time::Instant;

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let rest = arguments.get(1..).unwrap_or_default();
    match arguments[0].as_str() {
        "durable" => durable(),
        "refused" => refused(),
        "identity" => identity(),
        "owners" => owners(),
        "acl" => acl(&rest[0]),
        "costs" => costs(rest[0].parse().unwrap()),
        probe => panic!("{probe}"),
    }
    ExitCode::SUCCESS
}

fn call(number: i64, arguments: [usize; 5]) -> Result<i64, i32> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers pass pointers that are valid for their call, or null.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
        value => Ok(value),
    }
}

const NONE: [usize; 5] = [0; 5];

/// Calls that wait for a disk succeed without looking at their arguments.
fn durable() {
    let nonsense = [usize::MAX, 0, 0, 0, 0];
    for number in [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs, libc::SYS_sync_file_range, libc::SYS_msync] {
        assert_eq!(call(number, nonsense), Ok(0), "{number}");
    }
    assert_eq!(call(libc::SYS_sync, NONE), Ok(0));
}

/// Calls that lead out.
fn refused() {
    let text = |text: &str| CString::new(text).unwrap().into_raw() as usize;
    let mount = [text("none"), text("/tmp"), text("tmpfs"), 0, 0];
    let user = libc::CLONE_NEWUSER as usize;
    let cases = [
        (libc::SYS_mount, mount, libc::EPERM),
        (libc::SYS_umount2, [text("/proc"), 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_unshare, [user, 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_clone, [user | libc::SIGCHLD as usize, 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_clone3, NONE, libc::ENOSYS),
        (libc::SYS_setns, NONE, libc::EPERM),
        (libc::SYS_pivot_root, [text("/"), text("/"), 0, 0, 0], libc::EPERM),
        (libc::SYS_fsopen, [text("tmpfs"), 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_open_by_handle_at, NONE, libc::EPERM),
        (libc::SYS_ptrace, NONE, libc::EPERM),
        (libc::SYS_bpf, NONE, libc::EPERM),
        (libc::SYS_keyctl, NONE, libc::EPERM),
        (libc::SYS_reboot, NONE, libc::EPERM),
        (libc::SYS_io_uring_setup, NONE, libc::ENOSYS),
        (0x4000_0000 + libc::SYS_getpid, NONE, libc::ENOSYS),
    ];
    for (number, arguments, errno) in cases {
        assert_eq!(call(number, arguments), Err(errno), "{number}");
    }
    // Writing to the machine's settings fails, whoever one is.
    let settings = ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"];
    for path in settings.into_iter().filter(|path| std::path::Path::new(path).exists()) {
        let error = fs::OpenOptions::new().write(true).open(path).unwrap_err();
        assert!([Some(libc::EROFS), Some(libc::EACCES)].contains(&error.raw_os_error()), "{path}: {error}");
    }
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"] {
        assert_eq!(fs::read(path).unwrap_or_default(), b"", "{path}");
    }
    // Process 1 is a copy of the builder.
    assert!(fs::read_link("/proc/1/exe").is_err() && fs::read_link("/proc/1/fd/0").is_err());
    assert!(fs::read("/proc/1/environ").is_err() && fs::File::open("/proc/1/mem").is_err());
}

fn ids() -> [u32; 6] {
    let mut ids = [u32::MAX; 6];
    // SAFETY: each pointer is to one `u32`.
    unsafe {
        libc::getresuid(&raw mut ids[0], &raw mut ids[1], &raw mut ids[2]);
        libc::getresgid(&raw mut ids[3], &raw mut ids[4], &raw mut ids[5]);
    }
    ids
}

fn groups() -> Vec<u32> {
    let mut groups = vec![0; 100];
    // SAFETY: there is room for 100.
    let length = unsafe { libc::getgroups(100, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(length).unwrap());
    groups
}

/// Ids that a process sets are its own, and its children's, and files that it makes belong to them.
fn identity() {
    assert_eq!(ids(), [0; 6]);
    let failed = |result: i32| result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
    let own = |path: &str| fs::symlink_metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    fs::create_dir("/work/open").unwrap();
    fs::set_permissions("/work/open", std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let thread = std::thread::spawn(|| {
        // The raw call concerns this thread only.
        assert_eq!(call(libc::SYS_setfsuid, [7, 0, 0, 0, 0]), Ok(0));
        assert_eq!(call(libc::SYS_setfsuid, [usize::MAX, 0, 0, 0, 0]), Ok(7));
        fs::write("/work/open/by-thread", "").unwrap();
    });
    thread.join().unwrap();
    assert_eq!(own("/work/open/by-thread"), (7, 0));
    fs::write("/work/open/by-root", "").unwrap();
    assert_eq!(own("/work/open/by-root"), (0, 0));
    // SAFETY: ids and lists of ids are plain values.
    unsafe {
        let wanted = [300, 200];
        assert_eq!(libc::setgroups(2, wanted.as_ptr()), 0);
        assert_eq!(libc::setresgid(106, 106, 0), 0);
        assert_eq!(libc::setresuid(105, 105, 0), 0);
        assert_eq!(ids(), [105, 105, 0, 106, 106, 0]);
        assert_eq!(groups(), [200, 300]);
        assert!(failed(libc::setgroups(0, std::ptr::null())));
        assert!(failed(libc::setuid(5)));
        assert_eq!(libc::seteuid(0), 0, "the saved id is the way back");
        assert_eq!(libc::setgid(106), 0);
        assert_eq!(libc::setuid(105), 0);
        assert!(failed(libc::setuid(0)));
        assert!(failed(libc::setreuid(0, 0)));
        assert!(failed(libc::setgid(0)));
        assert_eq!((libc::getuid(), libc::geteuid(), libc::getgid(), libc::getegid()), (105, 105, 106, 106));
    }
    assert_eq!(ids(), [105, 105, 105, 106, 106, 106]);
    let path = "/work/open/by-redis";
    fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(path).unwrap();
    fs::create_dir("/work/open/directory").unwrap();
    fs::write("/work/open/directory/file", "x").unwrap();
    std::os::unix::fs::symlink("nowhere", "/work/open/link").unwrap();
    fs::remove_file("/work/open/directory/file").unwrap();
    std::os::unix::fs::symlink("/work/open/target", "/work/open/other").unwrap();
    fs::write("/work/open/other", "through a link").unwrap();
    for name in ["by-redis", "directory", "link", "other", "target"] {
        assert_eq!(own(&format!("/work/open/{name}")), (105, 106), "{name}");
    }
    assert_eq!(std::os::unix::fs::chown(path, Some(0), None).unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(std::os::unix::fs::chown(path, None, Some(1)).unwrap_err().raw_os_error(), Some(libc::EPERM));
    std::os::unix::fs::chown(path, Some(105), Some(200)).unwrap();
    assert_eq!(own(path), (105, 200));
    assert_eq!(fs::write("/work/no", "").unwrap_err().raw_os_error(), Some(libc::EACCES));
    // A child of a child whose parent has gone is who its ancestors were.
    let script = "(sleep 0.2; id -u > /work/open/late; mkdir /work/open/late.d) & exit 0";
    assert!(std::process::Command::new("/bin/sh").args(["-c", script]).status().unwrap().success());
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(fs::read_to_string("/work/open/late").unwrap(), "105\n");
    assert_eq!((own("/work/open/late"), own("/work/open/late.d")), ((105, 106), (105, 106)));
}

/// Every way to change an owner and to see it.
fn owners() {
    let directory = fs::File::open("/work").unwrap();
    fs::write("/work/file", "").unwrap();
    std::os::unix::fs::symlink("file", "/work/link").unwrap();
    let seen = |path: &str| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    std::os::unix::fs::chown("/work/link", Some(1), Some(2)).unwrap();
    assert_eq!(seen("/work/file"), (1, 2));
    std::os::unix::fs::lchown("/work/link", Some(3), Some(4)).unwrap();
    let link = fs::symlink_metadata("/work/link").unwrap();
    assert_eq!((link.uid(), link.gid(), seen("/work/file")), (3, 4, (1, 2)));
    let file = fs::File::open("/work/file").unwrap();
    std::os::unix::fs::fchown(&file, Some(5), None).unwrap();
    let by_descriptor = file.metadata().unwrap();
    assert_eq!((by_descriptor.uid(), by_descriptor.gid()), (5, 2));
    std::env::set_current_dir("/work").unwrap();
    std::os::unix::fs::chown("file", Some(6), Some(6)).unwrap();
    assert_eq!(seen("../work/file"), (6, 6));
    use std::os::fd::AsRawFd;
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::os::unix::fs::chown(&itself, Some(7), Some(7)).unwrap();
    assert_eq!(seen("/work/file"), (7, 7));
    let has_proc = std::path::Path::new("/proc/self/fd").exists();
    if has_proc {
        assert_eq!(seen(&itself), (7, 7));
    }
    let name = CString::new("file").unwrap();
    let at = |flags: usize, name: &CString, id: usize| {
        let directory = usize::try_from(if flags == 0 { directory.as_raw_fd() } else { file.as_raw_fd() }).unwrap();
        call(libc::SYS_fchownat, [directory, name.as_ptr() as usize, id, id, flags])
    };
    assert_eq!(at(0, &name, 8), Ok(0));
    assert_eq!(seen("file"), (8, 8));
    assert_eq!(at(libc::AT_EMPTY_PATH as usize, &CString::default(), 9), Ok(0));
    assert_eq!(seen("file"), (9, 9));
    let missing = std::os::unix::fs::chown("/work/missing", Some(1), Some(1)).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(call(libc::SYS_fchown, [usize::MAX, 1, 1, 0, 0]), Err(libc::EBADF));
    if has_proc {
        let null = std::os::unix::fs::chown("/dev/null", Some(1), Some(1)).unwrap_err();
        assert_eq!(null.raw_os_error(), Some(libc::EROFS));
    }
    // Our own notes are not seen.
    let names = xattr_names("/work/file");
    assert!(!names.iter().any(|name| name.contains("drystone")), "{names:?}");
}

fn xattr_names(path: &str) -> Vec<String> {
    let mut list = vec![0; 4096];
    let length = rustix::fs::listxattr(path, list.as_mut_slice()).unwrap();
    String::from_utf8(list[..length].to_vec()).unwrap().split_terminator('\0').map(str::to_owned).collect()
}

fn acl_of(named: &[(u8, u8, u32)]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in named {
        value.extend([*tag, 0, *bits, 0]);
        value.extend(id.to_le_bytes());
    }
    value
}

/// Access control lists that name users, and files made below them.
fn acl(directory: &str) {
    let group = |bits, id| acl_of(&[(1, 7, !0), (4, 5, !0), (8, bits, id), (16, bits, !0), (32, 5, !0)]);
    let set =
        |path: &str, name: &str, value: &[u8]| rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty());
    let get = |path: &str, name: &str| {
        let mut value = vec![0; 1000];
        rustix::fs::getxattr(path, name, value.as_mut_slice()).map(|length| value[..length].to_vec())
    };
    let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
    fs::create_dir(directory).unwrap();
    set(directory, access, &group(7, 4)).unwrap();
    set(directory, default, &group(5, 4)).unwrap();
    assert_eq!(get(directory, access).unwrap(), group(7, 4));
    assert_eq!(fs::metadata(directory).unwrap().mode() & 0o777, 0o775);
    let file = format!("{directory}/file");
    fs::write(&file, "").unwrap();
    assert!(xattr_names(&file).contains(&access.to_owned()));
    fs::create_dir(format!("{directory}/below")).unwrap();
    fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    let known = format!("{directory}/known");
    fs::write(&known, "").unwrap();
    set(&known, access, &group(7, 0)).unwrap();
    let gone = format!("{directory}/gone");
    fs::write(&gone, "").unwrap();
    set(&gone, access, &group(7, 9)).unwrap();
    rustix::fs::removexattr(&*gone, access).unwrap();
    assert_eq!(get(&gone, access), Err(rustix::io::Errno::NODATA));
    assert_eq!(set(&file, default, &group(5, 4)), Err(rustix::io::Errno::ACCESS));
    assert_eq!(set(&file, access, b"nonsense"), Err(rustix::io::Errno::OPNOTSUPP));
    set(&file, "user.note", b"kept").unwrap();
}

/// Prints nanoseconds for each of some calls.
fn costs(rounds: u32) {
    fs::write("/work/plain", "").unwrap();
    fs::write("/work/owned", "").unwrap();
    std::os::unix::fs::chown("/work/owned", Some(105), Some(106)).unwrap();
    let time = |name: &str, call: &dyn Fn(u32)| {
        let start = Instant::now();
        (0..rounds).for_each(call);
        println!("{name} {}", start.elapsed().as_nanos() / u128::from(rounds));
    };
    let file = fs::File::open("/work/plain").unwrap();
    time("stat-plain", &|_| assert!(fs::metadata("/work/plain").is_ok()));
    time("stat-recorded", &|_| assert!(fs::metadata("/work/owned").is_ok()));
    time("fstat-plain", &|_| assert!(file.metadata().is_ok()));
    time("chown-root", &|_| std::os::unix::fs::chown("/work/plain", Some(0), Some(0)).unwrap());
    time("chown-same", &|_| std::os::unix::fs::chown("/work/owned", Some(105), Some(106)).unwrap());
    time("chown-other", &|round| std::os::unix::fs::chown("/work/owned", Some(round), Some(106)).unwrap());
    time("create", &|_| drop(fs::File::create("/work/created").unwrap()));
    // SAFETY: no arguments.
    time("getuid", &|_| assert_eq!(unsafe { libc::getuid() }, 0));
    time("getpid", &|_| assert_eq!(call(libc::SYS_getpid, NONE), Ok(2)));
}
