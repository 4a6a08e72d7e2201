//! The `shardgate` command.

fn main() -> std::process::ExitCode {
    shardgate::cli::run()
}
