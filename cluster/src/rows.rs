//! The root group's rows about the universe (S4): ordinary rows, changed by ordinary transactions, so
//! that what two leaders of the root group do at the same time is serialized like anything else.
//!
//! ```text
//! 00000000 'u' 'f'           Founding: what was chosen when the universe was made
//! 00000000 'u' 'g' group:u32 Descriptor
//! 00000000 'u' 'n' node:u32  NodeInfo
//! ```

use proto::universe::{Descriptor, Founding, NodeInfo, UniverseMap};
use proto::{Error, GroupId, Key, KeyRange, NodeId, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sql::keys::CATALOG_PREFIX;
use std::collections::BTreeMap;
use truetime::Timestamp;
use txn::client::{Client, ReadWrite, TimestampBound};

fn key(rest: &[u8]) -> Key {
    Key::from([&CATALOG_PREFIX[..], b"u", rest].concat())
}

fn founding_key() -> Key {
    key(b"f")
}

fn group_key(group: GroupId) -> Key {
    key(&[b"g", &group.0.to_be_bytes()[..]].concat())
}

fn node_key(node: NodeId) -> Key {
    key(&[b"n", &node.0.to_be_bytes()[..]].concat())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let damaged = |e| Error::FailedPrecondition(format!("the universe's map is damaged: {e}"));
    codec::decode(bytes).map_err(damaged)
}

fn put<T: Serialize>(txn: &ReadWrite, key: Key, row: &T) {
    txn.put(key, codec::encode(row).into());
}

/// The map as it is now; `None`: nobody has written one yet.
///
/// # Errors
/// What the read says; `FailedPrecondition` when the rows are damaged.
pub(crate) async fn load(client: &Client) -> Result<Option<UniverseMap>, Error> {
    let snapshot = client.snapshot(TimestampBound::Strong)?;
    let rows = snapshot.scan_all(&KeyRange::prefix(&key(b""))).await?;
    let (mut founding, mut version) = (None, Timestamp::MIN);
    let (mut nodes, mut groups) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        version = version.max(row.written);
        match row.key.get(CATALOG_PREFIX.len() + 1) {
            Some(b'f') => founding = Some(decode::<Founding>(&row.value)?),
            Some(b'g') => {
                let descriptor: Descriptor = decode(&row.value)?;
                groups.insert(descriptor.group, descriptor);
            }
            Some(b'n') => {
                let info: NodeInfo = decode(&row.value)?;
                nodes.insert(info.node, info);
            }
            _ => return Err(Error::FailedPrecondition("a row of the map has no kind".into())),
        }
    }
    Ok(founding.map(|founding| UniverseMap { version, founding, nodes, groups }))
}

/// Writes the first map, unless there is one.
///
/// # Errors
/// What the transaction says.
pub(crate) async fn found(client: &Client, map: &UniverseMap) -> Result<(), Error> {
    let write = |txn: ReadWrite| async move {
        if txn.get(&founding_key()).await?.is_none() {
            put(&txn, founding_key(), &map.founding);
            map.nodes.values().for_each(|info| put(&txn, node_key(info.node), info));
            map.groups.values().for_each(|group| put(&txn, group_key(group.group), group));
        }
        Ok::<(), Error>(())
    };
    client.run(write).await.map(|_| ())
}

/// Changes what is known of a node; `change` is given what is there, and says what is to be there, or
/// nothing if it is right as it is.
///
/// # Errors
/// What `change` or the transaction says.
pub(crate) async fn change_node(
    client: &Client,
    node: NodeId,
    change: impl Fn(Option<NodeInfo>) -> Result<Option<NodeInfo>, Error>,
) -> Result<(), Error> {
    let change = &change;
    let write = |txn: ReadWrite| async move {
        let there = txn.get(&node_key(node)).await?;
        let there = there.map(|bytes| decode::<NodeInfo>(&bytes)).transpose()?;
        if let Some(info) = change(there)? {
            put(&txn, node_key(node), &info);
        }
        Ok::<(), Error>(())
    };
    client.run(write).await.map(|_| ())
}

/// Notes where groups are; what is there and newer stays.
///
/// # Errors
/// What the transaction says.
pub(crate) async fn describe(client: &Client, descriptors: &[Descriptor]) -> Result<(), Error> {
    let write = |txn: ReadWrite| async move {
        for descriptor in descriptors {
            let there = txn.get(&group_key(descriptor.group)).await?;
            let there = there.map(|bytes| decode::<Descriptor>(&bytes)).transpose()?;
            if there.is_none_or(|there| there.generation < descriptor.generation) {
                put(&txn, group_key(descriptor.group), descriptor);
            }
        }
        Ok::<(), Error>(())
    };
    client.run(write).await.map(|_| ())
}
