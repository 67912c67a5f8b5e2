//! Removes directories that someone else's software filled: modes that forbid us to look, paths longer than the
//! kernel takes, nesting without end.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a directory and everything in it. An absent directory is not an error.
///
/// Every directory found is first moved up beside its parent, so that neither the depth of the tree nor the length
/// of its paths matters, and made writable, so that directories of mode 0 do not stop us. Symlinks are removed, never
/// followed. `path` must have a parent directory that only we write to.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this directory has no parent"));
    };
    let mut pending = vec![path.to_owned()];
    let mut moved = 0u64;
    while let Some(directory) = pending.pop() {
        match make_writable(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        }
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            make_writable(&entry.path())?;
            let mut beside = name.to_owned();
            beside.push(format!(".removed-{moved}"));
            let beside = parent.join(beside);
            moved += 1;
            fs::rename(entry.path(), &beside)?;
            pending.push(beside);
        }
        fs::remove_dir(&directory)?;
    }
    Ok(())
}

fn make_writable(directory: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(directory)?.permissions().mode();
    if mode & 0o700 == 0o700 { Ok(()) } else { fs::set_permissions(directory, Permissions::from_mode(0o700)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_forbidding_modes_and_links_goes_and_what_links_point_to_stays() {
        let bench = tempfile::tempdir().unwrap();
        let outside = bench.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let tree = bench.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a/b"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(tree.join("a"), Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_dir(bench.path()).unwrap().count(), 1);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn depth_and_path_length_do_not_matter() {
        let bench = tempfile::tempdir().unwrap();
        let tree = bench.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let name = "n".repeat(200);
        let spare = bench.path().join("spare");
        for _ in 0..100 {
            // Grown from the inside out: the whole path is 20,000 bytes and could not be made from the outside.
            fs::create_dir(&spare).unwrap();
            fs::rename(&tree, spare.join(&name)).unwrap();
            fs::rename(&spare, &tree).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(bench.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_absent_tree_is_already_removed() {
        let bench = tempfile::tempdir().unwrap();
        remove_tree(&bench.path().join("nothing")).unwrap();
    }
}
