//! `--fault '5s n2 drift=2000'`: a clock made wrong, or put right, while a command runs.

use crate::exit::Exit;
use client::{ClockChange, ClockChangeError, Clocks, Whose};
use std::str::FromStr;
use std::time::{Duration, Instant};
use truetime::spec::parse_duration;

/// What is changed, of whose clock, and how long after the start.
#[derive(Clone, Debug)]
pub struct Fault {
    text: String,
    after: Duration,
    whose: Whose,
    change: ClockChange,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let mut words = text.trim().splitn(3, char::is_whitespace);
        let (Some(after), Some(whose), Some(change)) = (words.next(), words.next(), words.next())
        else {
            return Err("when, whose clock, and what is changed, as '5s n2 drift=2000'".into());
        };
        let after = parse_duration(after).ok_or_else(|| format!("`{after}` is no time, as 5s"))?;
        let refused = |error: ClockChangeError| format!("{error}; {}", error.hint());
        Ok(Fault {
            text: text.trim().to_owned(),
            after,
            whose: whose.parse().map_err(refused)?,
            change: change.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

/// Makes the changes, each in its time from now on, and says so on standard error.
///
/// # Errors
/// The first that is refused; later ones are not made.
pub async fn make(mut faults: Vec<Fault>, clocks: Clocks) -> Result<(), Exit> {
    let began = Instant::now();
    faults.sort_by_key(|fault| fault.after);
    for fault in faults {
        tokio::time::sleep(fault.after.saturating_sub(began.elapsed())).await;
        clocks.set(fault.whose, &fault.change).map_err(|error| {
            Exit::failed(format!("--fault '{}': {error}\nHint: {}", fault.text, error.hint()))
        })?;
        eprintln!("meridian: fault: {}", fault.text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::ClockSpecs;

    #[test]
    fn what_is_no_fault_is_said() {
        let fault: Fault = "1.5s n2 drift=2000 lie=1ms".parse().unwrap();
        assert_eq!(
            (fault.after, fault.whose),
            (Duration::from_millis(1_500), "n2".parse().unwrap())
        );
        for (text, words) in [
            ("", "when, whose clock"),
            ("5s n2", "when, whose clock"),
            ("n2 5s drift=1", "`n2` is no time"),
            ("5s server drift=1", "nobody here is called `server`"),
            ("5s n2 drft=1", "did you mean `drift`?"),
        ] {
            let error = text.parse::<Fault>().expect_err(text);
            assert!(error.contains(words), "no '{words}' in: {error}");
        }
    }

    #[tokio::test]
    async fn faults_are_made_in_the_order_of_their_times() {
        let clocks = |allowed| {
            let specs = ClockSpecs::parse(&["simulated:evict=off"]).unwrap();
            Clocks::open(&specs, 3, allowed).unwrap()
        };
        let faults: Vec<Fault> = ["2ms n1 honest", "1ms n1 offset=5ms", "1ms n2 offset=-7ms"]
            .map(|text| text.parse().unwrap())
            .into();
        let free = clocks(true);
        make(faults.clone(), free.clone()).await.expect("they are allowed");
        let offs: Vec<_> = free.all().iter().map(|clock| clock.off_ns).collect();
        assert_eq!(offs, [Some(0), Some(-7_000_000), Some(0), Some(0)]);
        let Err(Exit::Failed(said)) = make(faults, clocks(false)).await else { panic!("allowed") };
        assert!(said.contains("--fault '1ms n1 offset=5ms'") && said.contains("Hint"), "{said}");
    }
}
