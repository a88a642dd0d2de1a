//! Writes a good history of so many transactions to standard output:
//!
//! ```text
//! cargo run --release -p history --example generate 1000000 > good.jsonl
//! meridian check history good.jsonl
//! ```
//!
//! A second number is the seed.

#[path = "../tests/support/mod.rs"]
mod support;

use history::file::{Header, write_header, write_operation};
use std::io::{self, BufWriter, Write};

fn main() -> io::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Some(Ok(transactions)), Ok(seed)) = (numbers.next(), numbers.next().unwrap_or(Ok(1)))
    else {
        eprintln!("usage: generate TRANSACTIONS [SEED]");
        std::process::exit(2);
    };
    let mut out = BufWriter::new(io::stdout().lock());
    write_header(&mut out, &Header::default())?;
    for op in support::good(seed, support::large(transactions as usize)) {
        write_operation(&mut out, &op)?;
    }
    out.flush()
}
