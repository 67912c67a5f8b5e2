//! Small texts about pushes from this layout, each for one process at a time.
//!
//! ```text
//! .store/sending/<hex>     what is known of one upload; locked by the process that sends
//! ```
//!
//! A text that a kill has cut in two is as good as none: whoever reads it has to ask the registry anyway.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::partial::{is_at, open_alone};
use crate::{CacheKey, Layout};

/// The longest text that is read.
const LONGEST: u64 = 16 << 10;

/// A text that stays for the next process. One that is empty in the end leaves no file.
pub struct Note {
    file: File,
    path: PathBuf,
}

impl Layout {
    /// The text of this name. `None` if another process has it, or nothing can be kept here.
    pub fn note(&self, name: CacheKey) -> Option<Note> {
        let directory = self.own("sending");
        fs::create_dir_all(&directory).ok()?;
        let path = directory.join(name.hex());
        let file = open_alone(&path)?;
        Some(Note { file, path })
    }
}

impl Note {
    /// What is written.
    pub fn read(&self) -> Option<String> {
        let mut text = String::new();
        // By its path: the file itself stands wherever it was read to last.
        File::open(&self.path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// Replaces it. What cannot be written is not kept.
    pub fn write(&self, text: &str) {
        if self.file.set_len(0).and_then(|()| self.file.write_all_at(text.as_bytes(), 0)).is_err() {
            let _ = self.file.set_len(0);
        }
    }

    /// Leaves nothing.
    pub fn clear(&self) {
        let _ = self.file.set_len(0);
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let is_empty = self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if is_empty && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use content::Digest;

    use super::*;

    #[test]
    fn a_note_stays_for_the_next_and_is_nobody_elses_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path().join("oci")).unwrap();
        let name = Digest::of(b"one");
        let first = layout.note(name).unwrap();
        assert_eq!(first.read(), None);
        first.write("a longer text");
        first.write("text");
        assert!(layout.note(name).is_none());
        drop(first);
        let second = layout.note(name).unwrap();
        assert_eq!(second.read().as_deref(), Some("text"));
        second.clear();
        drop(second);
        assert!(fs::read_dir(layout.own("sending")).unwrap().next().is_none());
    }
}
