//! The first word on a link: who is there, and what it can be told.

use crate::wire;
use proto::NodeId;

/// Vocabularies that a program speaks: `proto::codec`'s bytes, and the meaning of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl Versions {
    /// What this program speaks.
    pub const OURS: Versions = Versions { min: 1, max: 1 };

    /// The newest that both speak; `None`: there is none.
    pub fn common(self, other: Versions) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }

    /// Whether it is spoken.
    pub fn has(self, version: u32) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// Who opens or accepts a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Of which universe.
    pub cluster: String,
    /// Its number, from 1 on.
    pub node: NodeId,
    /// Of its data folder: a number that comes back with another folder is another node (P9).
    pub instance: String,
    /// What it speaks.
    pub versions: Versions,
    /// Where others reach it, `HOST:PORT`.
    pub address: String,
    /// Which host it runs on; a clock of one host is no clock for two.
    pub host: String,
    /// Its clock's provider.
    pub clock: String,
}

impl Hello {
    /// What it says on the wire.
    pub(crate) fn to_wire(&self) -> wire::Hello {
        wire::Hello {
            cluster: self.cluster.clone(),
            node: self.node.0,
            instance: self.instance.clone(),
            version_min: self.versions.min,
            version_max: self.versions.max,
            address: self.address.clone(),
            host: self.host.clone(),
            clock: self.clock.clone(),
        }
    }

    /// What was said on the wire. It may be anything: [`meet`](Self::meet) judges it.
    pub(crate) fn from_wire(hello: wire::Hello) -> Hello {
        Hello {
            cluster: hello.cluster,
            node: NodeId(hello.node),
            instance: hello.instance,
            versions: Versions { min: hello.version_min, max: hello.version_max },
            address: hello.address,
            host: hello.host,
            clock: hello.clock,
        }
    }

    /// Whether the two belong together, and what they speak: the newest vocabulary that both know.
    ///
    /// # Errors
    /// Why not, in words that make sense at both ends.
    pub fn meet(&self, other: &Hello) -> Result<u32, String> {
        let (me, it) = (self.node, other.node);
        if it == NodeId(0) {
            return Err("a node's number is 1 or more, this one says 0".into());
        }
        if self.cluster != other.cluster {
            let (ours, its) = (&self.cluster, &other.cluster);
            return Err(format!("{me} is of cluster {ours}, {it} of cluster {its}"));
        }
        if me == it {
            let (here, there) = (&self.address, &other.address);
            return Err(format!("both are {me}: one at {here}, one at {there}"));
        }
        self.versions.common(other.versions).ok_or_else(|| {
            let (ours, its) = (self.versions, other.versions);
            format!(
                "no version in common: {me} speaks {} to {}, {it} {} to {}",
                ours.min, ours.max, its.min, its.max
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u32) -> Hello {
        Hello {
            cluster: "c1".into(),
            node: NodeId(node),
            instance: format!("i{node}"),
            versions: Versions { min: 2, max: 4 },
            address: format!("127.0.0.1:{node}"),
            host: "h".into(),
            clock: "local".into(),
        }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let ours = Versions { min: 2, max: 4 };
        let common = |min, max| ours.common(Versions { min, max });
        assert_eq!(common(2, 4), Some(4));
        assert_eq!(common(1, 2), Some(2));
        assert_eq!(common(3, 9), Some(4));
        assert_eq!(common(4, 9), Some(4));
        assert_eq!(common(0, 1), None);
        assert_eq!(common(5, 9), None);
        assert_eq!(common(4, 2), None, "a range that ends before it begins holds nothing");
    }

    #[test]
    fn strangers_are_refused_in_words() {
        let me = hello(2);
        assert_eq!(me.meet(&hello(1)), Ok(4));
        let refused = |other: Hello| me.meet(&other).expect_err("refused");
        assert!(refused(Hello { cluster: "c2".into(), ..hello(1) }).contains("cluster c2"));
        assert!(refused(hello(2)).contains("both are n2"));
        assert!(refused(hello(0)).contains("says 0"));
        let newer = Hello { versions: Versions { min: 5, max: 6 }, ..hello(1) };
        assert!(refused(newer).contains("n2 speaks 2 to 4, n1 5 to 6"));
    }

    #[test]
    fn the_wire_keeps_every_field() {
        assert_eq!(Hello::from_wire(hello(7).to_wire()), hello(7));
    }
}
