//! The S3 gateway and the `shardgate` command.

pub mod object;
pub mod placement;
pub mod seam;
