//! Texts that name clocks, and texts that do not.

use super::*;
use proptest::prelude::*;

fn simulated(change: impl FnOnce(&mut SimulatedSpec)) -> ClockSpec {
    let mut spec = SimulatedSpec::default();
    change(&mut spec);
    ClockSpec::Simulated(spec)
}

fn masters(addresses: &[&str]) -> MastersSpec {
    MastersSpec::new(addresses.iter().map(|address| (*address).to_owned()).collect())
}

#[test]
fn what_people_write_is_understood() {
    let wide = MastersSpec {
        poll_ms: 1_500,
        drift_ppm: 300,
        key_file: Some("/etc/key".into()),
        evict: false,
        ..masters(&["[::1]:4", "time.example.org:123"])
    };
    let known = [
        ("local", ClockSpec::Local { epsilon_us: 50 }),
        ("local:epsilon=2ms", ClockSpec::Local { epsilon_us: 2_000 }),
        ("simulated", simulated(|_| {})),
        ("simulated:", simulated(|_| {})),
        (
            "simulated:offset=-3ms,drift=2000,epsilon=5000,lie=0.5ms,hasty,evict=off",
            simulated(|spec| {
                (spec.offset_us, spec.drift_ppm) = (-3_000, 2_000);
                (spec.epsilon_us, spec.lie_us) = (5_000, 500);
                (spec.hasty, spec.evict) = (true, false);
            }),
        ),
        (
            "simulated:applied=100,check=1s,hasty=off",
            simulated(|spec| (spec.applied_ppm, spec.check_ms) = (100, 1_000)),
        ),
        ("masters:a:1,b:2", ClockSpec::Masters(masters(&["a:1", "b:2"]))),
        (
            "masters:[::1]:4,time.example.org:123,poll=1.5,drift=300,key-file=/etc/key,evict=off",
            ClockSpec::Masters(wide),
        ),
        ("masters:a:1,poll=2min", {
            ClockSpec::Masters(MastersSpec { poll_ms: 120_000, ..masters(&["a:1"]) })
        }),
        ("system", ClockSpec::System),
        ("clockbound", ClockSpec::ClockBound { path: None }),
        ("clockbound:path=/run/shm", ClockSpec::ClockBound { path: Some("/run/shm".into()) }),
    ];
    for (text, spec) in known {
        assert_eq!(text.parse(), Ok(spec), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_a_hint() {
    for (text, at, words) in [
        ("", 0, "the providers are local, simulated, masters, system, clockbound"),
        ("simulatd:drift=1", 0, "`simulated`"),
        ("simulated:offst=5", 10, "did you mean `offset`?"),
        ("simulated:epsilon=5,zzzzz=1", 20, "the settings are offset, drift"),
        ("simulated:epsilon=5,epsilon=6", 20, "`epsilon` is given twice"),
        ("simulated:epsilon=5x", 18, "`5x` is no value of `epsilon`"),
        ("simulated:epsilon=-5", 18, "`-5` is no value of `epsilon`"),
        ("simulated:epsilon=0.0001us", 18, "`0.0001us` is no value of `epsilon`"),
        ("simulated:offset=2d", 17, "at most a day"),
        ("simulated:offset=--2", 17, "at most a day"),
        ("simulated:offset=90000s", 17, "at most a day"),
        ("simulated:drift=1.5", 16, "a whole number from -500000 to 500000, in µs/s"),
        ("simulated:drift", 10, "`drift` has no value"),
        ("simulated:hasty=yes", 16, "on or off"),
        ("simulated:check=0", 16, "from 1ms to 60000ms"),
        ("simulated:epsilon=1,,lie=2", 20, "there is no setting ``"),
        ("local:drift=3", 6, "the settings are epsilon"),
        ("system:x=1", 7, "this clock has no settings"),
        ("clockbound:path=", 16, "a path"),
        ("masters", 7, "no master is named"),
        ("masters:poll=3", 8, "no master is named"),
        ("masters:a", 8, "HOST:PORT"),
        ("masters::7", 8, "HOST:PORT"),
        ("masters:a:1,a:99999", 12, "HOST:PORT"),
        ("masters:a:1,b:2,a:1", 16, "`a:1` is named twice"),
        ("masters:a:1,poll=1ms", 17, "from 100ms to 3600000ms; a plain number is in s"),
        ("masters:a:1,pol=1s", 12, "did you mean `poll`?"),
    ] {
        let error = text.parse::<ClockSpec>().expect_err(text);
        assert_eq!(error.at, at, "{error}");
        assert!(error.to_string().contains(words), "no '{words}' in: {error}");
    }
}

#[test]
fn a_caret_stands_below_the_place() {
    let error = "simulated:epsilon=5µs,lye=1".parse::<ClockSpec>().unwrap_err();
    let wanted = "there is no setting `lye` here\n  simulated:epsilon=5µs,lye=1\n                        \
                  ^\nHint: did you mean `lie`?";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn clocks_of_single_nodes_and_of_clients() {
    let specs =
        ClockSpecs::parse(&["n2=simulated:drift=7", "local:epsilon=9", "client=system"]).unwrap();
    assert_eq!(*specs.of_node(1), ClockSpec::Local { epsilon_us: 9 });
    assert_eq!(*specs.of_node(2), simulated(|spec| spec.drift_ppm = 7));
    assert_eq!(*specs.of_client(), ClockSpec::System);
    let none: [&str; 0] = [];
    assert_eq!(*ClockSpecs::parse(&none).unwrap().of_client(), ClockSpec::default());
    for (texts, at, words) in [
        (&["n2=local", "n2=local"][..], 0, "the clock of n2 is given twice"),
        (&["local", "system"], 0, "the clock of everybody is given twice"),
        (&["client=local", "client=local"], 0, "the clients is given twice"),
        (&["n0=local"], 0, "neither a node nor `client`"),
        (&["server=local"], 0, "n1, n2, n3, or client"),
        (&["n2=locl"], 3, "no clock is called `locl`"),
        (&["n2=local:epsilon=x"], 17, "`x` is no value"),
    ] {
        let error = ClockSpecs::parse(texts).expect_err(words);
        assert_eq!(error.at, at, "{error}");
        assert!(error.to_string().contains(words), "no '{words}' in: {error}");
    }
}

#[test]
fn a_change_changes_what_it_names() {
    let mut skew = SimulatedSpec { offset_us: 40, epsilon_us: 300, ..Default::default() }.skew(0);
    let change: ClockChange = "drift=2000  lie=0.1ms hasty=on".parse().unwrap();
    change.apply(1_000_000_000, &mut skew);
    assert_eq!(skew.drift.offset_ns(2_000_000_000), 40_000 + 2_000_000);
    assert_eq!((skew.claims_ns(), skew.hasty), (200_000, true));
    "offset=-7 hasty=off".parse::<ClockChange>().unwrap().apply(2_000_000_000, &mut skew);
    assert_eq!(skew.drift.offset_ns(3_000_000_000), -7_000 + 2_000_000);
    "honest epsilon=1ms".parse::<ClockChange>().unwrap().apply(3_000_000_000, &mut skew);
    assert_eq!(skew, SimulatedSpec { epsilon_us: 1_000, ..Default::default() }.skew(0));
    for (text, at) in [("", 0), ("  ", 0), ("drift=1 drft=2", 8), ("dishonest", 0), ("lie=-1", 4)] {
        assert_eq!(text.parse::<ClockChange>().expect_err(text).at, at, "{text}");
    }
}

#[test]
fn honest_is_who_stays_within_what_he_claims() {
    let honest = |text: &str| match text.parse() {
        Ok(ClockSpec::Simulated(spec)) => spec.is_honest(),
        other => panic!("{text}: {other:?}"),
    };
    assert!(honest("simulated:offset=-5ms,epsilon=5ms"));
    for text in ["offset=6ms,epsilon=5ms", "offset=5ms,epsilon=5ms,lie=1", "drift=1", "hasty"] {
        assert!(!honest(&format!("simulated:{text}")), "{text}");
    }
}

#[test]
fn lengths_of_time_have_units() {
    for (text, ns) in [("7", 7_000_000_000), ("1.5ms", 1_500_000), ("2min", 120_000_000_000)] {
        assert_eq!(parse_duration(text), Some(Duration::from_nanos(ns)), "{text}");
    }
    for text in ["", "s", "1h", "-1s", "1.", "99999999999999999999"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

fn any_spec() -> impl Strategy<Value = ClockSpec> {
    let day_us = 86_400_000_000i64;
    let path = proptest::option::of("[a-z/.=: -]{1,12}");
    let simulated = (
        (-day_us..=day_us, -500_000i64..=500_000, 0..=day_us as u64, 0..=day_us as u64),
        (any::<bool>(), any::<bool>(), 0u32..=500_000, 1u64..=60_000),
    );
    let simulated = simulated.prop_map(|((offset_us, drift_ppm, epsilon_us, lie_us), rest)| {
        let (hasty, evict, applied_ppm, check_ms) = rest;
        ClockSpec::Simulated(SimulatedSpec {
            offset_us,
            drift_ppm,
            epsilon_us,
            lie_us,
            hasty,
            evict,
            applied_ppm,
            check_ms,
        })
    });
    let addresses = proptest::collection::btree_set("[a-z0-9.]{1,9}:[1-9][0-9]{0,3}", 1..5);
    let masters = (addresses, 100u64..=3_600_000, 0u32..=500_000, path.clone(), any::<bool>())
        .prop_map(|(addresses, poll_ms, drift_ppm, key_file, evict)| {
            let addresses = addresses.into_iter().collect();
            ClockSpec::Masters(MastersSpec { addresses, poll_ms, drift_ppm, key_file, evict })
        });
    prop_oneof![
        (0..=day_us as u64).prop_map(|epsilon_us| ClockSpec::Local { epsilon_us }),
        simulated,
        masters,
        Just(ClockSpec::System),
        path.prop_map(|path| ClockSpec::ClockBound { path }),
    ]
}

proptest! {
    #[test]
    fn what_is_displayed_parses_back(spec in any_spec()) {
        prop_assert_eq!(spec.to_string().parse(), Ok(spec));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(n[0-9]=|client=)?(simulated|masters|local|clockbound|.{0,3}):?[a-z0-9µ:=,. -]{0,30}") {
        let _ = ClockSpecs::parse(&[&text]);
        if let Err(error) = text.parse::<ClockSpec>() {
            prop_assert!(error.at <= text.chars().count());
            let _ = error.to_string();
        }
        let _ = text.parse::<ClockChange>();
    }
}
