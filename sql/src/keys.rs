//! Keys: typed primary keys as bytes whose order is the order of the typed tuples.
//!
//! ```text
//! root table     id:u32 count:u8  part … part                    (count parts)
//! its child      id:u32 count:u8  part … part  child:u32 part …  (the child's further parts)
//! its grandchild …                             child:u32 part …  grandchild:u32 part …
//!                └────── directory (S2) ─────┘
//! ```
//!
//! A part is a tag, then the value; parts end by themselves, so no part is a prefix of another:
//!
//! | tag | value |
//! |---|---|
//! | NULL | nothing; the smallest tag, so NULLs come first |
//! | BOOL | one byte |
//! | INT64, TIMESTAMP, DATE | big endian, sign bit flipped |
//! | FLOAT64 | big endian, negative numbers inverted; NaN first, `-0.0` as `0.0` |
//! | STRING, BYTES | bytes with `00` as `00 FF`, then `00 01` |
//!
//! A `DESC` part is the same with every byte inverted. Its tag has the high bit set, so that keys
//! can be cut into parts without a schema: that is how [`directory_of`] finds a key's directory,
//! which placement hashes.
//!
//! Invariants (property tests below): byte order is tuple order; a parent row sorts before its
//! children, which lie within the prefix of its key; what was encoded decodes to itself.

use crate::error::{ErrorKind, Result, SqlError};
use crate::value::Value;
use proto::Key;

/// What all keys of the catalog begin with: table id 0.
pub const CATALOG_PREFIX: [u8; 4] = [0; 4];

/// Longest key, in bytes (as Cloud Spanner publishes).
pub const KEY_BYTES_MAX: usize = 8 * 1024;

const TAG_NULL: u8 = 0x02;
const TAG_BOOL: u8 = 0x05;
const TAG_INT64: u8 = 0x08;
const TAG_FLOAT64: u8 = 0x0a;
const TAG_STRING: u8 = 0x10;
const TAG_BYTES: u8 = 0x12;
const TAG_DATE: u8 = 0x14;
const TAG_TIMESTAMP: u8 = 0x16;

/// One table on the way from the root table to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The table's id.
    pub table: u32,
    /// Whether each part this table adds to the key is `DESC`.
    pub parts: Vec<bool>,
}

/// How the keys of one table are built: the path of tables that leads to it, root first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLayout {
    levels: Vec<Level>,
}

impl KeyLayout {
    /// The layout of a table that is reached over these tables; the last is the table itself.
    pub fn new(levels: Vec<Level>) -> KeyLayout {
        assert!(!levels.is_empty(), "a table is on its own path");
        KeyLayout { levels }
    }

    /// How many parts a whole key has.
    pub fn parts(&self) -> usize {
        self.levels.iter().map(|level| level.parts.len()).sum()
    }

    /// The key of a row.
    ///
    /// # Errors
    /// `Limit` when it is too long.
    pub fn encode(&self, values: &[Value]) -> Result<Key> {
        assert_eq!(values.len(), self.parts(), "a key has all its parts");
        let key = self.encode_prefix(values);
        if key.len() > KEY_BYTES_MAX {
            return Err(SqlError::new(
                ErrorKind::Limit,
                format!("the key is {} bytes long; a key may have {KEY_BYTES_MAX}", key.len()),
            ));
        }
        Ok(Key::from(key))
    }

    /// What all keys begin with whose first parts are these. With no parts at all: what all keys
    /// of the root table and its descendants begin with.
    ///
    /// A prefix that ends where a level ends goes on with the next level's table id, if there is
    /// one: it is as tight as can be.
    pub fn encode_prefix(&self, values: &[Value]) -> Vec<u8> {
        let mut key = Vec::with_capacity(16 + 12 * values.len());
        let mut values = values.iter();
        for (depth, level) in self.levels.iter().enumerate() {
            key.extend_from_slice(&level.table.to_be_bytes());
            if depth == 0 {
                key.push(u8::try_from(level.parts.len()).expect("checked by the catalog"));
            }
            for desc in &level.parts {
                match values.next() {
                    Some(value) => encode_part(&mut key, value, *desc),
                    None => return key,
                }
            }
        }
        key
    }

    /// The part a table adds at this place of its key, and whether it is `DESC`.
    pub fn is_desc(&self, place: usize) -> bool {
        self.levels.iter().flat_map(|level| &level.parts).nth(place).copied().unwrap_or(false)
    }

    /// The key of the parent row: a prefix of the key. `None` for a root table.
    pub fn parent_key<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let above = self.levels.len().checked_sub(2)?;
        let mut rest = key;
        for (depth, level) in self.levels[..=above].iter().enumerate() {
            rest = rest.get(if depth == 0 { 5 } else { 4 }..)?;
            for _ in &level.parts {
                rest = &rest[skip_part(rest)?..];
            }
        }
        Some(&key[..key.len() - rest.len()])
    }

    /// Cuts a key into its parts. `None`: it is not a key of this table.
    pub fn split<'k>(&self, key: &'k [u8], parts: &mut Vec<&'k [u8]>) -> Option<()> {
        parts.clear();
        let mut rest = key;
        for (depth, level) in self.levels.iter().enumerate() {
            let (table, after) = rest.split_first_chunk::<4>()?;
            if u32::from_be_bytes(*table) != level.table {
                return None;
            }
            rest = after;
            if depth == 0 {
                rest = rest.get(1..)?;
            }
            for _ in &level.parts {
                let length = skip_part(rest)?;
                let (part, after) = rest.split_at(length);
                parts.push(part);
                rest = after;
            }
        }
        rest.is_empty().then_some(())
    }

    /// The parts that a key or a bound between keys has whole, for people.
    pub(crate) fn whole_parts(&self, bytes: &[u8]) -> Vec<Value> {
        let mut values = Vec::new();
        let mut rest = bytes;
        for (depth, level) in self.levels.iter().enumerate() {
            let Some(after) = rest.get(if depth == 0 { 5 } else { 4 }..) else { return values };
            rest = after;
            for _ in &level.parts {
                let Some(length) = skip_part(rest) else { return values };
                let (part, after) = rest.split_at(length);
                let Some(value) = decode_part(part) else { return values };
                values.push(value);
                rest = after;
            }
        }
        values
    }

    /// The parts of a key as values. `None`: it is not a key of this table.
    pub fn decode(&self, key: &[u8]) -> Option<Vec<Value>> {
        let mut parts = Vec::with_capacity(self.parts());
        self.split(key, &mut parts)?;
        parts.into_iter().map(decode_part).collect()
    }
}

/// The directory of a key: the root row's key, which all its descendants' keys begin with.
/// `None`: the key is shorter than that, a bound of a wider range.
pub fn directory_of(key: &[u8]) -> Option<&[u8]> {
    let count = *key.get(4)?;
    let mut length = 5;
    for _ in 0..count {
        length += skip_part(&key[length..])?;
    }
    Some(&key[..length])
}

/// Appends a part.
pub fn encode_part(key: &mut Vec<u8>, value: &Value, desc: bool) {
    let start = key.len();
    match value {
        Value::Null => key.push(TAG_NULL),
        Value::Bool(value) => key.extend_from_slice(&[TAG_BOOL, u8::from(*value)]),
        Value::Int64(value) => {
            key.push(TAG_INT64);
            key.extend_from_slice(&flip(*value).to_be_bytes());
        }
        Value::Float64(value) => {
            key.push(TAG_FLOAT64);
            key.extend_from_slice(&float_order(*value).to_be_bytes());
        }
        Value::String(text) => {
            key.push(TAG_STRING);
            escape(key, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            key.push(TAG_BYTES);
            escape(key, bytes);
        }
        Value::Date(days) => {
            key.push(TAG_DATE);
            key.extend_from_slice(&((*days as u32) ^ (1 << 31)).to_be_bytes());
        }
        Value::Timestamp(micros) => {
            key.push(TAG_TIMESTAMP);
            key.extend_from_slice(&flip(*micros).to_be_bytes());
        }
    }
    if desc {
        key[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

/// The value of a part.
pub fn decode_part(part: &[u8]) -> Option<Value> {
    let (&tag, body) = part.split_first()?;
    if tag < 0x80 {
        return decode_body(tag, body);
    }
    let inverted: Vec<u8> = body.iter().map(|byte| !byte).collect();
    decode_body(!tag, &inverted)
}

fn decode_body(tag: u8, body: &[u8]) -> Option<Value> {
    Some(match tag {
        TAG_NULL => Value::Null,
        TAG_BOOL => Value::Bool(*body.first()? != 0),
        TAG_INT64 => Value::Int64(unflip(u64::from_be_bytes(body.try_into().ok()?))),
        TAG_FLOAT64 => Value::Float64(float_of(u64::from_be_bytes(body.try_into().ok()?))),
        TAG_STRING => Value::String(String::from_utf8(unescape(body)?).ok()?),
        TAG_BYTES => Value::Bytes(unescape(body)?),
        TAG_DATE => Value::Date((u32::from_be_bytes(body.try_into().ok()?) ^ (1 << 31)) as i32),
        TAG_TIMESTAMP => Value::Timestamp(unflip(u64::from_be_bytes(body.try_into().ok()?))),
        _ => return None,
    })
}

/// The length of the first part of these bytes.
fn skip_part(bytes: &[u8]) -> Option<usize> {
    let tag = *bytes.first()?;
    let (tag, inversion) = if tag < 0x80 { (tag, 0x00) } else { (!tag, 0xff) };
    let length = match tag {
        TAG_NULL => 1,
        TAG_BOOL => 2,
        TAG_DATE => 5,
        TAG_INT64 | TAG_FLOAT64 | TAG_TIMESTAMP => 9,
        TAG_STRING | TAG_BYTES => {
            let mut at = 1;
            loop {
                if *bytes.get(at)? ^ inversion != 0x00 {
                    at += 1;
                } else if *bytes.get(at + 1)? ^ inversion == 0x01 {
                    break at + 2;
                } else {
                    at += 2;
                }
            }
        }
        _ => return None,
    };
    (length <= bytes.len()).then_some(length)
}

fn flip(value: i64) -> u64 {
    (value as u64) ^ (1 << 63)
}

fn unflip(value: u64) -> i64 {
    (value ^ (1 << 63)) as i64
}

fn float_order(value: f64) -> u64 {
    if value.is_nan() {
        return 0;
    }
    let bits = (value + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

fn float_of(order: u64) -> f64 {
    match order {
        0 => f64::NAN,
        order if order >> 63 == 1 => f64::from_bits(order & !(1 << 63)),
        order => f64::from_bits(!order),
    }
}

fn escape(key: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        key.push(*byte);
        if *byte == 0x00 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0x00, 0x01]);
}

fn unescape(body: &[u8]) -> Option<Vec<u8>> {
    let body = body.strip_suffix(&[0x00, 0x01])?;
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body.iter();
    while let Some(byte) = rest.next() {
        bytes.push(*byte);
        if *byte == 0x00 && rest.next() != Some(&0xff) {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    fn root(parts: &[bool]) -> KeyLayout {
        KeyLayout::new(vec![Level { table: 7, parts: parts.to_vec() }])
    }

    fn child(parts: &[bool], more: &[bool]) -> KeyLayout {
        KeyLayout::new(vec![
            Level { table: 7, parts: parts.to_vec() },
            Level { table: 9, parts: more.to_vec() },
        ])
    }

    /// The order GoogleSQL gives to two values of one type.
    fn typed_order(a: &Value, b: &Value) -> Ordering {
        match (a, b) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int64(a), Value::Int64(b)) => a.cmp(b),
            (Value::Float64(a), Value::Float64(b)) => match (a.is_nan(), b.is_nan()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.partial_cmp(b).expect("not NaN"),
            },
            (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            _ => unreachable!("one column has one type"),
        }
    }

    fn floats() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            Just(f64::NAN),
            Just(-f64::NAN),
            Just(0.0),
            Just(-0.0),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
        ]
    }

    /// Bytes in which 0x00, 0x01 and 0xff are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0u8), Just(1u8), Just(0xffu8), any::<u8>()];
        proptest::collection::vec(byte, 0..6)
    }

    /// Values of the type chosen by `kind`, NULLs among them.
    fn value(kind: u8) -> BoxedStrategy<Value> {
        let some = match kind {
            0 => any::<bool>().prop_map(Value::Bool).boxed(),
            1 => prop_oneof![any::<i64>(), -3i64..3].prop_map(Value::Int64).boxed(),
            2 => floats().prop_map(Value::Float64).boxed(),
            3 => bytes()
                .prop_map(|b| Value::String(b.iter().map(|b| char::from(*b)).collect()))
                .boxed(),
            4 => bytes().prop_map(Value::Bytes).boxed(),
            5 => any::<i32>().prop_map(Value::Date).boxed(),
            _ => any::<i64>().prop_map(Value::Timestamp).boxed(),
        };
        prop_oneof![1 => Just(Value::Null), 6 => some].boxed()
    }

    type Tuple = Vec<Value>;

    /// Two tuples of the same types, and whether each part is DESC.
    fn tuples() -> impl Strategy<Value = (Vec<bool>, Tuple, Tuple)> {
        proptest::collection::vec((0u8..7, any::<bool>()), 1..4).prop_flat_map(|columns| {
            let desc: Vec<bool> = columns.iter().map(|(_, desc)| *desc).collect();
            let row = || columns.iter().map(|(kind, _)| value(*kind)).collect::<Vec<_>>();
            (Just(desc), row(), row())
        })
    }

    fn tuple_order(desc: &[bool], a: &[Value], b: &[Value]) -> Ordering {
        let parts = desc.iter().zip(a.iter().zip(b));
        parts
            .map(|(desc, (a, b))| if *desc { typed_order(b, a) } else { typed_order(a, b) })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    proptest! {
        #[test]
        fn byte_order_is_tuple_order((desc, a, b) in tuples()) {
            let layout = root(&desc);
            let (x, y) = (layout.encode(&a).expect("short"), layout.encode(&b).expect("short"));
            prop_assert_eq!(x.cmp(&y), tuple_order(&desc, &a, &b));
        }

        #[test]
        fn decodes_to_itself((desc, a, _) in tuples()) {
            let layout = root(&desc);
            let key = layout.encode(&a).expect("short");
            let back = layout.decode(&key).expect("own key");
            prop_assert_eq!(tuple_order(&desc, &a, &back), Ordering::Equal);
            prop_assert_eq!(layout.encode(&back).expect("short"), key.clone());
            prop_assert_eq!(directory_of(&key), Some(&key[..]));
            prop_assert_eq!(directory_of(&key[..key.len() - 1]), None);
        }

        #[test]
        fn children_lie_within_their_parent((desc, a, b) in tuples(), more in value(1)) {
            let (parents, children) = (root(&desc), child(&desc, &[false]));
            let (parent, other) = (parents.encode(&a).expect("short"), parents.encode(&b).expect("short"));
            let key = children.encode(&[&a[..], std::slice::from_ref(&more)].concat()).expect("short");
            prop_assert!(parent < key && key.starts_with(&parent));
            prop_assert_eq!(children.parent_key(&key), Some(&parent[..]));
            prop_assert_eq!(directory_of(&key), Some(&parent[..]));
            prop_assert_eq!(parents.decode(&key), None);
            prop_assert_eq!(children.decode(&parent), None);
            // Another parent row is never between a parent row and its children.
            if other != parent {
                prop_assert_eq!(other < parent, other < key);
            }
        }

        #[test]
        fn prefixes_hold_exactly_their_keys((desc, a, b) in tuples(), length in 0usize..4) {
            let layout = root(&desc);
            let length = length.min(a.len());
            let prefix = layout.encode_prefix(&a[..length]);
            let key = layout.encode(&b).expect("short");
            let same = tuple_order(&desc[..length], &a[..length], &b[..length]).is_eq();
            prop_assert_eq!(key.starts_with(&prefix), same);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = directory_of(&bytes);
            let _ = root(&[false, true]).decode(&bytes);
            let _ = child(&[false], &[true]).parent_key(&bytes);
            let _ = decode_part(&bytes);
        }
    }

    #[test]
    fn too_long_a_key_is_refused() {
        let error = root(&[false]).encode(&[Value::from("x".repeat(9_000))]).expect_err("too long");
        assert_eq!(error.kind, ErrorKind::Limit);
    }
}
