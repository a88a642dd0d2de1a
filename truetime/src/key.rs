//! The secret that time masters and those who ask them share.

use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;
use std::fmt;
use thiserror::Error;

/// Length of a [`Tag`].
pub const TAG_BYTES: usize = 16;

/// What shows that a datagram was made by somebody who has the key: the first half of its
/// HMAC-SHA256.
pub type Tag = [u8; TAG_BYTES];

/// A shared secret of 32 bytes, on paper 64 hexadecimal digits.
///
/// Whoever has it can be a master as well as ask one: it keeps strangers out, and does not tell
/// the holders apart. It is never printed by accident: `Debug` hides it, and there is no `Display`.
#[derive(Clone)]
pub struct Key([u8; Key::BYTES]);

/// A text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Too short or too long.
    #[error("a key has 64 hexadecimal digits, this has {0} characters")]
    Length(usize),
    /// Something else than a hexadecimal digit.
    #[error("character {0} of the key is not a hexadecimal digit")]
    Digit(usize),
}

impl Key {
    /// Its length.
    pub const BYTES: usize = 32;

    /// No secret: the key of those who configured none, printed here for everybody to read. It is
    /// for loopback addresses, where [`Master`](crate::providers::Master) and
    /// [`Masters`](crate::providers::Masters) accept it; elsewhere they refuse it.
    pub const PUBLIC: Key = Key(*b"this key is known to everybody!!");

    /// A new one. Secret as far as `rng` cannot be predicted: give it the operating system's.
    pub fn draw(rng: &mut impl Rng) -> Key {
        Key(rng.random())
    }

    /// Reads 64 hexadecimal digits; space around them is ignored.
    ///
    /// # Errors
    /// [`KeyError`], which says where, never what.
    pub fn from_hex(text: &str) -> Result<Key, KeyError> {
        let text = text.trim();
        let length = text.chars().count();
        if length != 2 * Key::BYTES {
            return Err(KeyError::Length(length));
        }
        let mut bytes = [0; Key::BYTES];
        for (index, digit) in text.chars().enumerate() {
            let value = digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
            let value = value.ok_or(KeyError::Digit(index + 1))?;
            bytes[index / 2] = bytes[index / 2] << 4 | value;
        }
        Ok(Key(bytes))
    }

    /// As 64 hexadecimal digits: to be written where only its owner can read it.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether this is [`Key::PUBLIC`].
    pub fn is_public(&self) -> bool {
        self.0 == Key::PUBLIC.0
    }

    /// The tag of these bytes.
    pub fn tag(&self, bytes: &[u8]) -> Tag {
        let whole = self.mac(bytes).finalize().into_bytes();
        let mut tag = Tag::default();
        tag.copy_from_slice(&whole[..TAG_BYTES]);
        tag
    }

    /// Whether this is the tag of these bytes. Takes the same time wherever the two differ.
    pub fn verifies(&self, bytes: &[u8], tag: &Tag) -> bool {
        self.mac(bytes).verify_truncated_left(tag).is_ok()
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        // HMAC takes keys of every length.
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of 32 bytes");
        mac.chain_update(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_public() { "Key(public)" } else { "Key(secret)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn the_tag_is_hmac_sha256() {
        // By another implementation.
        let key = Key::from_hex(&"0b".repeat(32)).unwrap();
        let hex: String = key.tag(b"Hi There").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "198a607eb44bfbc69903a0f1cf2bbdc5");
    }

    #[test]
    fn other_bytes_or_another_key_have_other_tags() {
        let mut rng = StdRng::seed_from_u64(1);
        let (key, other) = (Key::draw(&mut rng), Key::draw(&mut rng));
        let tag = key.tag(b"a");
        assert!(key.verifies(b"a", &tag));
        assert!(!key.verifies(b"b", &tag) && !other.verifies(b"a", &tag));
        assert!(!key.verifies(b"a", &Tag::default()));
    }

    #[test]
    fn is_written_and_read_as_hexadecimal_digits() {
        let key = Key::draw(&mut StdRng::seed_from_u64(2));
        let text = key.to_hex();
        assert_eq!(text.len(), 64);
        assert_eq!(Key::from_hex(&format!("{}\n", text.to_uppercase())).unwrap().to_hex(), text);
        assert_eq!(Key::from_hex(&text[1..]).unwrap_err(), KeyError::Length(63));
        assert_eq!(Key::from_hex("").unwrap_err(), KeyError::Length(0));
        let digit = format!("{}ü{}", &text[..9], &text[10..]);
        assert_eq!(Key::from_hex(&digit).unwrap_err(), KeyError::Digit(10));
    }

    #[test]
    fn is_not_printed_by_accident() {
        let key = Key::draw(&mut StdRng::seed_from_u64(3));
        assert_eq!(format!("{key:?}"), "Key(secret)");
        assert!(Key::PUBLIC.is_public() && !key.is_public());
    }
}
