//! A commit that is asked for again under another id must be noticed (X9). The planted fault is one
//! for the whole process, so this has a process of its own:
//! `cargo test -p txn --features plants --test plants`.

use proto::plant::{Plant, plant};
use txn::client; // what these modules call `crate::client`

#[allow(dead_code)] // each of these is needed in part
#[path = "../src/client/tests/groups.rs"]
mod groups;
#[allow(dead_code)]
#[path = "../src/client/tests/ledger.rs"]
mod ledger;
#[allow(dead_code)]
#[path = "../src/client/tests/world.rs"]
mod world;

#[test]
fn a_commit_under_another_id_is_noticed() {
    plant(Some(Plant::RetryNewId));
    let noticed = (0..200).find_map(|seed| ledger::judge(seed, false).err());
    plant(None);
    println!("{}", noticed.expect("200 seeds, and nobody has noticed"));
    for seed in 0..20 {
        ledger::judge(seed, false).unwrap_or_else(|wrong| panic!("without the fault: {wrong}"));
    }
}
