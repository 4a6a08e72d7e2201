//! storage-agent
