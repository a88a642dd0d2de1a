//! Which group holds which keys, as clients work it out.

use proto::{GroupId, Key, KeyRange};

/// Which group holds a key.
pub trait Placement: Send + Sync {
    /// The group of a key.
    fn group_of(&self, key: &[u8]) -> GroupId;
    /// The groups that may hold keys of a range, in ascending order.
    fn groups_of(&self, range: &KeyRange) -> Vec<GroupId>;
}

/// Keys spread over groups by a stable hash of their directory (S2).
///
/// Keys under `root_prefix` live in the root group; all others in groups `1..=groups`.
#[derive(Clone)]
pub struct HashPlacement {
    /// How many data groups there are.
    pub groups: u32,
    /// Keys with this prefix live in the root group. Empty: none do.
    pub root_prefix: Key,
    /// The directory of a key: the prefix that all keys of the directory share. `None`: the key
    /// is shorter than a directory (a bound of a wider range).
    pub directory: fn(&[u8]) -> Option<&[u8]>,
}

impl HashPlacement {
    fn is_root(&self, key: &[u8]) -> bool {
        !self.root_prefix.is_empty() && key.starts_with(&self.root_prefix)
    }
}

impl Placement for HashPlacement {
    fn group_of(&self, key: &[u8]) -> GroupId {
        if self.is_root(key) {
            return GroupId::ROOT;
        }
        let directory = (self.directory)(key).unwrap_or(key);
        GroupId(1 + stable_hash(directory) % self.groups)
    }

    fn groups_of(&self, range: &KeyRange) -> Vec<GroupId> {
        if range.is_empty() {
            return Vec::new();
        }
        if let Some(directory) = (self.directory)(&range.start) {
            let whole = KeyRange::prefix(directory);
            let ends_inside =
                !range.end.is_empty() && (whole.end.is_empty() || range.end <= whole.end);
            if ends_inside {
                return vec![self.group_of(&range.start)];
            }
        }
        let root = KeyRange::prefix(&self.root_prefix);
        let only_root =
            self.is_root(&range.start) && !range.end.is_empty() && range.end <= root.end;
        if only_root {
            return vec![GroupId::ROOT];
        }
        let touches_root = !self.root_prefix.is_empty() && range.overlaps(&root);
        let first = if touches_root { 0 } else { 1 };
        (first..=self.groups).map(GroupId).collect()
    }
}

/// FNV-1a: the rule that places directories, so it may never change for an existing universe.
fn stable_hash(bytes: &[u8]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash >> 32) as u32 ^ hash as u32
}
