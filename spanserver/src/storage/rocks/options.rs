//! Sizes and formats, chosen for a database that may be embedded: a small folder stays small, and
//! memory is bounded whatever is written.
//!
//! Memory: 32 MiB of memory tables in all, 64 MiB of cached blocks, filters and indexes of at most
//! 256 open files. Disk beyond the data: 64 MiB of write-ahead log, two small information logs.

use super::{META, TABLETS, VERSIONS};
use rocksdb::statistics::StatsLevel;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    DEFAULT_COLUMN_FAMILY_NAME, Error, Options, SliceTransform,
};

const MIB: usize = 1024 * 1024;
const WRITE_BUFFERS_TOTAL_BYTES: usize = 32 * MIB;
const WRITE_BUFFER_BYTES: usize = 16 * MIB;
const META_BUFFER_BYTES: usize = 4 * MIB;
const BLOCK_CACHE_BYTES: usize = 64 * MIB;
const WAL_TOTAL_BYTES: u64 = 64 * MIB as u64;
const OPEN_FILES_MAX: i32 = 256;
const INFO_LOG_BYTES: usize = MIB;
const INFO_LOG_FILES: usize = 2;
const BLOCK_BYTES: usize = 8 * 1024;
const SKIPPED_MAX: u64 = 256;
const BLOOM_BITS_PER_KEY: f64 = 10.0;

/// Options of the database as a whole.
pub fn database(recovery: DBRecoveryMode) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(recovery);
    // A part of the write-ahead log that was synced and closed must be there, in full, next time.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_TOTAL_BYTES);
    options.set_db_write_buffer_size(WRITE_BUFFERS_TOTAL_BYTES);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    options.set_stats_dump_period_sec(0);
    // Counters only, for `EngineStats`; timing each operation would cost more than some of them.
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options
}

/// What all families share.
pub fn cache() -> Cache {
    Cache::new_lru_cache(BLOCK_CACHE_BYTES)
}

/// All families, on one cache. Those of logs, named by `logs`, are not compacted before they were
/// looked at (`super::heal`).
///
/// # Errors
/// When this build of RocksDB lacks the comparator with timestamps.
pub fn families(cache: &Cache, logs: &[&str]) -> Result<Vec<ColumnFamilyDescriptor>, Error> {
    let small = || family(Options::default(), cache, META_BUFFER_BYTES);
    let log = |name: &&str| {
        let mut options = log(cache);
        options.set_disable_auto_compactions(true);
        ColumnFamilyDescriptor::new(*name, options)
    };
    let mut families: Vec<_> = logs.iter().map(log).collect();
    families.extend(
        [DEFAULT_COLUMN_FAMILY_NAME, META, TABLETS]
            .map(|name| ColumnFamilyDescriptor::new(name, small())),
    );
    families.push(ColumnFamilyDescriptor::new(VERSIONS, versions(cache)?));
    Ok(families)
}

/// Options of a family of logs.
pub fn log(cache: &Cache) -> Options {
    family(Options::default(), cache, WRITE_BUFFER_BYTES)
}

/// Versions order by key, then by timestamp, newest first.
///
/// The comparator is RocksDB's own, named in an options string because the crate has no function
/// for it; one made of Rust callbacks would cost a call across for each comparison.
/// The "prefix" of a key is the whole key without its timestamp: bloom filters then serve a cursor
/// that looks for one key. Cursors over ranges ask for total order.
fn versions(cache: &Cache) -> Result<Options, Error> {
    let with_timestamps = Options::default()
        .get_options_from_string("comparator=leveldb.BytewiseComparator.u64ts")?;
    let mut options = family(with_timestamps, cache, WRITE_BUFFER_BYTES);
    options.set_prefix_extractor(SliceTransform::create_noop());
    // A cursor over all versions of a key that has to pass by more than this many in a row (copies
    // of one version, versions written since its snapshot) gives up on the rest of the key.
    options.set_max_sequential_skip_in_iterations(SKIPPED_MAX);
    Ok(options)
}

fn family(mut options: Options, cache: &Cache, write_buffer_bytes: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options
}
