//! The `shardgate` command.
//!
//! Owns: what can be typed, and what is printed for people. Every command
//! ends with a sentence that says what went wrong and status 1, or 0.

pub mod args;
mod catalog;
pub mod demo;
pub mod operator;
pub mod presign;
pub mod rebuild;
pub mod text;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, CatalogCommand, Command};

use crate::app::StartWishes;
use crate::pool::place::MakeFolders;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.command {
        Command::Serve(serve) => {
            let from = serve
                .config
                .as_ref()
                .map_or_else(String::new, |path| format!(" --config {}", path.display()));
            let wishes = StartWishes {
                lost: serve.lost.clone(),
                take_over: serve.take_over,
                restore: format!("shardgate catalog restore{from}"),
                makes: MakeFolders::Never,
            };
            serve
                .settings()
                .and_then(|settings| crate::app::serve(settings, wishes))
        }
        Command::Demo(demo) => demo::run(demo),
        Command::Status(status) => operator::status(&status),
        Command::Disk(disk) => operator::disk(&disk),
        Command::Catalog(catalog) => match catalog.command {
            CatalogCommand::Checkpoint(gateway) => operator::checkpoint(&gateway),
            CatalogCommand::Restore(args) => catalog::run(&args),
            CatalogCommand::Hold { end, operator } => operator::hold(&operator, end),
            CatalogCommand::Rebuild(wanted) => rebuild::run(&wanted),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("shardgate: {why}");
            ExitCode::FAILURE
        }
    }
}
