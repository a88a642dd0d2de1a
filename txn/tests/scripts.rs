//! Golden scripts: `UPDATE_GOLDENFILES=1 cargo test -p txn --test scripts` rewrites them.

mod script;

macro_rules! scripts {
    ($kind:ident: $($name:ident)*) => {
        mod $kind {
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];
            $(#[test] fn $name() { super::script::run(stringify!($kind), stringify!($name)); })*
        }
    };
}

scripts! { locks:
    attempts
    deadlock_of_five
    deadlock_of_three
    deadlock_of_two
    empty_range
    fifo
    immune
    key_and_key
    key_and_range
    late_reader
    one_wake_up
    phantom
    range_and_range
    upgrade
    withdrawn
}

scripts! { groups:
    bounded
    commit_repeated
    deadlock_through_prepared
    early_release
    fence
    new_leader
    prepare_refused
    read_only_participant
    retry_with_its_age
    safe_time
    silent_client
    too_late_for_its_schema
    wound_deciding
    wound_prepared
    wound_preparing
    wound_reading
    wound_waiting
}

scripts! { anomalies:
    causal_reverse
    g0_dirty_write
    g1a_aborted_read
    g1b_intermediate_read
    g1c_circular_information_flow
    g2_item_write_skew
    g2_phantom_anti_dependency
    g_single_read_skew
    long_fork
    non_repeatable_snapshot
    otv_observed_transaction_vanishes
    p4_lost_update
    pmp_predicate_many_preceders
    stale_read
}

scripts! { safe_time:
    bounded_staleness
    future
    handed_over
    in_flight
    leader_lost
    old
    prepared
    slot_and_promise
    snapshot_installed
}

/// Every script in the folders is run.
#[test]
fn no_script_is_forgotten() {
    let kinds = [
        ("locks", locks::NAMES),
        ("groups", groups::NAMES),
        ("anomalies", anomalies::NAMES),
        ("safe_time", safe_time::NAMES),
    ];
    for (kind, names) in kinds {
        let entries = std::fs::read_dir(script::folder(kind)).expect("the folder of scripts");
        let name =
            |path: std::path::PathBuf| path.file_stem().map(|n| n.to_string_lossy().into_owned());
        let mut found: Vec<String> = entries.filter_map(|entry| name(entry.ok()?.path())).collect();
        found.sort();
        assert_eq!(found, names);
    }
}
