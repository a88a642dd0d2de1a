//! Golden scripts: `UPDATE_GOLDENFILES=1 cargo test -p paxos --test scripts` rewrites them.

mod cluster;

macro_rules! scripts {
    ($($name:ident)*) => {
        /// Every script in the folder is run; those that plant a fault have a test of their own.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { cluster::script::run(stringify!($name)); })*
    };
}

scripts! {
    bit_rot_repair
    chosen_survives_its_leader
    election_contested
    election_simple
    figure_7
    figure_8_own_ballot
    joint_change
    joint_change_survives_its_leader
    lease_handover
    lease_restart_honours_vote
    own_disk_counts_after_answer
    partial_partition_chain
    partial_partition_star
    pre_vote_isolated_node_returns
    replace_wiped
    single_step_guarded
    snapshot_keeps_suffix
    snapshot_old_is_ignored
    snapshot_outrun
    snapshot_under_load
    transfer
    transfer_dead_target
    witness
}
