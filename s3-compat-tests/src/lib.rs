//! s3-compat-tests
