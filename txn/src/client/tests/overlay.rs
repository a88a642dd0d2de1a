//! A transaction reads what it has written: by key, and in scans, where what is stored comes in
//! pages and what is buffered lies between, at their borders, and behind.

use super::world::World;
use crate::client::ReadWrite;
use bytes::Bytes;
use proptest::prelude::*;
use proto::request::LockMode;
use proto::{GroupId, Key, KeyRange};
use std::collections::BTreeMap;

const GROUP: GroupId = GroupId(1);

fn key(n: u8) -> Key {
    Key::from(format!("row-{n:03}"))
}

fn range(from: u8, to: u8) -> KeyRange {
    KeyRange { start: key(from), end: key(to) }
}

/// All rows of a range, page by page, and how large the largest page was.
async fn scan(txn: &ReadWrite, range: KeyRange, max_rows: u32) -> (Vec<(Key, Bytes)>, usize) {
    let (mut rows, mut largest, mut rest) = (Vec::new(), 0, Some(range.clone()));
    while let Some(part) = rest.take() {
        let page = txn.scan_page(GROUP, &part, max_rows, LockMode::Shared).await.expect("a page");
        if let Some(resume) = &page.resume {
            assert!(page.rows.iter().all(|row| row.key < *resume), "it goes on behind the page");
            assert!(*resume > part.start || !page.rows.is_empty(), "it goes on at all");
        }
        largest = largest.max(page.rows.len());
        rows.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
        rest = page.resume.map(|start| KeyRange { start, end: range.end.clone() });
    }
    (rows, largest)
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    Savepoint,
    Back,
    Scan(u8, u8, u32),
    Get(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..30u8;
    prop_oneof![
        4 => n.clone().prop_map(Step::Put),
        3 => n.clone().prop_map(Step::Delete),
        1 => Just(Step::Savepoint),
        1 => Just(Step::Back),
        3 => (n.clone(), n.clone(), 1..9u32).prop_map(|(a, b, max)| Step::Scan(a, b, max)),
        2 => n.prop_map(Step::Get),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The naive twin: what is stored and what is buffered, merged in one map.
    #[test]
    fn a_transaction_sees_its_own_writes(
        stored in prop::collection::btree_set(0..30u8, 0..20),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let world = World::new(0, 1, 1);
        let client = world.client(1);
        world.clone().run(async move {
            let stored: BTreeMap<Key, Bytes> =
                stored.into_iter().map(|n| (key(n), Bytes::from_static(b"old"))).collect();
            let before = client.begin().expect("a clock");
            stored.iter().for_each(|(key, value)| before.put(key.clone(), value.clone()));
            before.commit().await.expect("commits");

            let txn = client.begin().expect("a clock");
            let (mut twin, mut saved) = (stored, Vec::new());
            for (place, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(n) => {
                        let value = Bytes::from(format!("new-{place}"));
                        twin.insert(key(n), value.clone());
                        txn.put(key(n), value);
                    }
                    Step::Delete(n) => {
                        twin.remove(&key(n));
                        txn.delete(key(n));
                    }
                    Step::Savepoint => saved.push((txn.savepoint(), twin.clone())),
                    Step::Back => {
                        if let Some((savepoint, then)) = saved.pop() {
                            txn.rollback_to(savepoint);
                            twin = then;
                        }
                    }
                    Step::Scan(a, b, max) => {
                        let wanted = range(a, b);
                        let (found, largest) = scan(&txn, wanted.clone(), max).await;
                        let expected: Vec<_> = twin
                            .iter()
                            .filter(|(key, _)| wanted.contains(key))
                            .map(|(key, value)| (key.clone(), value.clone()))
                            .collect();
                        assert_eq!(found, expected);
                        assert!(largest <= max as usize, "a page of {largest} rows, not {max}");
                    }
                    Step::Get(n) => {
                        let found = txn.get(&key(n)).await.expect("reads");
                        assert_eq!(found, twin.get(&key(n)).cloned());
                    }
                }
            }
            txn.commit().await.expect("commits");
            let after = client.begin().expect("a clock");
            let (found, _) = scan(&after, KeyRange::all(), 100).await;
            assert_eq!(found, twin.into_iter().collect::<Vec<_>>());
        });
    }
}

/// Small cases of the above that say what they are about.
#[test]
fn pages_are_merged_at_their_borders() {
    let world = World::new(0, 1, 1);
    let client = world.client(1);
    let rows = |found: Vec<(Key, Bytes)>| -> Vec<String> {
        found.into_iter().map(|(key, _)| String::from_utf8_lossy(&key[4..]).into_owned()).collect()
    };
    world.clone().run(async move {
        let before = client.begin().expect("a clock");
        // Pages of the groups here hold four rows: 0 2 4 6 | 8 10 12 14.
        (0..8).for_each(|n| before.put(key(2 * n), Bytes::from_static(b"old")));
        before.commit().await.expect("commits");

        let txn = client.begin().expect("a clock");
        txn.put(key(7), Bytes::new()); // between two pages
        txn.delete(key(8)); // the first of a page, where the one before says to go on
        (0..4).for_each(|n| txn.delete(key(2 * n))); // a whole page
        txn.put(key(20), Bytes::new()); // behind the last row
        let (found, _) = scan(&txn, KeyRange::all(), 100).await;
        assert_eq!(rows(found), ["007", "010", "012", "014", "020"]);
        let (found, largest) = scan(&txn, KeyRange::all(), 1).await;
        assert_eq!((rows(found).len(), largest), (5, 1));
    });
}
