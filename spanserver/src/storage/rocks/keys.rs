//! How keys and values are laid out in each family; see the table in [`super`].

use super::beyond_repair;
use crate::storage::StorageError;
use proto::request::Versioned;
use proto::{GroupId, Slot, Value};
use rocksdb::ReadOptions;
use truetime::Timestamp;

pub fn log_key(group: GroupId, slot: Slot) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&group.0.to_be_bytes());
    key[4..].copy_from_slice(&slot.0.to_be_bytes());
    key
}

/// The first key after a slot's: ranges are removed up to their end, not including it.
pub fn log_key_after(group: GroupId, slot: Slot) -> [u8; 13] {
    let mut key = [0; 13];
    key[..12].copy_from_slice(&log_key(group, slot));
    key
}

pub fn slot_of(key: &[u8]) -> Option<Slot> {
    let slot = <[u8; 8]>::try_from(key.get(4..)?).ok()?;
    Some(Slot(u64::from_be_bytes(slot)))
}

/// One tablet of a group; the prefix of its keys. Each tablet of a group is another generation:
/// a number that no other tablet of the group ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TabletId {
    pub group: GroupId,
    pub generation: u32,
}

impl TabletId {
    pub const PREFIX_BYTES: usize = 8;

    pub fn prefix(self) -> [u8; Self::PREFIX_BYTES] {
        let mut prefix = [0; Self::PREFIX_BYTES];
        prefix[..4].copy_from_slice(&self.group.0.to_be_bytes());
        prefix[4..].copy_from_slice(&self.generation.to_be_bytes());
        prefix
    }

    /// The key of a row in this tablet.
    pub fn key(self, key: &[u8]) -> Vec<u8> {
        [&self.prefix()[..], key].concat()
    }

    /// The tablet a stored key is of.
    pub fn of(stored: &[u8]) -> Option<TabletId> {
        let (group, rest) = stored.split_first_chunk()?;
        let generation = u32::from_be_bytes(*rest.first_chunk()?);
        Some(TabletId { group: GroupId(u32::from_be_bytes(*group)), generation })
    }
}

/// A timestamp as RocksDB's comparator wants it: little-endian.
pub fn timestamp(at: Timestamp) -> [u8; 8] {
    at.micros().to_le_bytes()
}

/// The header and the row of a stored version.
pub fn versioned(group: GroupId, stored: &[u8]) -> Result<Versioned, StorageError> {
    let (written, row) = stored
        .split_first_chunk::<8>()
        .ok_or_else(|| beyond_repair(format!("a version of {group} without its timestamp")))?;
    Ok((Timestamp::from_micros(u64::from_be_bytes(*written)), Value::copy_from_slice(row)))
}

/// The checksum covers the key too: a value in another's place is damage as well.
fn checksum(key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_be_bytes()
}

pub fn seal(sealed: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    sealed.clear();
    sealed.extend_from_slice(&checksum(key, value));
    sealed.extend_from_slice(value);
}

pub fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = sealed.split_at_checked(4)?;
    (sum == checksum(key, value)).then_some(value)
}

/// Bounds of a cursor; an empty `end` is none.
pub fn bounds(start: &[u8], end: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(start);
    if !end.is_empty() {
        options.set_iterate_upper_bound(end);
    }
    options
}
