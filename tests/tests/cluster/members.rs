//! A server whose disk is lost is replaced by a new one with another number (P9).

use crate::crashes::AROUND;
use crate::figures::fault_lasts;
use crate::nodes::{Cluster, Plan};
use crate::verdict::{Fault, judge};
use crate::work::Load;
use proto::NodeId;
use proto::control::ControlRequest;

#[test]
fn a_wiped_server_is_replaced() {
    let mut cluster = Cluster::start(Plan::default());
    let load = Load::start(&cluster, fault_lasts() + AROUND * 2);
    let mut fault =
        Fault::begins("wiped node replaced", "kill -9, disk gone, a new number takes over");
    cluster.kill(3);
    cluster.wipe(3);
    cluster.add(4, None);
    cluster.run(4);
    cluster.order(ControlRequest::Replace { lost: NodeId(3), by: Some(NodeId(4)) });
    cluster.settled(&[1, 2, 4]);
    fault.is_over();
    println!("all groups are whole again after {:?}", fault.from.elapsed());
    judge(&mut cluster, load, &fault);
}
