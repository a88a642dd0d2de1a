//! What replicas say and write survives its way through bytes, and bytes that nobody wrote are
//! refused without a panic.

use paxos::{Base, Chunk, Configuration, Entry, HardState, Invitation, Member, Message, Payload};
use paxos::{Position, Repair, SnapshotId};
use proptest::prelude::*;
use proto::codec::{decode, encode};
use proto::{Ballot, NodeId, Seat, Slot};
use truetime::Timestamp;

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), any::<u32>()).prop_map(|(round, node)| Ballot { round, node: NodeId(node) })
}

fn slot() -> impl Strategy<Value = Slot> {
    any::<u64>().prop_map(Slot)
}

fn position() -> impl Strategy<Value = Position> {
    (ballot(), slot()).prop_map(|(ballot, slot)| Position { ballot, slot })
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_micros)
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let node = || any::<u8>().prop_map(|n| NodeId(n.into()));
    let member = (any::<u64>(), any::<bool>())
        .prop_map(|(seat, witness)| Member { seat: Seat(seat), witness });
    let nodes = || proptest::collection::btree_set(node(), 0..4);
    let members = proptest::collection::btree_map(node(), member, 0..5);
    (members, nodes(), nodes()).prop_map(|(members, voters, outgoing)| Configuration {
        members,
        voters,
        outgoing,
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..50);
    prop_oneof![
        Just(Payload::Noop),
        bytes.prop_map(|bytes| Payload::Command(bytes.into())),
        configuration().prop_map(Payload::Configuration),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (ballot(), payload()).prop_map(|(ballot, payload)| Entry { ballot, payload })
}

fn base() -> impl Strategy<Value = Base> {
    (position(), position(), configuration()).prop_map(
        |(position, configured_at, configuration)| Base { position, configured_at, configuration },
    )
}

fn snapshot_id() -> impl Strategy<Value = SnapshotId> {
    (ballot(), any::<u64>()).prop_map(|(ballot, number)| SnapshotId { ballot, number })
}

fn invitation() -> impl Strategy<Value = Invitation> {
    (ballot(), position()).prop_map(|(ballot, at)| Invitation { ballot, at })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let data = proptest::collection::vec(any::<u8>(), 0..50);
    (snapshot_id(), any::<u64>(), base(), data, any::<u32>(), any::<bool>()).prop_map(
        |(id, index, base, data, checksum, last)| Chunk {
            id,
            index,
            base,
            data: data.into(),
            checksum,
            last,
        },
    )
}

fn hard_state() -> impl Strategy<Value = HardState> {
    let repair = (slot(), slot(), ballot()).prop_map(|(from, until, promised)| Repair {
        from,
        until,
        promised,
    });
    (ballot(), ballot(), time(), proptest::option::of(repair)).prop_map(
        |(promised, vote, vote_until, repair)| HardState { promised, vote, vote_until, repair },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let entries = proptest::collection::vec(entry(), 0..4);
    prop_oneof![
        (ballot(), position()).prop_map(|(ballot, last)| Message::Canvass { ballot, last }),
        (ballot(), any::<bool>(), ballot())
            .prop_map(|(ballot, free, promised)| Message::Canvassed { ballot, free, promised }),
        (ballot(), position(), time(), proptest::option::of(ballot())).prop_map(
            |(ballot, last, sent, released)| Message::Prepare { ballot, last, sent, released }
        ),
        (ballot(), time()).prop_map(|(ballot, sent)| Message::Promise { ballot, sent }),
        (ballot(), ballot()).prop_map(|(ballot, promised)| Message::Reject { ballot, promised }),
        (ballot(), position(), entries, slot(), slot(), any::<bool>(), time()).prop_map(
            |(ballot, prev, entries, chosen, truncate, sleep, sent)| Message::Accept {
                ballot,
                prev,
                entries,
                chosen,
                truncate,
                sleep,
                sent,
            }
        ),
        (ballot(), slot(), slot(), any::<bool>(), time()).prop_map(
            |(ballot, upto, applied, asleep, sent)| Message::Accepted {
                ballot,
                upto,
                applied,
                asleep,
                sent,
            }
        ),
        (ballot(), slot(), position(), time())
            .prop_map(|(ballot, prev, hint, sent)| Message::Gap { ballot, prev, hint, sent }),
        (any::<u64>(), slot()).prop_map(|(cuts, last)| Message::Durable { cuts, last }),
        (ballot(), chunk()).prop_map(|(ballot, chunk)| Message::Chunk { ballot, chunk }),
        (ballot(), snapshot_id(), any::<u64>())
            .prop_map(|(ballot, id, next)| Message::ChunkTaken { ballot, id, next }),
        ballot().prop_map(|ballot| Message::Release { ballot }),
        ballot().prop_map(|ballot| Message::TimeoutNow { ballot }),
        invitation().prop_map(|invitation| Message::Greet { invitation }),
        invitation().prop_map(|invitation| Message::Greeted { invitation }),
        (any::<u64>(), position()).prop_map(|(seat, at)| Message::Removed { seat: Seat(seat), at }),
    ]
}

proptest! {
    #[test]
    fn messages_survive(message in message()) {
        prop_assert_eq!(decode::<Message>(&encode(&message)), Ok(message));
    }

    #[test]
    fn what_goes_to_the_disk_survives(
        entry in entry(), base in base(), hard in hard_state(), chunk in chunk(),
    ) {
        prop_assert_eq!(decode::<Entry>(&encode(&entry)), Ok(entry));
        prop_assert_eq!(decode::<Base>(&encode(&base)), Ok(base));
        prop_assert_eq!(decode::<HardState>(&encode(&hard)), Ok(hard));
        prop_assert_eq!(decode::<Chunk>(&encode(&chunk)), Ok(chunk));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_mean_something(
        mut bytes in proptest::collection::vec(any::<u8>(), 1..300),
    ) {
        bytes[0] = encode(&0u8)[0]; // the version, or nothing else would be tried
        let _ = decode::<Message>(&bytes);
        let _ = decode::<Entry>(&bytes);
        let _ = decode::<HardState>(&bytes);
        let _ = decode::<Base>(&bytes);
        let _ = decode::<Chunk>(&bytes);
    }

    #[test]
    fn a_damaged_message_is_refused_or_another_one(
        message in message(), at in any::<prop::sample::Index>(), flip in 1..=u8::MAX,
    ) {
        let mut bytes = encode(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode::<Message>(&bytes);
    }
}
