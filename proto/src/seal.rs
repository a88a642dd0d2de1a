//! The seal of a certificate (X13): who has the universe's key can tell whether one byte of it was
//! changed since a server of the universe made it.
//!
//! A seal is a keyed hash, not a signature: whoever can verify one can also make one. It is for those
//! who trust each other with the key, an operator and an auditor, against everybody else.

use crate::codec;
use crate::request::Certificate;
use bytes::Bytes;
use truetime::key::{Key, Tag};

/// Begins what is hashed, so that a hash of something else never is a seal.
const CONTEXT: &[u8] = b"meridian certificate 1\0";

impl Certificate {
    /// Seals it: call it when all else is filled in.
    pub fn seal(&mut self, key: &Key) {
        self.seal = Bytes::copy_from_slice(&key.tag(&self.sealed_bytes()));
    }

    /// Whether it was sealed with this key, and not changed since.
    pub fn is_sealed_by(&self, key: &Key) -> bool {
        let tag = Tag::try_from(self.seal.as_ref());
        tag.is_ok_and(|tag| key.verifies(&self.sealed_bytes(), &tag))
    }

    /// What the seal is over: everything but itself.
    fn sealed_bytes(&self) -> Vec<u8> {
        let bare = Certificate { seal: Bytes::new(), ..self.clone() };
        let mut bytes = CONTEXT.to_vec();
        bytes.extend(codec::encode(&bare));
        bytes
    }
}

/// Tells keys of certificates apart without giving them away: 16 hexadecimal digits.
pub fn fingerprint(key: &Key) -> String {
    let tag = key.tag(b"meridian certificate key\0");
    tag.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Provenance, Timing};
    use crate::{Ballot, GroupId, NodeId, TxnId};
    use truetime::{Interval, Timestamp};

    fn certificate() -> Certificate {
        let t = Timestamp::from_micros;
        Certificate {
            txn: TxnId { client: 7, seq: 9 },
            timestamp: t(1_005),
            prepared: vec![(GroupId(2), t(1_001))],
            arrived: Interval::new(t(996), t(1_004)),
            waited: Interval::new(t(1_006), t(1_014)),
            provenance: Provenance {
                node: NodeId(1),
                provider: "local".into(),
                status: "synchronized".into(),
            },
            group: GroupId(1),
            ballot: Ballot { round: 3, node: NodeId(1) },
            timing: Timing { epsilon_us: 4, ..Timing::default() },
            seal: Bytes::new(),
        }
    }

    fn key(digit: &str) -> Key {
        Key::from_hex(&digit.repeat(64)).expect("64 digits")
    }

    #[test]
    fn a_seal_is_of_one_key_and_one_certificate() {
        let mut sealed = certificate();
        assert!(!sealed.is_sealed_by(&key("1")), "not sealed yet");
        sealed.seal(&key("1"));
        assert!(sealed.is_sealed_by(&key("1")) && !sealed.is_sealed_by(&key("2")));
        let mut again = sealed.clone();
        again.seal(&key("1"));
        assert_eq!(again, sealed, "the seal is not under itself");
        sealed.timestamp = sealed.timestamp.next();
        assert!(!sealed.is_sealed_by(&key("1")));
    }

    #[test]
    fn every_bit_of_a_seal_counts() {
        let mut sealed = certificate();
        sealed.seal(&key("1"));
        for bit in 0..sealed.seal.len() * 8 {
            let mut forged = sealed.clone();
            let mut seal = sealed.seal.to_vec();
            seal[bit / 8] ^= 1 << (bit % 8);
            forged.seal = seal.into();
            assert!(!forged.is_sealed_by(&key("1")), "bit {bit}");
        }
        sealed.seal = sealed.seal.slice(1..);
        assert!(!sealed.is_sealed_by(&key("1")), "a shorter one is none");
    }

    #[test]
    fn a_fingerprint_is_not_the_key() {
        assert_ne!(fingerprint(&key("1")), fingerprint(&key("2")));
        assert_eq!(fingerprint(&key("1")).len(), 16);
        assert!(!key("1").to_hex().contains(&fingerprint(&key("1"))));
    }
}
