//! Access control lists in the form that extended attributes have: what the kernel knows about them, for lists that it
//! refuses because they name users who do not exist in a user namespace with one id.
//!
//! See `fs/posix_acl.c` of the kernel, and acl(5).

/// A checked list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    bits: u16,
    id: u32,
}

const VERSION: u32 = 2;
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// The id of entries that have none.
const NOBODY: u32 = u32::MAX;

impl Acl {
    /// Reads a list. None if the kernel would call it invalid, and for an empty one, which means none.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() || entries.is_empty() {
            return None;
        }
        let acl = Self { entries: entries.iter().map(Entry::parse).collect() };
        acl.is_valid().then_some(acl)
    }

    /// Whether a value is a list without entries, which means that there is to be none.
    pub(crate) fn is_empty(value: &[u8]) -> bool {
        value == VERSION.to_le_bytes()
    }

    /// As it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for Entry { tag, bits, id } in &self.entries {
            value.extend(tag.to_le_bytes());
            value.extend(bits.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    /// Whether the entries are complete, in order, and each of a kind that exists.
    fn is_valid(&self) -> bool {
        let tags: Vec<u16> = self.entries.iter().map(|entry| entry.tag).collect();
        let count = |tag| tags.iter().filter(|found| **found == tag).count();
        let named = count(USER) + count(GROUP) > 0;
        tags.is_sorted()
            && tags.iter().all(|tag| [OWNER, USER, OWNING_GROUP, GROUP, MASK, OTHERS].contains(tag))
            && [OWNER, OWNING_GROUP, OTHERS].into_iter().all(|tag| count(tag) == 1)
            && (count(MASK) == 1 || (count(MASK) == 0 && !named))
            && self.entries.iter().all(|entry| entry.bits <= 7)
            && self.entries.iter().all(|entry| !entry.is_named() || entry.id != NOBODY)
    }

    /// Whether it names someone other than root.
    pub(crate) fn is_foreign(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_named() && entry.id != 0)
    }

    /// The permission bits of the mode that goes with it.
    pub(crate) fn mode(&self) -> u32 {
        let bits = |tag| self.entries.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.bits));
        let group = bits(MASK).or_else(|| bits(OWNING_GROUP));
        bits(OWNER).unwrap_or(0) << 6 | group.unwrap_or(0) << 3 | bits(OTHERS).unwrap_or(0)
    }

    /// The list and mode of a new file in a directory that has this as its default, when it is made with `mode`.
    pub(crate) fn inherited(&self, mode: u32) -> (Self, u32) {
        let masked = self.entries.iter().any(|entry| entry.tag == MASK);
        let mut acl = self.clone();
        for entry in &mut acl.entries {
            let wanted = match entry.tag {
                OWNER => mode >> 6,
                MASK => mode >> 3,
                OWNING_GROUP if !masked => mode >> 3,
                OTHERS => mode,
                _ => continue,
            };
            entry.bits &= (wanted & 7) as u16;
        }
        let mode = (mode & !0o777) | acl.mode();
        (acl, mode)
    }
}

impl Entry {
    fn parse(bytes: &[u8; 8]) -> Self {
        let [tag_low, tag_high, low, high, id @ ..] = *bytes;
        let tag = u16::from_le_bytes([tag_low, tag_high]);
        let id = if [USER, GROUP].contains(&tag) { u32::from_le_bytes(id) } else { NOBODY };
        Self { tag, bits: u16::from_le_bytes([low, high]), id }
    }

    fn is_named(&self) -> bool {
        [USER, GROUP].contains(&self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl { entries: entries.iter().map(|(tag, bits, id)| Entry { tag: *tag, bits: *bits, id: *id }).collect() }
    }

    fn with_group(id: u32) -> Acl {
        acl(&[(OWNER, 7, !0), (OWNING_GROUP, 5, !0), (GROUP, 5, id), (MASK, 5, !0), (OTHERS, 5, !0)])
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let with_group = with_group(4);
        assert_eq!(Acl::parse(&with_group.encode()), Some(with_group));
    }

    #[test]
    fn lists_that_the_kernel_refuses_are_refused() {
        let cases = [
            acl(&[]),
            acl(&[(OWNER, 7, !0), (OWNING_GROUP, 5, !0)]),
            acl(&[(OWNING_GROUP, 5, !0), (OWNER, 7, !0), (OTHERS, 5, !0)]),
            acl(&[(OWNER, 8, !0), (OWNING_GROUP, 5, !0), (OTHERS, 5, !0)]),
            acl(&[(OWNER, 7, !0), (USER, 7, 5), (OWNING_GROUP, 5, !0), (OTHERS, 5, !0)]),
            acl(&[(OWNER, 7, !0), (USER, 7, !0), (OWNING_GROUP, 5, !0), (MASK, 5, !0), (OTHERS, 5, !0)]),
            acl(&[(OWNER, 7, !0), (OWNER, 7, !0), (OWNING_GROUP, 5, !0), (OTHERS, 5, !0)]),
            acl(&[(OWNER, 7, !0), (OWNING_GROUP, 5, !0), (OTHERS, 5, !0), (0x40, 5, !0)]),
        ];
        for case in cases {
            assert_eq!(Acl::parse(&case.encode()), None, "{case:?}");
        }
        assert_eq!(Acl::parse(&[2, 0, 0, 0, 1]), None);
    }

    #[test]
    fn only_names_that_do_not_exist_inside_are_foreign() {
        assert!(with_group(4).is_foreign());
        assert!(!with_group(0).is_foreign());
    }

    #[test]
    fn a_new_file_gets_what_both_its_mode_and_the_default_allow() {
        let (inherited, mode) = with_group(4).inherited(0o100_640);
        let expected = acl(&[(OWNER, 6, !0), (OWNING_GROUP, 5, !0), (GROUP, 5, 4), (MASK, 4, !0), (OTHERS, 0, !0)]);
        assert_eq!((inherited, mode), (expected, 0o100_640));
    }
}
