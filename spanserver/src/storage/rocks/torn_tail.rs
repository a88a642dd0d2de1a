//! Is the damage in a write-ahead log just its unfinished last write?
//!
//! A power cut can leave the newest write half on disk: cut off by the end of the file, or with
//! sectors that read as zeros because they were allocated and never written. Nobody was told that
//! it survives, so it may be dropped. RocksDB can drop it, but the mode that does so drops *all*
//! from the first bad record on, be it a flipped bit in the middle of what was synced years ago. So
//! before that mode is used, this looks at the files: the damage must look unwritten, and no record
//! may begin after it.
//!
//! The format (`db/log_format.h` of RocksDB): blocks of 32 KiB, in each of them fragments of a
//! record: checksum (u32), length (u16), type (u8), all little-endian, then the bytes. A record is
//! one *full* fragment, or a *first*, *middles* and a *last*; fewer than 7 bytes left at the end of
//! a block are not used.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
const SECTOR_BYTES: usize = 512;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;

/// Whether the first damage in the folder's write-ahead log is an unfinished last write.
///
/// Errs on the side of `false`: a folder that is not opened loses nothing.
///
/// # Errors
/// When the files cannot be read.
pub fn is_only_damage(folder: &Path) -> io::Result<bool> {
    let mut files = log_files(folder)?.into_iter();
    while let Some((_, path)) = files.next() {
        let bytes = std::fs::read(path)?;
        let Some(damage) = first_damage(&bytes) else { continue };
        if !looks_unwritten(&bytes, damage) || record_begins_after(&bytes, damage) {
            return Ok(false);
        }
        for (_, later) in files.by_ref() {
            let bytes = std::fs::read(later)?;
            if record_begins_after(&bytes, 0) || begins_record(&bytes, 0) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    // Nothing wrong with the write-ahead log: the damage is elsewhere.
    Ok(false)
}

/// The folder's write-ahead log in order: `000012.log`, …
fn log_files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Where the first fragment lies that is not what was written, or that is missing at the end;
/// `None` when all records are whole.
fn first_damage(bytes: &[u8]) -> Option<usize> {
    let mut unfinished = false;
    let stopped = walk(bytes, |kind| {
        unfinished = kind == FIRST || kind == MIDDLE;
        ControlFlow::Continue(())
    });
    (unfinished || stopped < bytes.len()).then_some(stopped)
}

/// Cut off by the end of the file, or a whole sector of zeros at or after the damage.
fn looks_unwritten(bytes: &[u8], damage: usize) -> bool {
    let Some(header) = bytes.get(damage..damage + HEADER_BYTES) else { return true };
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    if damage + HEADER_BYTES + length > bytes.len() {
        return true;
    }
    let first_sector = damage.div_ceil(SECTOR_BYTES) * SECTOR_BYTES;
    let after = bytes.get(first_sector..).unwrap_or_default();
    header.iter().all(|byte| *byte == 0)
        || after.chunks(SECTOR_BYTES).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// Whether a record begins behind the damage. Middles and the last fragment of the damaged record
/// itself do not count. In the damaged block any place may begin one; later blocks are walked.
fn record_begins_after(bytes: &[u8], damage: usize) -> bool {
    let block_end = (damage / BLOCK_BYTES + 1) * BLOCK_BYTES;
    (damage + 1..block_end.min(bytes.len())).any(|at| begins_record(bytes, at))
        || (block_end..bytes.len()).step_by(BLOCK_BYTES).any(|block| {
            let block = &bytes[block..bytes.len().min(block + BLOCK_BYTES)];
            let mut begins = false;
            walk(block, |kind| {
                begins = kind == FULL || kind == FIRST;
                if begins { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            begins
        })
}

fn begins_record(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at + 6), Some(&(FULL | FIRST))) && fragment(bytes, at).is_some()
}

/// Visits the types of the whole fragments in order; returns where it stopped.
fn walk(bytes: &[u8], mut visit: impl FnMut(u8) -> ControlFlow<()>) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let block_left = BLOCK_BYTES - at % BLOCK_BYTES;
        if block_left < HEADER_BYTES {
            at += block_left;
            continue;
        }
        let Some((kind, length)) = fragment(bytes, at) else { break };
        if visit(kind).is_break() {
            break;
        }
        at += length;
    }
    at
}

/// Type and length (header included) of the fragment at a place, if there is a whole one.
fn fragment(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let header = bytes.get(at..at + HEADER_BYTES)?;
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let length = HEADER_BYTES + usize::from(u16::from_le_bytes([header[4], header[5]]));
    let kind = header[6];
    if kind == 0 || at % BLOCK_BYTES + length > BLOCK_BYTES {
        return None;
    }
    // The checksum covers the type and the bytes.
    let covered = bytes.get(at + 6..at + length)?;
    (masked(crc32c(covered)) == stored).then_some((kind, length))
}

/// RocksDB stores checksums rotated and shifted, so that a checksum of checksums means something.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: it runs only when a folder would otherwise not open.
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
