//! The `shardgate` command.

/// The C library's allocator gives little back of what buffers of many sizes
/// leave behind: with thousands of slow clients the gateway held up to 1.5
/// times what its requests had of memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    shardgate::cli::run()
}
