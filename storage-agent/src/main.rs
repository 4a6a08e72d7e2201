//! The `shardgate-agent` command: configuration, logs, signals.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use shardgate_agent::config::Config;
use shardgate_agent::flags::Flags;
use shardgate_agent::fsck::{Says, fsck};
use shardgate_agent::run::run;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What a wrong command line or configuration ends with.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(folder) = &flags.fsck {
        return check_disk(folder, flags.repair);
    }
    let config = match Config::load(flags) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("shardgate-agent: {error}");
            return ExitCode::from(USAGE);
        }
    };
    if let Err(error) = start_logs(&config) {
        eprintln!("shardgate-agent: log filter {:?}: {error}", config.log);
        return ExitCode::from(USAGE);
    }
    // Every open shard is a file, and so is every connection.
    if let Err(error) = shardgate_disk_store::raise_open_files() {
        tracing::warn!(%error, "open files stay limited");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shardgate-agent: start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        run(config, stop).await
    });
    // A disk that hangs keeps its threads: the process does not wait for them.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shardgate-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Checks a disk: success if nothing is wrong with it any more.
fn check_disk(folder: &Path, repair: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let checked = match runtime {
        Ok(runtime) => {
            let (mut out, mut progress) = (std::io::stdout(), std::io::stderr());
            let says = Says::to(&mut out, &mut progress);
            let checked = runtime.block_on(fsck(folder, repair, says));
            checked.map_err(|error| error.to_string())
        }
        Err(error) => Err(format!("start threads: {error}")),
    };
    match checked {
        Ok(checked) if checked.is_well() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shardgate-agent: {error}");
            ExitCode::from(USAGE)
        }
    }
}

fn start_logs(config: &Config) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&config.log)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if config.log_json {
        logs.json().init();
    } else {
        logs.with_ansi(false).init();
    }
    Ok(())
}

/// The first signal drains, the second one ends at once.
async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be caught: a stop will not drain");
        return;
    };
    for again in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if again {
            std::process::exit(1);
        }
        tracing::info!("stopping");
        stop.cancel();
    }
}
