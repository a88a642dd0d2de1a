//! Golden scripts: `UPDATE_GOLDENFILES=1 cargo test -p paxos --test scripts` rewrites them.

mod cluster;

macro_rules! scripts {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { cluster::script::run(stringify!($name)); })*
    };
}

scripts! {
    bit_rot_repair
    chosen_survives_its_leader
    clock_mended
    election_contested
    election_simple
    figure_7
    figure_8_own_ballot
    joint_change
    joint_change_survives_its_leader
    leader_removes_itself
    lease_handover
    lease_restart_honours_vote
    own_disk_counts_after_answer
    partial_partition_chain
    partial_partition_star
    pre_vote_isolated_node_returns
    removed_returns
    replace_wiped
    single_step_guarded
    sleep_and_wake
    snapshot_keeps_suffix
    snapshot_old_is_ignored
    snapshot_outrun
    snapshot_under_load
    transfer
    transfer_dead_target
    witness
}

/// Every script in the folder is run; the one with a planted fault has a test of its own.
#[test]
fn no_script_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scripts/paxos");
    let entries = std::fs::read_dir(folder).expect("the folder of scripts");
    let name =
        |path: std::path::PathBuf| path.file_stem().map(|n| n.to_string_lossy().into_owned());
    let mut found: Vec<String> = entries.filter_map(|entry| name(entry.ok()?.path())).collect();
    found.retain(|name| name != "single_step_bug");
    found.sort();
    let mut named = NAMES.to_vec();
    named.sort_unstable();
    assert_eq!(found, named);
}
