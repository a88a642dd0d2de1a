use super::settings::LogForm;
use super::sources::{Environment, gather, unheard};
use super::*;
use clap::{Args, Command};
use std::sync::{Arc, Mutex};
use truetime::spec::ClockSpec;

fn parse(line: &[&str]) -> Result<Arguments, clap::Error> {
    let command = Arguments::augment_args(Command::new("server").no_binary_name(true));
    Arguments::from_arg_matches(&command.try_get_matches_from(line)?)
}

fn effective(flags: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Effective, String> {
    let environment: Environment =
        variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let flags = parse(flags).map_err(|error| error.to_string())?.flags;
    gather(&flags, &environment, Some((Path::new("m.toml"), file))).map_err(message)
}

fn message(exit: Exit) -> String {
    match exit {
        Exit::Usage(message) => message,
        exit => panic!("{exit:?} is no usage error"),
    }
}

/// The message for a server that was told this.
fn refused(flags: &[&str], variables: &[(&str, &str)], file: &str) -> String {
    match effective(flags, variables, file) {
        Ok(effective) => message(Settings::new(&effective).expect_err("it makes no sense")),
        Err(message) => message,
    }
}

fn settings(flags: &[&str], variables: &[(&str, &str)], file: &str) -> Settings {
    Settings::new(&effective(flags, variables, file).unwrap()).unwrap()
}

/// For each field a value that is not its default: as text, and as a file spells it.
const SAMPLES: &[(&str, &str, &str)] = &[
    ("node", "2", "2"),
    ("listen", "127.0.0.1:7200", "\"127.0.0.1:7200\""),
    ("advertise", "db2:7200", "\"db2:7200\""),
    ("data", "d2", "\"d2\""),
    ("join", "a:1,b:2", "[\"a:1\", \"b:2\"]"),
    ("zone", "b", "\"b\""),
    ("clock", "system", "\"system\""),
    ("tls-cert", "n2.crt", "\"n2.crt\""),
    ("tls-key", "n2.key", "\"n2.key\""),
    ("tls-ca", "ca.crt", "\"ca.crt\""),
    ("insecure", "true", "true"),
    ("allow-faults", "true", "true"),
    ("init", "true", "true"),
    ("groups", "8", "8"),
    ("replicas", "5", "5"),
    ("retention", "90min", "\"90min\""),
    ("http", "127.0.0.1:9000", "\"127.0.0.1:9000\""),
    ("log", "json", "\"json\""),
    ("log-level", "debug", "\"debug\""),
    ("drain-seconds", "3", "3"),
];

#[test]
fn every_field_is_reached_in_three_ways() {
    let names: Vec<&str> = SAMPLES.iter().map(|(name, ..)| *name).collect();
    let fields: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
    assert_eq!(names, fields, "a sample for every field, in the order of the table");
    for (name, text, in_file) in SAMPLES {
        assert_ne!(fields::find(name).unwrap().default, Some(*text), "{name}: no default");
        let flag = effective(&[&format!("--{name}={text}")], &[], "").unwrap();
        let variable = format!("MERIDIAN_{}", name.replace('-', "_").to_uppercase());
        let variable = effective(&[], &[(&variable, text)], "").unwrap();
        let file = effective(&[], &[], &format!("{name} = {in_file}\n")).unwrap();
        for (effective, by) in [
            (flag, Source::Flag),
            (variable, Source::Variable),
            (file, Source::File { path: "m.toml".into(), line: 1 }),
        ] {
            let said = Said { text: (*text).to_owned(), by };
            assert_eq!(effective.get(name), Some(&said), "{name}");
        }
    }
}

/// A field that is parsed and then forgotten would be no setting.
#[test]
fn every_field_has_its_effect() {
    let needed = ["--node=1", "--data=d"];
    let usual = format!("{:?}", settings(&needed, &[], ""));
    for (name, text, _) in SAMPLES {
        let flag = format!("--{name}={text}");
        let mut flags: Vec<&str> = needed
            .iter()
            .filter(|other| !other.starts_with(&format!("--{name}=")))
            .copied()
            .collect();
        flags.push(&flag);
        let founding = ["groups", "replicas", "retention"].contains(name);
        let mut before = usual.clone();
        if founding {
            flags.push("--init");
            before = format!("{:?}", settings(&["--node=1", "--data=d", "--init"], &[], ""));
        }
        assert_ne!(format!("{:?}", settings(&flags, &[], "")), before, "{name}");
    }
}

#[test]
fn flags_count_before_environment_before_file_before_defaults() {
    let file = "node = 1\ndata = \"d\"\nzone = \"file\"\nlisten = \"127.0.0.1:1\"\nhttp = \"off\"\n\
                init = true\n";
    let variables = [("MERIDIAN_ZONE", "variable"), ("MERIDIAN_LISTEN", "127.0.0.1:2")];
    let settings = settings(&["--zone", "flag", "--init=false"], &variables, file);
    assert_eq!(settings.zone, "flag");
    assert_eq!(settings.listen, "127.0.0.1:2");
    assert_eq!(settings.http, None);
    assert_eq!(settings.init, None);
    assert_eq!(settings.log, LogForm::Text);
    assert_eq!(settings.clock, ClockSpec::default());
}

#[test]
fn http_is_beside_the_port_and_on_this_host() {
    let of = |listen: &str, more: &str| {
        let flags = ["--node=1", "--data=d", "--advertise=x:1", "--listen", listen, more];
        settings(&flags, &[], "").http.unwrap()
    };
    assert_eq!(of("127.0.0.1:7101", "--log=text"), "127.0.0.1:8101");
    assert_eq!(of("0.0.0.0:7101", "--log=text"), "127.0.0.1:8101");
    assert_eq!(of("127.0.0.1:0", "--log=text"), "127.0.0.1:0");
    assert_eq!(of("127.0.0.1:65000", "--log=text"), "127.0.0.1:0");
    assert_eq!(of("127.0.0.1:7101", "--http=0.0.0.0:9"), "0.0.0.0:9");
}

#[test]
fn joins_are_collected() {
    let flags = ["--node=1", "--data=d", "--join", "a:1,b:2", "--join", "[::1]:3"];
    assert_eq!(settings(&flags, &[], "").join, ["a:1", "b:2", "[::1]:3"]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let good = "node = 1\ndata = \"d\"\n";
    let with = |line: &str| format!("{good}{line}\n");
    #[rustfmt::skip]
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], String, &'a str);
    let cases: &[Case<'_>] = &[
        (&[], &[], "data = \"d\"".into(), "--node is missing: Its number"),
        (&["--node", "1"], &[], String::new(), "--data is missing: Its data folder"),
        (&["--node", "0"], &[], good.into(), "--node: 0 is no number of a node: 1 or more"),
        (&["--node", "n3"], &[], good.into(), "--node: n3: the number alone: 3"),
        (
            &[],
            &[("MERIDIAN_LISTEN", "here")],
            good.into(),
            "MERIDIAN_LISTEN: here is no address: HOST:PORT, as 10.0.0.1:7100 or [::1]:7100",
        ),
        (&[], &[("MERIDIAN_INSECURE", "1")], good.into(), "MERIDIAN_INSECURE: 1: true or false"),
        (
            &[],
            &[("MERIDIAN_LOG", "debug")],
            good.into(),
            "MERIDIAN_LOG: debug: text or json\nHint: what is logged is chosen by --log-level",
        ),
        (
            &[],
            &[],
            with("zoned = \"a\""),
            "m.toml:3: nothing is called zoned\nHint: did you mean zone?",
        ),
        (&[], &[], with("[node]\nx = 1"), "m.toml:3: "),
        (
            &[],
            &[],
            with("listen = 7100"),
            "m.toml:3: listen is written otherwise\nHint: listen = \"HOST:PORT\"",
        ),
        (
            &[],
            &[],
            with("\ninit = \"yes\""),
            "m.toml:4: init is written otherwise\nHint: init = true, or init = false",
        ),
        (
            &[],
            &[],
            with("join = [1]"),
            "m.toml:3: join is written otherwise\nHint: join = [\"HOST:PORT\", \"HOST:PORT\"]",
        ),
        (&[], &[], with("groups = 0"), "m.toml:3: groups: 0: a number from 1 to 10000"),
        (&[], &[], with("replicas = 2"), "m.toml:3: replicas: 2: choose 1, 3, 5 or 7"),
        (&[], &[], with("retention = \"8\""), ""),
        (&[], &[], with("retention = \"forever\""), "m.toml:3: retention: forever: a time from 1s"),
        (&[], &[], with("zone = \"a b\""), "m.toml:3: zone: \"a b\" is no name of a zone"),
        (&[], &[], with("join = [\"a:0\"]"), "m.toml:3: join: a:0: nobody is reached at port 0"),
        (&[], &[], with("clock = \"locl\""), "m.toml:3: clock: no clock is called `locl`"),
        (&[], &[], with("zone = "), "m.toml:3: "),
        (&["--log-level", "a=b=c"], &[], good.into(), "--log-level: a=b=c: "),
        (
            &["--groups", "8"],
            &[],
            good.into(),
            "--groups counts when a universe is founded, and never again",
        ),
        (
            &["--listen", "0.0.0.0:7100"],
            &[],
            good.into(),
            "--listen 0.0.0.0:7100: others cannot reach it under this address",
        ),
        (
            &["--insecure", "--tls-cert=c", "--tls-key=k", "--tls-ca=a"],
            &[],
            good.into(),
            "--insecure contradicts",
        ),
        (&["--http", "on"], &[], good.into(), "--http: on is no address"),
        (&["--zne", "a"], &[], good.into(), "a similar argument exists: '--zone'"),
    ];
    for (flags, variables, file, expected) in cases {
        if expected.is_empty() {
            settings(flags, variables, file);
            continue;
        }
        let message = refused(flags, variables, file);
        assert!(message.contains(expected), "{flags:?} {variables:?} {file:?}:\n{message}");
    }
}

#[test]
fn certificates_are_all_there_and_readable() {
    let refused = |flags: &[&str]| {
        let all = [&["--node=1", "--data=d"], flags].concat();
        settings(&all, &[], "").config().expect_err("there are no such certificates")
    };
    let incomplete = message(refused(&["--tls-cert=c"]));
    assert!(incomplete.starts_with("--tls-key is missing"), "{incomplete}");
    match refused(&["--tls-cert=none/c", "--tls-key=none/k", "--tls-ca=none/a"]) {
        Exit::Failed(message) => assert!(message.starts_with("reading none/"), "{message}"),
        exit => panic!("{exit:?}"),
    }
}

#[test]
fn variables_that_are_almost_ours_are_told() {
    let names = ["MERIDIAN_LISTN", "MERIDIAN_SERVICE_HOST", "MERIDIAN_NODE", "MERIDIAN_CONFIG"];
    let environment: Environment = names.map(|name| (name.to_owned(), "x".to_owned())).into();
    assert_eq!(
        unheard(&environment),
        ["MERIDIAN_LISTN is not heard: did you mean MERIDIAN_LISTEN?"]
    );
}

const PRINTED: &str = "\
# What counts for this server: flags before environment before file before defaults.
# As a file (--config FILE) it says the same again. What nobody has set is commented out.

# Node
node = 2                                 # --node
listen = \"0.0.0.0:7100\"                  # MERIDIAN_LISTEN
advertise = \"db2.example.com:7100\"       # m.toml:1
# data =                                 # not set
join = [\"db1:7100\", \"db3:7100\"]          # m.toml:2
zone = \"b\"                               # --zone
clock = \"local\"                          # default

# Security
# tls-cert =                             # not set
# tls-key =                              # not set
# tls-ca =                               # not set
insecure = false                         # default
allow-faults = false                     # default

# Founding a universe
init = false                             # default
groups = 4                               # default
replicas = 3                             # default
retention = \"3600s\"                      # default

# Watching and stopping
http = \"127.0.0.1:8100\"                  # default: the port of listen, plus 1000
log = \"text\"                             # default
log-level = \"info\"                       # default
drain-seconds = 15                       # default
";

#[test]
fn what_counts_is_printed_with_who_said_it_and_says_the_same_again() {
    let file = "advertise = \"db2.example.com:7100\"\njoin = [\"db1:7100\", \"db3:7100\"]\n";
    let variables = [("MERIDIAN_LISTEN", "0.0.0.0:7100")];
    let told = effective(&["--node", "02", "--zone=b"], &variables, file).unwrap();
    let printed = print::render(&told);
    assert_eq!(printed, PRINTED);
    let again = effective(&["--data=d"], &[], &printed).unwrap();
    let told = effective(&["--node", "02", "--zone=b", "--data=d"], &variables, file).unwrap();
    let [again, told] = [again, told].map(|told| format!("{:?}", Settings::new(&told).unwrap()));
    assert_eq!(again, told);
}

/// Where a subscriber of a test writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(form: LogForm) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .event_format(logs::Lines { node: 3, form })
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(target: "rpc", node = 2, reason = "one\ntwo", "refused {}", "it");
    });
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_event_is_one_line_with_time_level_and_node() {
    let line = logged(LogForm::Text);
    let (time, rest) = line.split_at("2026-11-21T23:41:07.123456Z".len());
    assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
    assert_eq!(rest, "  WARN n3 rpc: refused it node=2 reason=one; two\n");
}

#[test]
fn an_event_is_one_object_of_json() {
    let line = logged(LogForm::Json);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["level"], "WARN");
    assert_eq!(object["node"], 3);
    assert_eq!(object["target"], "rpc");
    assert_eq!(object["message"], "refused it");
    assert_eq!(object["fields"]["node"], 2);
    assert_eq!(object["fields"]["reason"], "one\ntwo");
    assert!(object["time"].as_str().unwrap().ends_with('Z'), "{line}");
}
