//! A partition by the kernel: every server in a network namespace of its own, all joined by a bridge, and
//! the leader's end of the cable taken down. Unlike with the fault hook clients do not reach it either,
//! and connections break as they break in the world: by silence.

use crate::crashes::AROUND;
use crate::figures::fault_lasts;
use crate::nodes::{Cluster, Plan};
use crate::support::run;
use crate::verdict::{Fault, cannot, judge};
use crate::work::Load;
use std::process::Command;
use std::thread::sleep;

const PORT: u16 = 7_100;

/// Namespaces `mPID-N` on a bridge; all gone when dropped.
struct Net {
    tag: String,
    third: u8,
    nodes: u32,
}

impl Net {
    /// `None`: only root may, or `ip` is not there.
    fn build(nodes: u32) -> Option<Net> {
        let pid = std::process::id();
        let net = Net { tag: format!("m{pid}"), third: (pid % 250) as u8, nodes };
        // Dropped on the way out, it takes down what is there already.
        net.ip(&format!("link add {}b type bridge", net.tag))?;
        net.ip(&format!("address add {} dev {}b", net.place("254/24"), net.tag))?;
        net.ip(&format!("link set {}b up", net.tag))?;
        for node in 1..=nodes {
            let (space, cable) = (net.space(node), net.cable(node));
            net.ip(&format!("netns add {space}"))?;
            net.ip(&format!("link add {cable} type veth peer name eth0 netns {space}"))?;
            net.ip(&format!("link set {cable} master {}b up", net.tag))?;
            let place = net.place(&format!("{node}/24"));
            net.ip(&format!("-n {space} address add {place} dev eth0"))?;
            net.ip(&format!("-n {space} link set eth0 up"))?;
            net.ip(&format!("-n {space} link set lo up"))?;
        }
        Some(net)
    }

    fn ip(&self, what: &str) -> Option<()> {
        let ended = Command::new("ip").args(what.split(' ')).output().ok()?;
        if !ended.status.success() {
            println!("ip {what}: {}", String::from_utf8_lossy(&ended.stderr).trim());
        }
        ended.status.success().then_some(())
    }

    fn place(&self, host: &str) -> String {
        format!("10.213.{}.{host}", self.third)
    }

    fn space(&self, node: u32) -> String {
        format!("{}-{node}", self.tag)
    }

    fn cable(&self, node: u32) -> String {
        format!("{}v{node}", self.tag)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in 1..=self.nodes {
            // Its end of the cable goes with it, and with that the other one.
            run(Command::new("ip").args(["netns", "del", &self.space(node)]));
        }
        run(Command::new("ip").args(["link", "del", &format!("{}b", self.tag)]));
    }
}

#[test]
fn the_leaders_cable_is_pulled() {
    let name = "leader's cable pulled";
    let mut cluster = Cluster::of(Plan::default());
    let Some(net) = Net::build(3) else {
        return cannot(name, "network namespaces need root, and `ip`");
    };
    for node in 1..=3 {
        let address = format!("{}:{PORT}", net.place(&node.to_string()));
        cluster.add(node, Some(address));
        let within = ["ip", "netns", "exec", &net.space(node)];
        cluster.member(node).within = within.map(str::to_owned).to_vec();
    }
    cluster.found();
    let load = Load::start(&cluster, fault_lasts() + AROUND);
    let leader = cluster.busiest();
    let mut fault = Fault::begins(name, "its network namespace's link down, then up");
    net.ip(&format!("link set {} down", net.cable(leader))).expect("it was set up");
    sleep(fault_lasts());
    net.ip(&format!("link set {} up", net.cable(leader))).expect("it was set down");
    fault.is_over();
    judge(&mut cluster, load, &fault);
    drop(cluster);
    drop(net);
}
