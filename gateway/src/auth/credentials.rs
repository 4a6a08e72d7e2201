//! Access keys and their secrets.
//!
//! Invariant: a secret has no `Debug` or `Display` that shows it, and is
//! compared in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use thiserror::Error;

use super::Principal;

/// A secret that never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for signing only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl<'de> serde::Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextAlone)
    }
}

/// Takes a text; refuses the rest in words that do not show it, as serde's own
/// would.
struct TextAlone;

impl serde::de::Visitor<'_> for TextAlone {
    type Value = SecretText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret in quotes")
    }

    fn visit_str<E>(self, text: &str) -> Result<SecretText, E> {
        Ok(SecretText::new(text))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<SecretText, E> {
        Err(E::custom("allowed is a secret in quotes"))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<SecretText, E> {
        Err(E::custom("allowed is a secret in quotes"))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<SecretText, E> {
        Err(E::custom("allowed is a secret in quotes"))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<SecretText, E> {
        Err(E::custom("allowed is a secret in quotes"))
    }
}

/// Compares two secrets in a time that does not depend on where they differ.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// An identity that can sign.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who it is.
    pub principal: Principal,
    /// What it signs with.
    pub secret: SecretText,
}

/// Where identities are looked up by access key.
pub trait CredentialStore: Send + Sync + 'static {
    /// The identity of an access key; `None` if there is none.
    fn identity(&self, access_key: &str) -> Option<Identity>;
}

/// Root credentials that must not be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UnfitCredentials {
    /// The access key is too short or too long.
    #[error("the root access key must have 3 to 128 characters")]
    AccessKeyLength,
    /// The access key cannot stand in a credential scope.
    #[error("the root access key may have letters, digits, '-', '_' and '.' only")]
    AccessKeyCharacters,
    /// The secret is too short to resist guessing.
    #[error("the root secret key must have at least 16 characters")]
    SecretTooShort,
    /// The secret is one that everybody knows, or repeats itself.
    #[error("the root secret key is a known default or has too few different characters")]
    SecretGuessable,
}

/// Secrets that are published somewhere.
const KNOWN_SECRETS: &[&str] = &[
    "minioadmin",
    "rustfsadmin",
    "changeme",
    "password",
    "wjalrxutnfemi/k7mdeng/bpxrficyexamplekey",
    "secretkey",
    "shardgate",
];

const LEAST_SECRET_CHARS: usize = 16;
const LEAST_DIFFERENT_CHARS: usize = 6;

/// The operator's own credentials, the only ones a new store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootCredentials {
    access_key: String,
    secret: SecretText,
}

impl RootCredentials {
    /// Takes the operator's keys, or says why they are unfit.
    pub fn new(access_key: &str, secret: &str) -> Result<Self, UnfitCredentials> {
        if !(3..=128).contains(&access_key.len()) {
            return Err(UnfitCredentials::AccessKeyLength);
        }
        let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !access_key.bytes().all(fit) {
            return Err(UnfitCredentials::AccessKeyCharacters);
        }
        if secret.chars().count() < LEAST_SECRET_CHARS {
            return Err(UnfitCredentials::SecretTooShort);
        }
        let folded = secret.to_lowercase();
        let mut letters: Vec<char> = folded.chars().collect();
        letters.sort_unstable();
        letters.dedup();
        let known = KNOWN_SECRETS
            .iter()
            .any(|word| folded.replace(word, "").chars().count() < LEAST_SECRET_CHARS / 2);
        if known || letters.len() < LEAST_DIFFERENT_CHARS || secret == access_key {
            return Err(UnfitCredentials::SecretGuessable);
        }
        Ok(Self {
            access_key: access_key.to_owned(),
            secret: SecretText::new(secret),
        })
    }

    /// New random ones: 20 and 40 characters, as AWS makes them.
    pub fn random() -> Self {
        const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        // No `/` and `+`: they are a nuisance in shells and links.
        const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        Self {
            access_key: random_text(UPPER, 20),
            secret: SecretText::new(random_text(MIXED, 40)),
        }
    }

    /// The access key.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret key: for signing, and for the one who may see it.
    pub fn secret(&self) -> &SecretText {
        &self.secret
    }
}

/// `len` characters of an alphabet whose size divides 256.
fn random_text(alphabet: &[u8], len: usize) -> String {
    assert!(
        256 % alphabet.len() == 0,
        "every character is equally likely"
    );
    let mut bytes = vec![0u8; len];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
        .into_iter()
        .map(|byte| char::from(alphabet[usize::from(byte) % alphabet.len()]))
        .collect()
}

impl CredentialStore for RootCredentials {
    fn identity(&self, access_key: &str) -> Option<Identity> {
        same_secret(access_key.as_bytes(), self.access_key.as_bytes()).then(|| Identity {
            principal: Principal::Root {
                access_key: self.access_key.clone(),
            },
            secret: self.secret.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "kX9fPq2LmZ7vRt4WyB8n";

    // ATTACKS 99: default and weak root credentials.
    #[test]
    fn weak_credentials_are_refused() {
        for (access, secret, expected) in [
            ("op", GOOD, UnfitCredentials::AccessKeyLength),
            ("op erator", GOOD, UnfitCredentials::AccessKeyCharacters),
            ("op/erator", GOOD, UnfitCredentials::AccessKeyCharacters),
            ("operator", "short", UnfitCredentials::SecretTooShort),
            ("operator", "minioadmin", UnfitCredentials::SecretTooShort),
            (
                "operator",
                "minioadminminioadmin",
                UnfitCredentials::SecretGuessable,
            ),
            (
                "operator",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                UnfitCredentials::SecretGuessable,
            ),
            (
                "operator",
                "aaaaaaaaaaaaaaaaaaaaaaaa",
                UnfitCredentials::SecretGuessable,
            ),
            (GOOD, GOOD, UnfitCredentials::SecretGuessable),
        ] {
            assert_eq!(
                RootCredentials::new(access, secret).unwrap_err(),
                expected,
                "{access}"
            );
        }
        assert!(RootCredentials::new("operator", GOOD).is_ok());
    }

    #[test]
    fn random_credentials_are_fit_and_differ() {
        let (one, other) = (RootCredentials::random(), RootCredentials::random());
        assert_ne!(one, other);
        let again = RootCredentials::new(one.access_key(), one.secret().expose());
        assert_eq!(again, Ok(one));
    }

    // ATTACKS 95: secrets in Debug output.
    #[test]
    fn debug_output_hides_the_secret() {
        let root = RootCredentials::new("operator", GOOD).unwrap();
        let identity = root.identity("operator").unwrap();
        for shown in [format!("{root:?}"), format!("{identity:?}")] {
            assert!(!shown.contains(GOOD), "{shown}");
        }
        assert!(root.identity("Operator").is_none());
        assert!(root.identity("").is_none());
    }
}
