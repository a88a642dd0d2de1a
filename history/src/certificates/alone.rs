//! What one certificate says by itself, and whether it can be so.

use super::file::Entry;
use super::flaw::Flaw;
use proto::request::Certificate;
use std::collections::BTreeSet;
use truetime::Status;
use truetime::key::Key;

/// What is wrong with an entry and its certificate, each with its story; empty: nothing. The first
/// is the one that says most.
pub fn flaws(entry: &Entry, certificate: &Certificate, key: Option<&Key>) -> Vec<(Flaw, String)> {
    let mut found = Vec::new();
    found.extend(seal(certificate, key));
    found.extend(receipt(entry, certificate));
    found.extend(timestamp(certificate));
    found.extend(clock(certificate));
    found.extend(participants(certificate));
    found.extend(timing(certificate));
    found
}

/// What is wrong with a client's own observation.
pub fn observation(entry: &Entry) -> Option<(Flaw, String)> {
    (entry.acknowledged_ns < entry.began_ns).then(|| {
        let ms = (entry.began_ns - entry.acknowledged_ns) as f64 / 1e6;
        let story = format!("{} was acknowledged {ms:.3} ms before it began", entry.txn);
        (Flaw::EndedBeforeBegun, story)
    })
}

fn seal(certificate: &Certificate, key: Option<&Key>) -> Option<(Flaw, String)> {
    let (key, txn) = (key?, certificate.txn);
    if certificate.seal.is_empty() {
        return Some((Flaw::NoSeal, format!("nobody has sealed the certificate of {txn}")));
    }
    let story = "is not what the key makes of it: it was changed since, or made without the key";
    let sealed = certificate.is_sealed_by(key);
    (!sealed).then(|| (Flaw::ForgedSeal, format!("the seal of the certificate of {txn} {story}")))
}

fn receipt(entry: &Entry, certificate: &Certificate) -> Option<(Flaw, String)> {
    let (told, proven) = ((entry.txn, entry.timestamp), (certificate.txn, certificate.timestamp));
    (told != proven).then(|| {
        let story = format!(
            "the client of {} was told {}, and this is the certificate of {}, which committed at {}",
            told.0, told.1, proven.0, proven.1
        );
        (Flaw::NotItsReceipt, story)
    })
}

/// X7, X8.
fn timestamp(certificate: &Certificate) -> Vec<(Flaw, String)> {
    let Certificate { txn, timestamp: s, prepared, arrived, waited, .. } = certificate;
    let mut found = Vec::new();
    if let Some((group, at)) = prepared.iter().find(|(_, at)| at > s) {
        let story = format!("{txn} committed at {s}, and {group} had prepared at {at}");
        found.push((Flaw::BelowPrepare, story));
    }
    if !arrived.before(*s) {
        let story = format!(
            "{txn} committed at {s}, and its request arrived when it was {arrived}: {s} may have \
             passed by then"
        );
        found.push((Flaw::NotAboveArrival, story));
    }
    if !waited.after(*s) {
        let story = format!(
            "{txn} committed at {s}, and its commit wait ended when it was {waited}: {s} may not \
             have passed by then"
        );
        found.push((Flaw::WaitCutShort, story));
    }
    found
}

/// T1, T5, T6.
fn clock(certificate: &Certificate) -> Vec<(Flaw, String)> {
    let Certificate { txn, arrived, waited, provenance, ballot, .. } = certificate;
    let mut found = Vec::new();
    if waited.earliest() < arrived.earliest() || waited.latest() < arrived.latest() {
        let story = format!("the clock of {txn} said {arrived} first, and {waited} after that");
        found.push((Flaw::ClockWentBack, story));
    }
    let status = Status::ALL.into_iter().find(|status| status.to_string() == provenance.status);
    if provenance.provider.is_empty() || !status.is_some_and(Status::has_bound) {
        let story = format!(
            "the clock of {txn} was `{}`, and `{}`: that promises nothing",
            provenance.provider, provenance.status
        );
        found.push((Flaw::NoBound, story));
    }
    if provenance.node != ballot.node {
        let story = format!(
            "{} was led by {} under {ballot}, and the clock of {txn} is that of {}",
            certificate.group, ballot.node, provenance.node
        );
        found.push((Flaw::AnothersClock, story));
    }
    found
}

/// X6.
fn participants(certificate: &Certificate) -> Option<(Flaw, String)> {
    let Certificate { txn, group, prepared, .. } = certificate;
    let mut seen = BTreeSet::from([*group]);
    let odd = prepared.iter().map(|(group, _)| *group).find(|group| !seen.insert(*group))?;
    let story = match odd == *group {
        true => format!("{group} coordinated {txn}, and prepared it too"),
        false => format!("{odd} prepared {txn} twice"),
    };
    Some((Flaw::OddParticipants, story))
}

/// The parts fit into the whole, from the arrival to the end of the wait on one clock.
fn timing(certificate: &Certificate) -> Option<(Flaw, String)> {
    let Certificate { txn, timing, arrived, waited, .. } = certificate;
    let whole_us = waited.latest().micros().saturating_sub(arrived.latest().micros());
    let parts = [timing.locks_us, timing.prepare_us, timing.replicate_us.max(timing.wait_us)];
    let parts_us = parts.iter().map(|us| u128::from(*us)).sum::<u128>();
    let story = if parts_us > u128::from(whole_us) {
        format!("the parts of {txn} took {parts_us} µs, and the whole {whole_us} µs")
    } else if timing.overlap_us > timing.replicate_us.min(timing.wait_us) {
        format!(
            "the wait of {txn} overlaps its replication by {} µs, and they took {} and {} µs",
            timing.overlap_us, timing.wait_us, timing.replicate_us
        )
    } else if timing.epsilon_us != waited.epsilon_us() {
        let (said, was) = (timing.epsilon_us, waited.epsilon_us());
        format!("the ε of {txn} is said to be {said} µs, and {waited} makes {was} µs")
    } else {
        return None;
    };
    Some((Flaw::OddTiming, story))
}
