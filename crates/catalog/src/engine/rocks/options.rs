//! How RocksDB is set: many small rows, bounded memory, nothing lost quietly.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options,
    ReadOptions, ReadTier,
};

const MIB: usize = 1 << 20;

/// Memory of the engine, and whether it may begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Blocks, indexes and filters that are kept in memory, bytes.
    pub block_cache_bytes: usize,
    /// Rows that are not yet in table files, bytes.
    pub memtable_bytes: usize,
    /// Whether a missing database is made.
    pub create: bool,
}

/// Settings that this crate's binding has no function for, by name. A scan
/// that steps over so many deleted rows in memory has them written out, where
/// the deletion collector sees to them.
pub(super) const BY_NAME: &[(&str, &str)] = &[
    ("memtable_op_scan_flush_trigger", "4096"),
    ("memtable_avg_op_scan_flush_trigger", "64"),
];

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 128 * MIB,
            memtable_bytes: 64 * MIB,
            create: true,
        }
    }
}

impl RocksOptions {
    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(self.create);
        options.set_block_based_table_factory(&self.tables());
        self.bound_memory(&mut options);

        options.set_compression_type(DBCompressionType::Lz4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_target_file_size_base(64 * MIB as u64);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(MIB as u64);
        // Reads must not crawl over what was deleted: a table file with that
        // many deletions in a row is compacted before its turn.
        options.add_compact_on_deletion_collector_factory(4096, 1024, 0.25);

        // Only what was cut off at the very end by a crash, and was never
        // acknowledged, may be missing; anything else refuses to open.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_paranoid_checks(true);

        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 * MIB);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_skip_stats_update_on_db_open(true);
        options
    }

    fn bound_memory(&self, options: &mut Options) {
        let memtable = (self.memtable_bytes / 4).max(MIB);
        options.set_write_buffer_size(memtable);
        options.set_max_write_buffer_number(4);
        options.set_db_write_buffer_size(self.memtable_bytes);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_max_open_files(1024);
        options.set_max_total_wal_size(4 * self.memtable_bytes as u64);
    }

    /// Indexes and filters are cut into blocks of their own, in the cache with
    /// the rest: at 500 million objects they alone are larger than memory.
    fn tables(&self) -> BlockBasedOptions {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&Cache::new_lru_cache(self.block_cache_bytes));
        tables.set_block_size(8 << 10);
        tables.set_format_version(6);
        tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        tables.set_partition_filters(true);
        tables.set_metadata_block_size(4 << 10);
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_cache_index_and_filter_blocks_with_high_priority(true);
        tables.set_pin_top_level_index_and_filter(true);
        tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // Bloom for young files, which are written often; ribbon, which is
        // smaller and slower to build, for the rest.
        tables.set_hybrid_ribbon_filter(10.0, 1);
        tables.set_whole_key_filtering(true);
        tables.set_optimize_filters_for_memory(true);
        tables
    }
}

/// For reads that may wait for the disk.
pub(super) fn reads() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// For reads that must not: what is not in memory is `Incomplete`.
pub(super) fn cached_reads() -> ReadOptions {
    let mut options = reads();
    options.set_read_tier(ReadTier::BlockCache);
    options.set_max_skippable_internal_keys(1000);
    options
}
