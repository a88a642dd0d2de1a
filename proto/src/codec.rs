//! Bytes of words: one version byte, then `postcard`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The version written. A reader refuses what it does not know.
const VERSION: u8 = 1;

/// Bytes that are not a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// No bytes at all.
    #[error("empty")]
    Empty,
    /// Written by another version.
    #[error("unknown encoding version {0}")]
    Version(u8),
    /// Damaged or of another type.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes remain after the value.
    #[error("{0} bytes after the value")]
    Trailing(usize),
}

/// The bytes of a value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Our own types have no state that cannot be written; a failure is a bug of this crate.
    postcard::to_extend(value, vec![VERSION]).expect("words are serializable")
}

/// The value of bytes.
///
/// # Errors
/// [`CodecError`] for anything that [`encode`] did not write.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let (value, rest) =
        postcard::take_from_bytes(rest).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::ids::TxnId;
    use crate::request::Request;
    use proptest::prelude::*;
    use truetime::Timestamp;

    #[test]
    fn round_trip_and_refusals() {
        let command = Command::Abort {
            txn: TxnId { client: 7, seq: 9 },
            at: Timestamp::from_micros(77),
            participants: vec![],
        };
        let bytes = encode(&command);
        assert_eq!(decode::<Command>(&bytes), Ok(command));
        assert_eq!(decode::<Command>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<Command>(&[9, 1]), Err(CodecError::Version(9)));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode::<Command>(&longer), Err(CodecError::Trailing(1)));
        assert!(decode::<Command>(&bytes[..bytes.len() - 1]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Command>(&bytes);
            let _ = decode::<Request>(&bytes);
        }
    }
}
