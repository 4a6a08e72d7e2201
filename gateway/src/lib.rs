//! The S3 gateway and the `shardgate` command.

pub mod admin;
pub mod agents;
pub mod app;
pub mod auth;
pub mod background;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod journal;
pub mod object;
pub mod placement;
pub mod pool;
pub mod rebuild;
pub mod restore;
pub mod s3;
pub mod seam;
pub mod server;
