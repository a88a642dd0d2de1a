//! `\clock`: the clocks of a universe, here or elsewhere, shown and changed.

use crate::clock::show;
use crate::target::{Opened, reports};
use client::{ClockChange, ClockChangeError, Clocks, Cluster, ControlReply, ControlRequest, Whose};
use std::sync::Arc;

/// Whose clocks there are to look at.
pub enum ClockView {
    /// Those of servers in this process.
    Here(Clocks),
    /// Those of servers elsewhere.
    Elsewhere(Arc<Cluster>),
}

impl ClockView {
    /// The clocks of a universe.
    pub fn of(opened: &Opened) -> ClockView {
        match opened {
            Opened::Folder(universe) => ClockView::Here(universe.clock_handle()),
            Opened::Servers(cluster) => ClockView::Elsewhere(cluster.clone()),
        }
    }

    /// What all clocks say; with `n2 drift=2000`, changes that of n2 first and shows it alone.
    ///
    /// # Errors
    /// Why not, and what to do about it.
    pub async fn command(&self, argument: &str) -> Result<Vec<String>, String> {
        let (name, change) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
        let whose: Option<Whose> = match name {
            "" => None,
            name => Some(name.parse().map_err(refused)?),
        };
        let change: Option<ClockChange> = match change.trim() {
            "" => None,
            change => Some(change.parse().map_err(|error| format!("{error}"))?),
        };
        match self {
            ClockView::Here(clocks) => here(clocks, whose, change.as_ref()),
            ClockView::Elsewhere(cluster) => {
                elsewhere(cluster, whose, change.map(|_| argument)).await
            }
        }
    }
}

fn refused(error: ClockChangeError) -> String {
    format!("{error}\nHint: {}", error.hint())
}

fn here(
    clocks: &Clocks,
    whose: Option<Whose>,
    change: Option<&ClockChange>,
) -> Result<Vec<String>, String> {
    if let Some(whose) = whose {
        if !clocks.all().iter().any(|clock| clock.whose == whose) {
            return Err(refused(ClockChangeError::Unknown(whose.to_string())));
        }
        if let Some(change) = change {
            clocks.set(whose, change).map_err(refused)?;
        }
    }
    let mut all = clocks.all();
    all.retain(|clock| whose.is_none_or(|whose| clock.whose == whose));
    Ok(show::lines(&all))
}

/// `change` is all that was said, as its server wants to hear it without the name.
async fn elsewhere(
    cluster: &Cluster,
    whose: Option<Whose>,
    change: Option<&str>,
) -> Result<Vec<String>, String> {
    match (whose, change) {
        (Some(Whose::Node(node)), Some(said)) => {
            let words = said.split_once(char::is_whitespace).map_or("", |(_, words)| words);
            let order = ControlRequest::Clock(words.trim().to_owned());
            match cluster.control(node, order).await {
                Ok(ControlReply::Done) => {}
                Ok(other) => return Err(format!("{node} answers {other:?}")),
                Err(error) => {
                    return Err(format!(
                        "{node}: {error}\nHint: start servers whose clocks may be made wrong with \
                         --clock simulated:… --allow-faults"
                    ));
                }
            }
        }
        (Some(Whose::Client), Some(_)) => {
            return Err("this client's clock cannot be made wrong; those of servers can".into());
        }
        _ => {}
    }
    let mut servers = reports(cluster).await;
    if let Some(Whose::Node(wanted)) = whose {
        servers.retain(|(node, _)| *node == wanted);
        if servers.is_empty() {
            let known: Vec<_> = cluster.nodes().iter().map(ToString::to_string).collect();
            return Err(format!("there is no {wanted}\nHint: {}", known.join(", ")));
        }
    }
    let lines = show::remote_lines(&servers, &cluster.clock(), &cluster.clock_sources());
    let client = lines.len().saturating_sub(1);
    Ok(match whose {
        Some(Whose::Node(_)) => lines[..client].to_vec(),
        Some(Whose::Client) => lines[client..].to_vec(),
        None => lines,
    })
}
