//! Datagrams of time masters, as strangers and bad networks make them.
//!
//! An ordinary test runs a few thousand inputs and prints the seed of one that fails
//! (`BOLERO_RANDOM_SEED` runs it again); `cargo bolero test -p truetime NAME` goes on for as long
//! as one likes, guided by coverage.

use bolero::check;
use truetime::daemon::MasterKind;
use truetime::key::Key;
use truetime::wire::{Answer, Content, DATAGRAM_BYTES, Datagram, Request};

const KEY: Key = Key::PUBLIC;

/// An answer out of arbitrary numbers.
fn answer((id, atomic, form, a, b): (u64, bool, u8, u64, u64)) -> Answer {
    let kind = if atomic { MasterKind::Atomic } else { MasterKind::Gps };
    let content = match form % 3 {
        0 => Content::Time { earliest_ns: a.min(b), latest_ns: a.max(b) },
        1 => Content::NoTime,
        _ => Content::Refused,
    };
    Answer { id, kind, content }
}

/// These bytes as a datagram that only lacks what a stranger cannot make: the tag.
fn disguised(bytes: &[u8]) -> Datagram {
    let mut datagram = [0; DATAGRAM_BYTES];
    let length = bytes.len().min(DATAGRAM_BYTES);
    datagram[..length].copy_from_slice(&bytes[..length]);
    datagram[..5].copy_from_slice(b"MTIM\x01");
    let checksum = crc32fast::hash(&datagram[..32]);
    datagram[32..36].copy_from_slice(&checksum.to_le_bytes());
    datagram
}

fn refused(bytes: &[u8]) -> bool {
    Request::decode(bytes, &KEY).is_err() && Answer::decode(bytes, &KEY).is_err()
}

#[test]
fn arbitrary_bytes_are_never_taken() {
    check!().with_type::<Vec<u8>>().for_each(|bytes| {
        assert!(refused(bytes));
        assert!(refused(&disguised(bytes)));
    });
}

/// With the key, so that what lies behind the tag is reached: a body is taken as it is, or not at
/// all.
#[test]
fn whatever_is_taken_has_one_form() {
    check!().with_type::<([u8; 3], [bool; 3], u64, u64, u64)>().for_each(
        |(header, odd, id, earliest_ns, latest_ns)| {
            let mut body = [0; DATAGRAM_BYTES];
            // Form, kind, nothing: mostly such as exist.
            for at in 0..3 {
                body[5 + at] = if odd[at] { header[at] } else { header[at] % 4 };
            }
            body[8..16].copy_from_slice(&id.to_le_bytes());
            body[16..24].copy_from_slice(&earliest_ns.to_le_bytes());
            body[24..32].copy_from_slice(&latest_ns.to_le_bytes());
            let mut datagram = disguised(&body);
            let tag = KEY.tag(&datagram[..36]);
            datagram[36..].copy_from_slice(&tag);

            let request = Request::decode(&datagram, &KEY);
            let answer = Answer::decode(&datagram, &KEY);
            assert!(request.is_err() || answer.is_err());
            if let Ok(request) = request {
                assert_eq!(request.encode(&KEY), datagram);
            }
            if let Ok(answer) = answer {
                assert_eq!(answer.encode(&KEY), datagram);
                if let Content::Time { earliest_ns, latest_ns } = answer.content {
                    assert!(earliest_ns <= latest_ns);
                }
            }
        },
    );
}

#[test]
fn a_mutated_datagram_is_refused() {
    type Mutations = Vec<(u8, u8)>;
    check!().with_type::<((u64, bool, u8, u64, u64), Mutations)>().for_each(|(numbers, flips)| {
        let answer = answer(*numbers);
        let request = Request { id: answer.id };
        for good in [answer.encode(&KEY), request.encode(&KEY)] {
            let mut bad = good;
            for (at, flip) in flips {
                bad[usize::from(*at) % DATAGRAM_BYTES] ^= flip;
            }
            assert!(bad == good || refused(&bad));
            assert!(disguised(&bad) == good || refused(&disguised(&bad)));
            assert!(refused(&good[..DATAGRAM_BYTES - 1]));
            assert!(refused(&[good.as_slice(), &[0]].concat()));
        }
        // The control: untouched, each is taken for what it is, and for nothing else.
        assert_eq!(Answer::decode(&answer.encode(&KEY), &KEY), Ok(answer));
        assert_eq!(Request::decode(&request.encode(&KEY), &KEY), Ok(request));
    });
}
