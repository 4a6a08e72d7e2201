//! gateway

pub mod object;
pub mod seam;
