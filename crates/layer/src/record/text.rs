//! Records as they are written down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use super::{Device, DeviceKind, Record, damaged};

impl Record {
    /// The record as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Reads a record; anything but what [`Record::encode`] writes is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ').peekable();
        let (uid, gid) = words.next()?.split_once(':')?;
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let device = words.next_if(|word| word.contains(':')).map(decode_device);
        let mut xattrs = BTreeMap::new();
        for word in words {
            let (name, value) = word.split_once('=')?;
            xattrs.insert(from_hex(name)?, from_hex(value)?);
        }
        let record = Self { uid, gid, device: device.map_or(Some(None), |device| device.map(Some))?, xattrs };
        (record.encode() == bytes).then_some(record)
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.uid, self.gid)?;
        if let Some(Device { kind, major, minor }) = self.device {
            let kind = match kind {
                DeviceKind::Char => 'c',
                DeviceKind::Block => 'b',
            };
            write!(formatter, " {kind}:{major}:{minor}")?;
        }
        for (name, value) in &self.xattrs {
            write!(formatter, " {}={}", to_hex(name), to_hex(value))?;
        }
        Ok(())
    }
}

fn decode_device(word: &str) -> Option<Device> {
    let mut parts = word.split(':');
    let kind = match parts.next()? {
        "c" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        _ => return None,
    };
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Device { kind, major, minor })
}

pub(super) fn decode_record(bytes: &[u8], place: &dyn std::fmt::Debug) -> io::Result<Record> {
    Record::decode(bytes).ok_or_else(|| {
        let found = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        damaged(format!("{place:?}: expected a record of owners, found `{found}`"))
    })
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes any text");
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}
