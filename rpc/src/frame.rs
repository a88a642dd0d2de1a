//! Frames of a link: many messages, one checksum.

use crate::wire::Frame;
use bytes::Bytes;
use crc32fast::Hasher;

/// A frame of messages, in their order.
pub(crate) fn frame(messages: Vec<Bytes>) -> Frame {
    let checksum = checksum(&messages);
    Frame { hello: None, messages, checksum }
}

/// The messages of a frame that is no `Hello`.
///
/// # Errors
/// Why it cannot be trusted: the link must end.
pub(crate) fn messages(frame: Frame) -> Result<Vec<Bytes>, String> {
    if frame.hello.is_some() {
        return Err("a second Hello".into());
    }
    match checksum(&frame.messages) == frame.checksum {
        true => Ok(frame.messages),
        false => Err(format!("bad checksum of a frame of {} messages", frame.messages.len())),
    }
}

/// TCP's own checksum misses one damaged segment in tens of thousands, and memory on the way has
/// none: CRC-32 over every message and its length.
fn checksum(messages: &[Bytes]) -> u32 {
    let mut hasher = Hasher::new();
    for message in messages {
        hasher.update(message);
        hasher.update(&(message.len() as u64).to_be_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_is_noticed() {
        let whole = frame(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        assert_eq!(messages(whole.clone()).expect("whole").len(), 2);
        let mut cut = whole.clone();
        cut.messages = vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")];
        assert!(messages(cut).expect_err("another cut").contains("checksum"));
        let mut flipped = whole.clone();
        flipped.messages[0] = Bytes::from_static(b"aB");
        assert!(messages(flipped).is_err());
        let mut shorter = whole.clone();
        shorter.messages.pop();
        assert!(messages(shorter).is_err());
        let hello = Frame { hello: Some(Default::default()), ..whole };
        assert!(messages(hello).expect_err("hello").contains("Hello"));
    }
}
