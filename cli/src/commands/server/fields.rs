//! What a server can be told: one table, from which flags, environment and file are made, so that
//! the three cannot drift apart.

use Kind::{List, Number, Switch, Text};

/// One thing that a server can be told.
#[derive(Debug)]
pub struct Field {
    /// Its name: `--name`, `MERIDIAN_NAME`, `name = …` in a file.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub placeholder: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// What counts when nobody says anything; `None`: nothing, or what depends on others.
    pub default: Option<&'static str>,
    /// Under which heading the help has it.
    pub heading: &'static str,
    /// What it is.
    pub help: &'static str,
}

/// How a value is written in a file. As a flag and in the environment everything is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In quotes.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`; the flag alone says `true`.
    Switch,
    /// Several texts in brackets; with commas between them elsewhere. The flag may be repeated.
    List,
}

impl Field {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('-', "_").to_uppercase())
    }
}

/// What environment variables of Meridian begin with.
pub const PREFIX: &str = "MERIDIAN_";
/// Names the file; as a variable or a flag, not in the file.
pub const CONFIG: &str = "config";

const NODE: &str = "Node";
const SECURITY: &str = "Security";
const FOUNDING: &str = "Founding a universe";
const WATCHING: &str = "Watching and stopping";

/// All of them, in the order of the help.
pub const FIELDS: &[Field] = &[
    Field {
        name: "node",
        placeholder: "N",
        kind: Number,
        default: None,
        heading: NODE,
        help: "Its number, 1 or more; every node has its own, and a number is never given to another \
               data folder",
    },
    Field {
        name: "listen",
        placeholder: "HOST:PORT",
        kind: Text,
        default: Some("127.0.0.1:7100"),
        heading: NODE,
        help: "Where it listens to nodes and clients; port 0 takes a free one",
    },
    Field {
        name: "advertise",
        placeholder: "HOST:PORT",
        kind: Text,
        default: None,
        heading: NODE,
        help: "Where others reach it, if not where it listens",
    },
    Field {
        name: "data",
        placeholder: "DIR",
        kind: Text,
        default: None,
        heading: NODE,
        help: "Its data folder; made when it is not there",
    },
    Field {
        name: "join",
        placeholder: "HOST:PORT,…",
        kind: List,
        default: None,
        heading: NODE,
        help: "Nodes to ask for the way into a universe; needed the first time, and useful whenever \
               addresses change",
    },
    Field {
        name: "zone",
        placeholder: "NAME",
        kind: Text,
        default: Some("default"),
        heading: NODE,
        help: "Where it stands: nodes that fail together are in one zone, and the replicas of a group \
               are spread over zones",
    },
    Field {
        name: "clock",
        placeholder: "SPEC",
        kind: Text,
        default: Some("local"),
        heading: NODE,
        help: "Where its bound on absolute time comes from: local (all nodes on one host), \
               masters:HOST:PORT,…, system, clockbound or simulated; `meridian sql --help` tells the \
               settings of each",
    },
    Field {
        name: "tls-cert",
        placeholder: "FILE",
        kind: Text,
        default: None,
        heading: SECURITY,
        help: "Its certificate, PEM, with the name nN.node.meridian for node N; read again when it \
               changes",
    },
    Field {
        name: "tls-key",
        placeholder: "FILE",
        kind: Text,
        default: None,
        heading: SECURITY,
        help: "The certificate's private key, PEM",
    },
    Field {
        name: "tls-ca",
        placeholder: "FILE",
        kind: Text,
        default: None,
        heading: SECURITY,
        help: "The authority whose certificates nodes and clients must have, PEM",
    },
    Field {
        name: "insecure",
        placeholder: "",
        kind: Switch,
        default: Some("false"),
        heading: SECURITY,
        help: "Listen without TLS where other hosts reach it: whoever does can read and change \
               everything",
    },
    Field {
        name: "allow-faults",
        placeholder: "",
        kind: Switch,
        default: Some("false"),
        heading: SECURITY,
        help: "For tests: whoever may speak to it may make its links and its simulated clock fail",
    },
    Field {
        name: "init",
        placeholder: "",
        kind: Switch,
        default: Some("false"),
        heading: FOUNDING,
        help: "Found a universe, if the data folder is new; one node does, once",
    },
    Field {
        name: "groups",
        placeholder: "N",
        kind: Number,
        default: Some("4"),
        heading: FOUNDING,
        help: "Data groups over which rows are spread, 1 to 10,000; never changes",
    },
    Field {
        name: "replicas",
        placeholder: "N",
        kind: Number,
        default: Some("3"),
        heading: FOUNDING,
        help: "Replicas that each group gets as soon as there are so many nodes: 1, 3, 5 or 7",
    },
    Field {
        name: "retention",
        placeholder: "TIME",
        kind: Text,
        default: Some("3600s"),
        heading: FOUNDING,
        help: "How far back the past can be read: 1s to 7 days",
    },
    Field {
        name: "http",
        placeholder: "HOST:PORT|off",
        kind: Text,
        default: None,
        heading: WATCHING,
        help: "Where /metrics, /healthz and /readyz are, without TLS [default: this host only, the \
               port of --listen plus 1000]",
    },
    Field {
        name: "log",
        placeholder: "text|json",
        kind: Text,
        default: Some("text"),
        heading: WATCHING,
        help: "How the log on standard error is written",
    },
    Field {
        name: "log-level",
        placeholder: "FILTER",
        kind: Text,
        default: Some("info"),
        heading: WATCHING,
        help: "What is logged: error, warn, info, debug, trace, or by part, as info,rpc=debug",
    },
    Field {
        name: "drain-seconds",
        placeholder: "N",
        kind: Number,
        default: Some("15"),
        heading: WATCHING,
        help: "How long it may take to hand its leaderships over before it stops",
    },
];

/// The field of this name.
pub fn find(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

/// `did you mean …`, for a name that is none.
pub fn meant(written: &str, names: &[&str]) -> Option<String> {
    sim::lab::nearest(written, names).map(|near| format!("did you mean {near}?"))
}
