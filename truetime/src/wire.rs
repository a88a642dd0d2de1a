//! What a time daemon and a time master send each other: one datagram each way.
//!
//! A request has the length of an answer, so that nobody can use a master to send somebody else
//! more than he sends himself. All datagrams have this form, integers in little-endian order:
//!
//! | bytes | what | in a request | in an answer |
//! |---|---|---|---|
//! | 0–3 | magic | `MTIM` | `MTIM` |
//! | 4 | version | 1 | 1 |
//! | 5 | form | 0: request | 1: time, 2: no time to give, 3: asked too often |
//! | 6 | kind of master | 0 | 1: GPS, 2: atomic |
//! | 7 | nothing | 0 | 0 |
//! | 8–15 | request id, at random | r | the same r |
//! | 16–23 | `earliest`, in nanoseconds since the epoch | 0 | of a time, else 0 |
//! | 24–31 | `latest`, likewise | 0 | of a time, else 0 |
//! | 32–35 | CRC-32 of bytes 0–31 | | |
//! | 36–51 | [`Tag`] of bytes 0–35 | | |
//!
//! The checksum tells damage from forgery; only the tag is security. An answer from the past is
//! recognized by its request id, which nobody could know in advance. Each message has exactly one
//! form: what is not used is zero, or the datagram is refused.

use crate::daemon::MasterKind;
use crate::key::{Key, TAG_BYTES, Tag};
use thiserror::Error;

/// Length of a datagram, either way.
pub const DATAGRAM_BYTES: usize = TAG_AT + TAG_BYTES;

const MAGIC: [u8; 4] = *b"MTIM";
const VERSION: u8 = 1;
const CHECKSUM_AT: usize = 32;
const TAG_AT: usize = CHECKSUM_AT + 4;

const REQUEST: u8 = 0;
const TIME: u8 = 1;
const NO_TIME: u8 = 2;
const REFUSED: u8 = 3;

/// A datagram as it is sent.
pub type Datagram = [u8; DATAGRAM_BYTES];

/// What time is it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen at random; the answer repeats it.
    pub id: u64,
}

/// What a master answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the request.
    pub id: u64,
    /// What the master stands on.
    pub kind: MasterKind,
    /// The time, or why not.
    pub content: Content,
}

/// See [`Answer::content`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Absolute time, at some instant between the arrival of the request and the departure of the
    /// answer, was in this interval. Invariant: `earliest_ns ≤ latest_ns`; others are not decoded.
    Time {
        /// In nanoseconds since the epoch.
        earliest_ns: u64,
        /// In nanoseconds since the epoch.
        latest_ns: u64,
    },
    /// The master does not know the time.
    NoTime,
    /// The master is asked too often from this address.
    Refused,
}

/// Why a datagram is not taken, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It has another length.
    #[error("{0} bytes instead of {DATAGRAM_BYTES}")]
    Length(usize),
    /// It is something else altogether.
    #[error("does not begin as a datagram of time masters does")]
    Magic,
    /// It is of a version that is not spoken here.
    #[error("version {0}, and only {VERSION} is spoken here")]
    Version(u8),
    /// It was damaged on its way.
    #[error("damaged: the checksum is wrong")]
    Checksum,
    /// It was made by somebody with another key, or none.
    #[error("forged, or made with another key")]
    Forged,
    /// It is well made and has no meaning, or not this one.
    #[error("nonsense: {0}")]
    Nonsense(&'static str),
}

impl Request {
    /// As it is sent.
    pub fn encode(&self, key: &Key) -> Datagram {
        Body { form: REQUEST, kind: 0, id: self.id, earliest_ns: 0, latest_ns: 0 }.encode(key)
    }

    /// From what was received.
    ///
    /// # Errors
    /// [`DecodeError`]: these bytes are no request made with this key.
    pub fn decode(bytes: &[u8], key: &Key) -> Result<Request, DecodeError> {
        let body = Body::decode(bytes, key)?;
        if body.form != REQUEST {
            return Err(DecodeError::Nonsense("an answer, where a request is expected"));
        }
        if body.kind != 0 {
            return Err(DecodeError::Nonsense("a request with a kind of master"));
        }
        body.without_time()?;
        Ok(Request { id: body.id })
    }
}

impl Answer {
    /// As it is sent.
    pub fn encode(&self, key: &Key) -> Datagram {
        let kind = match self.kind {
            MasterKind::Gps => 1,
            MasterKind::Atomic => 2,
        };
        let (form, earliest_ns, latest_ns) = match self.content {
            Content::Time { earliest_ns, latest_ns } => (TIME, earliest_ns, latest_ns),
            Content::NoTime => (NO_TIME, 0, 0),
            Content::Refused => (REFUSED, 0, 0),
        };
        Body { form, kind, id: self.id, earliest_ns, latest_ns }.encode(key)
    }

    /// From what was received.
    ///
    /// # Errors
    /// [`DecodeError`]: these bytes are no answer made with this key.
    pub fn decode(bytes: &[u8], key: &Key) -> Result<Answer, DecodeError> {
        let body = Body::decode(bytes, key)?;
        let content = match body.form {
            TIME if body.earliest_ns > body.latest_ns => {
                return Err(DecodeError::Nonsense("earliest is later than latest"));
            }
            TIME => Content::Time { earliest_ns: body.earliest_ns, latest_ns: body.latest_ns },
            NO_TIME => body.without_time().map(|()| Content::NoTime)?,
            REFUSED => body.without_time().map(|()| Content::Refused)?,
            REQUEST => {
                return Err(DecodeError::Nonsense("a request, where an answer is expected"));
            }
            _ => return Err(DecodeError::Nonsense("a form that does not exist")),
        };
        let kind = match body.kind {
            1 => MasterKind::Gps,
            2 => MasterKind::Atomic,
            _ => return Err(DecodeError::Nonsense("a kind of master that does not exist")),
        };
        Ok(Answer { id: body.id, kind, content })
    }
}

/// What lies between the version and the checksum.
struct Body {
    form: u8,
    kind: u8,
    id: u64,
    earliest_ns: u64,
    latest_ns: u64,
}

impl Body {
    fn encode(&self, key: &Key) -> Datagram {
        let mut datagram = [0; DATAGRAM_BYTES];
        datagram[0..4].copy_from_slice(&MAGIC);
        datagram[4..7].copy_from_slice(&[VERSION, self.form, self.kind]);
        datagram[8..16].copy_from_slice(&self.id.to_le_bytes());
        datagram[16..24].copy_from_slice(&self.earliest_ns.to_le_bytes());
        datagram[24..32].copy_from_slice(&self.latest_ns.to_le_bytes());
        let checksum = crc32fast::hash(&datagram[..CHECKSUM_AT]);
        datagram[CHECKSUM_AT..TAG_AT].copy_from_slice(&checksum.to_le_bytes());
        let tag = key.tag(&datagram[..TAG_AT]);
        datagram[TAG_AT..].copy_from_slice(&tag);
        datagram
    }

    fn decode(bytes: &[u8], key: &Key) -> Result<Body, DecodeError> {
        let datagram: &Datagram = bytes.try_into().map_err(|_| DecodeError::Length(bytes.len()))?;
        if datagram[0..4] != MAGIC {
            return Err(DecodeError::Magic);
        }
        if datagram[4] != VERSION {
            return Err(DecodeError::Version(datagram[4]));
        }
        let checksum = crc32fast::hash(&datagram[..CHECKSUM_AT]);
        if datagram[CHECKSUM_AT..TAG_AT] != checksum.to_le_bytes() {
            return Err(DecodeError::Checksum);
        }
        let tag: Tag = array(datagram, TAG_AT);
        if !key.verifies(&datagram[..TAG_AT], &tag) {
            return Err(DecodeError::Forged);
        }
        if datagram[7] != 0 {
            return Err(DecodeError::Nonsense("something where nothing belongs"));
        }
        Ok(Body {
            form: datagram[5],
            kind: datagram[6],
            id: u64::from_le_bytes(array(datagram, 8)),
            earliest_ns: u64::from_le_bytes(array(datagram, 16)),
            latest_ns: u64::from_le_bytes(array(datagram, 24)),
        })
    }

    fn without_time(&self) -> Result<(), DecodeError> {
        if (self.earliest_ns, self.latest_ns) != (0, 0) {
            return Err(DecodeError::Nonsense("a time where none belongs"));
        }
        Ok(())
    }
}

/// The bytes from `at` on, which the caller knows to be there.
fn array<const N: usize>(datagram: &Datagram, at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&datagram[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::PUBLIC;

    fn answers() -> [Answer; 4] {
        let time = Content::Time { earliest_ns: 1_700_000_000_000_000_000, latest_ns: u64::MAX };
        let instant = Content::Time { earliest_ns: 7, latest_ns: 7 };
        [
            Answer { id: 1, kind: MasterKind::Gps, content: time },
            Answer { id: u64::MAX, kind: MasterKind::Atomic, content: instant },
            Answer { id: 0, kind: MasterKind::Gps, content: Content::NoTime },
            Answer { id: 2, kind: MasterKind::Atomic, content: Content::Refused },
        ]
    }

    /// A datagram whose checksum and tag fit whatever was written into it.
    fn sealed(mut datagram: Datagram, at: usize, byte: u8) -> Datagram {
        datagram[at] = byte;
        let checksum = crc32fast::hash(&datagram[..CHECKSUM_AT]);
        datagram[CHECKSUM_AT..TAG_AT].copy_from_slice(&checksum.to_le_bytes());
        let tag = KEY.tag(&datagram[..TAG_AT]);
        datagram[TAG_AT..].copy_from_slice(&tag);
        datagram
    }

    #[test]
    fn what_is_sent_is_received() {
        let request = Request { id: 0x0123_4567_89ab_cdef };
        assert_eq!(Request::decode(&request.encode(&KEY), &KEY), Ok(request));
        for answer in answers() {
            assert_eq!(Answer::decode(&answer.encode(&KEY), &KEY), Ok(answer));
        }
    }

    #[test]
    fn the_layout_stays_what_it_is() {
        let content = Content::Time { earliest_ns: 0x0102, latest_ns: 0x0304 };
        let datagram = Answer { id: 0x0506, kind: MasterKind::Atomic, content }.encode(&KEY);
        let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = "4d54494d01010200060500000000000002010000000000000403000000000000";
        assert_eq!(hex[..64], *body);
        assert_eq!(hex.len(), 104);
    }

    #[test]
    fn a_datagram_is_refused_for_the_first_thing_wrong_with_it() {
        let good = Request { id: 9 }.encode(&KEY);
        let refused = |datagram: Datagram| Request::decode(&datagram, &KEY).unwrap_err();
        let with = |at: usize, byte: u8| {
            let mut datagram = good;
            datagram[at] = byte;
            datagram
        };
        assert_eq!(Request::decode(&good[1..], &KEY), Err(DecodeError::Length(51)));
        assert_eq!(Request::decode(&[], &KEY), Err(DecodeError::Length(0)));
        assert_eq!(refused(with(0, b'N')), DecodeError::Magic);
        assert_eq!(refused(with(4, 2)), DecodeError::Version(2));
        assert_eq!(refused(with(8, 0)), DecodeError::Checksum);
        assert_eq!(refused(with(DATAGRAM_BYTES - 1, !good[51])), DecodeError::Forged);
        let other = Key::from_hex(&"ab".repeat(32)).unwrap();
        assert_eq!(Request::decode(&good, &other), Err(DecodeError::Forged));
    }

    #[test]
    fn those_who_have_the_key_cannot_talk_nonsense_either() {
        let request = Request { id: 9 }.encode(&KEY);
        let [time, _, no_time, _] = answers().map(|answer| answer.encode(&KEY));
        let nonsense = |result: Result<(), DecodeError>| {
            assert!(matches!(result, Err(DecodeError::Nonsense(_))), "{result:?}");
        };
        for datagram in [time, sealed(request, 6, 1), sealed(request, 7, 1), sealed(request, 16, 1)]
        {
            nonsense(Request::decode(&datagram, &KEY).map(drop));
        }
        let inverted = sealed(sealed(time, 31, 0), 30, 0);
        for datagram in [
            request,
            inverted,
            sealed(time, 5, 4),
            sealed(time, 6, 0),
            sealed(time, 6, 3),
            sealed(time, 7, 1),
            sealed(no_time, 24, 1),
        ] {
            nonsense(Answer::decode(&datagram, &KEY).map(drop));
        }
    }
}
