//! Keys, values, ranges, pages.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use truetime::Timestamp;

/// An encoded key: byte order is the order of the typed keys.
pub type Key = Bytes;
/// An encoded row.
pub type Value = Bytes;

/// Keys from `start` (included) to `end` (excluded). An empty `end` means "to the end".
///
/// A range with `start ≥ end` (and a non-empty `end`) holds nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Key,
    /// First key beyond it; empty: unbounded.
    pub end: Key,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> KeyRange {
        KeyRange { start: Key::new(), end: Key::new() }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        KeyRange { start: Key::copy_from_slice(prefix), end: prefix_end(prefix) }
    }

    /// Whether the key lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && (self.end.is_empty() || key < self.end)
    }

    /// Whether the range holds no key at all.
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }

    /// Whether some key lies in both.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        !self.is_empty()
            && !other.is_empty()
            && (other.end.is_empty() || self.start < other.end)
            && (self.end.is_empty() || other.start < self.end)
    }
}

/// The first key after all keys that begin with `prefix`; empty when there is none.
pub fn prefix_end(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Key::from(end);
        }
        end.pop();
    }
    Key::new()
}

/// The smallest key greater than `key`.
pub fn key_after(key: &[u8]) -> Key {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Key::from(next)
}

/// What a lock or a prepared transaction covers: one key, or a range (phantoms! X1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Span {
    /// One key.
    Key(Key),
    /// All keys of a range, those that do not exist included.
    Range(KeyRange),
}

impl Span {
    /// Whether some key lies in both.
    pub fn overlaps(&self, other: &Span) -> bool {
        match (self, other) {
            (Span::Key(a), Span::Key(b)) => a == b,
            (Span::Key(k), Span::Range(r)) | (Span::Range(r), Span::Key(k)) => r.contains(k),
            (Span::Range(a), Span::Range(b)) => a.overlaps(b),
        }
    }

    /// First key of the span.
    pub fn start(&self) -> &Key {
        match self {
            Span::Key(key) => key,
            Span::Range(range) => &range.start,
        }
    }
}

/// A row as a tablet holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The commit timestamp that wrote it.
    pub written: Timestamp,
}

/// Part of a range, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where to go on; `None`: the range is exhausted.
    pub resume: Option<Key>,
}

impl Page {
    /// The page with these writes in the place of what it has of their keys. They must lie in what
    /// the page covers, up to `resume`, and it may get longer by them.
    pub fn overlaid<'a>(
        self,
        writes: impl Iterator<Item = (&'a Key, &'a Option<Value>, Timestamp)>,
    ) -> Page {
        let mut writes = writes.peekable();
        if writes.peek().is_none() {
            return self;
        }
        let rows = self.rows.into_iter().map(|row| (row.key.clone(), row));
        let mut rows: BTreeMap<Key, Row> = rows.collect();
        for (key, value, written) in writes {
            match value.clone() {
                Some(value) => rows.insert(key.clone(), Row { key: key.clone(), value, written }),
                None => rows.remove(key),
            };
        }
        Page { rows: rows.into_values().collect(), resume: self.resume }
    }
}

/// A buffered write: `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The key written.
    pub key: Key,
    /// The new value, or `None` for "no row".
    pub value: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(a: &str, b: &str) -> KeyRange {
        KeyRange {
            start: Key::copy_from_slice(a.as_bytes()),
            end: Key::copy_from_slice(b.as_bytes()),
        }
    }

    #[test]
    fn prefix_ends_after_its_last_key() {
        assert_eq!(prefix_end(b"ab"), Key::from_static(b"ac"));
        assert_eq!(prefix_end(b"a\xff"), Key::from_static(b"b"));
        assert!(prefix_end(b"\xff\xff").is_empty());
        assert!(KeyRange::prefix(b"\xff").contains(b"\xff\xff"));
    }

    #[test]
    fn overlap_is_symmetric_and_half_open() {
        for (a, b, expected) in [
            (range("a", "c"), range("b", "d"), true),
            (range("a", "b"), range("b", "c"), false),
            (range("a", ""), range("z", ""), true),
            (range("c", "a"), range("", ""), false),
        ] {
            assert_eq!(a.overlaps(&b), expected);
            assert_eq!(b.overlaps(&a), expected);
        }
        let key = Span::Key(Key::from_static(b"b"));
        assert!(key.overlaps(&Span::Range(range("a", "c"))));
        assert!(!key.overlaps(&Span::Range(range("c", "d"))));
    }
}
