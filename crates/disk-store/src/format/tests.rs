//! Fixtures and round trips.
