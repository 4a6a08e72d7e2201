//! Virtual hosts: which bucket a `Host` header names.
//!
//! Only the configured base names make a bucket of what stands before them;
//! every other host, an address or a foreign name, is path style.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// The base names, in lower case, longest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct BaseNames {
    names: Vec<String>,
}

impl BaseNames {
    /// Takes base names as configured: a port and case do not count.
    pub(crate) fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut names: Vec<String> = names
            .into_iter()
            .map(|name| host_name(name.as_ref()).to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        names.dedup();
        Self { names }
    }

    /// The bucket that a host names, in lower case.
    pub(crate) fn bucket(&self, host: &str) -> Option<String> {
        let host = host_name(host).to_ascii_lowercase();
        for base in &self.names {
            let Some(before) = host.strip_suffix(base.as_str()) else {
                continue;
            };
            return match before.strip_suffix('.') {
                Some(bucket) if !bucket.is_empty() => Some(bucket.to_owned()),
                // The base itself; or `xbase`, which only ends alike.
                _ if before.is_empty() => None,
                _ => continue,
            };
        }
        None
    }
}

/// A host without its port and without the dot of the DNS root.
fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

impl S3Host for BaseNames {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let named = VirtualHost::new(host);
        Ok(match self.bucket(host) {
            Some(bucket) => named.with_bucket(bucket),
            None => named,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ATTACKS 18: foreign hosts are not taken for buckets.
    #[test]
    fn only_names_under_a_base_are_buckets() {
        let names = BaseNames::new(["s3.example.com:9000", "deep.s3.example.com", "localhost"]);
        for (host, bucket) in [
            ("s3.example.com", None),
            ("s3.example.com:443", None),
            ("b1.s3.example.com", Some("b1")),
            ("B1.S3.EXAMPLE.COM:8080", Some("b1")),
            ("b1.s3.example.com.", Some("b1")),
            ("dotted.name.s3.example.com", Some("dotted.name")),
            ("x.deep.s3.example.com", Some("x")),
            ("deep.s3.example.com", None),
            ("evils3.example.com", None),
            ("evil.com", None),
            ("bucket.localhost:9000", Some("bucket")),
            ("localhost:9000", None),
            (".s3.example.com", None),
            ("127.0.0.1:9000", None),
            ("[::1]:9000", None),
            ("::1", None),
            ("", None),
        ] {
            assert_eq!(names.bucket(host).as_deref(), bucket, "{host}");
        }
        assert_eq!(BaseNames::new([""; 1]).bucket("b.example.com"), None);
    }
}
