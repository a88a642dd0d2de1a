//! `\certificate`: what proves the last commit, for people (X13).

use client::CommitReceipt;
use sql::timestamp_text;
use truetime::Interval;

/// The receipt of a commit, line by line.
pub fn lines(receipt: &CommitReceipt) -> Vec<String> {
    let s = timestamp_text(receipt.timestamp);
    let Some(certificate) = &receipt.certificate else {
        let why = "nothing was written, or the first answer was lost";
        return vec![format!("committed at {s}, without a certificate: {why}")];
    };
    let interval = |now: Interval| {
        format!("{} .. {}", timestamp_text(now.earliest()), timestamp_text(now.latest()))
    };
    let certificate = certificate.as_ref();
    let (timing, clock) = (certificate.timing, &certificate.provenance);
    let mut lines = vec![
        format!(
            "transaction   {}, decided by {} under {}",
            certificate.txn, certificate.group, certificate.ballot
        ),
        format!("arrived       {}", interval(certificate.arrived)),
    ];
    for (group, at) in &certificate.prepared {
        lines.push(format!("prepared      {}, {group}", timestamp_text(*at)));
    }
    lines.extend([
        format!("committed at  {s}"),
        format!("wait ended    {}", interval(certificate.waited)),
        format!("clock         {} of {}, {}", clock.provider, clock.node, clock.status),
        format!(
            "took          locks {} µs, prepares {} µs, replication {} µs, commit wait {} µs ({} of \
             it within the replication), ε {} µs",
            timing.locks_us,
            timing.prepare_us,
            timing.replicate_us,
            timing.wait_us,
            timing.overlap_us,
            timing.epsilon_us
        ),
    ]);
    let seal: String = certificate.seal.iter().map(|byte| format!("{byte:02x}")).collect();
    lines.push(format!("seal          {}", if seal.is_empty() { "none".into() } else { seal }));
    lines
}
