//! Authentication and authorisation of every S3 request.
//!
//! s3s verifies signatures with the secrets that [`Keys`] gives it; then
//! [`Gate`] asks [`authorise`] for every operation. Invariant: no operation
//! runs that [`Gate`] has not allowed, and whoever is allowed stands in the
//! request's extensions as its [`Principal`].

use std::sync::Arc;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};

use super::operations::action_of;
use super::telemetry::Observed;
use crate::auth::{
    Action, Context, CredentialStore, Decision, Denial, Principal, Resource, authorise,
};

/// Secrets for the verification of signatures.
#[derive(Clone)]
pub(crate) struct Keys(pub(crate) Arc<dyn CredentialStore>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let identity = self.0.identity(access_key);
        let identity = identity.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))?;
        Ok(SecretKey::from(identity.secret.expose()))
    }
}

/// Who a request was verified to be before it was handed on inside of the
/// gateway, with its signature taken off; see `repair.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Verified(pub(crate) Principal);

/// The one gate of all operations.
pub(crate) struct Gate {
    credentials: Arc<dyn CredentialStore>,
    /// Takes [`Verified`] from the extensions, and no other identity.
    trusts_extension: bool,
}

impl Gate {
    /// The gate behind signature verification.
    pub(crate) fn new(credentials: Arc<dyn CredentialStore>) -> Self {
        Self {
            credentials,
            trusts_extension: false,
        }
    }

    /// The gate of requests that were verified and handed on.
    pub(crate) fn of_verified(credentials: Arc<dyn CredentialStore>) -> Self {
        Self {
            credentials,
            trusts_extension: true,
        }
    }

    fn principal(&self, cx: &mut S3AccessContext<'_>) -> S3Result<Principal> {
        if self.trusts_extension {
            let verified = cx.extensions_mut().get::<Verified>();
            return Ok(verified.map_or(Principal::Anonymous, |Verified(who)| who.clone()));
        }
        let Some(access_key) = cx.credentials().map(|found| found.access_key.as_str()) else {
            return Ok(Principal::Anonymous);
        };
        let identity = self.credentials.identity(access_key);
        identity
            .map(|identity| identity.principal)
            .ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if let Some(observed) = cx.extensions_mut().get::<Observed>().cloned() {
            observed.set_operation(cx.s3_op().name(), cx.s3_path().get_bucket_name());
        }
        let principal = self.principal(cx)?;
        let query = cx.uri().query().unwrap_or_default();
        let context = Context {
            session_token: cx.headers().contains_key("x-amz-security-token")
                || has_parameter(query, |name| {
                    name.eq_ignore_ascii_case("x-amz-security-token")
                }),
            overrides_response: has_parameter(query, |name| name.starts_with("response-")),
        };
        let versioned = has_parameter(query, |name| name == "versionId");
        if is_plain_write(cx.s3_op().name()) && has_parameter(query, is_sub_resource) {
            return Err(S3Error::new(S3ErrorCode::MethodNotAllowed));
        }
        let action = action_of(cx.s3_op().name(), versioned)
            .ok_or_else(|| S3Error::new(S3ErrorCode::AccessDenied))?;
        let resource = match cx.s3_path() {
            S3Path::Root => Resource::Service,
            S3Path::Bucket { bucket } => Resource::Bucket(bucket),
            S3Path::Object { bucket, key } => Resource::Object { bucket, key },
        };
        decide(&principal, action, resource, context)?;
        cx.extensions_mut().insert(principal);
        Ok(())
    }
}

/// What a method does to a bucket or an object as a whole.
fn is_plain_write(operation: &str) -> bool {
    matches!(
        operation,
        "PutObject" | "CopyObject" | "DeleteObject" | "CreateBucket" | "DeleteBucket"
    )
}

/// Whether a parameter names a part or a setting of a bucket or an object. A
/// method that such a one does not have is not meant for the whole: `DELETE
/// /bucket/key?retention` must not delete the object, nor a part without its
/// upload's id replace it.
fn is_sub_resource(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "accelerate",
        "acl",
        "analytics",
        "attributes",
        "cors",
        "delete",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "legal-hold",
        "lifecycle",
        "location",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "partNumber",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versioning",
        "versions",
        "website",
    ];
    NAMES.contains(&name)
}

/// Whether a query has a parameter of such a name; names are compared as
/// decoded, so that no encoding hides one.
fn has_parameter(query: &str, wanted: impl Fn(&str) -> bool) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !name.contains(['%', '+']) {
            return wanted(name);
        }
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        wanted(&name)
    })
}

/// Asks [`authorise`], and says no in S3's words.
fn decide(
    principal: &Principal,
    action: Action,
    resource: Resource<'_>,
    context: Context,
) -> S3Result<()> {
    match authorise(principal, action, resource, context) {
        Decision::Allow => Ok(()),
        Decision::Deny(Denial::NotAllowed) => Err(s3_error!(AccessDenied, "Access Denied.")),
        Decision::Deny(Denial::ForeignToken) => Err(s3_error!(
            InvalidToken,
            "The provided token is malformed or otherwise invalid."
        )),
        Decision::Deny(Denial::UnsignedOverride) => Err(s3_error!(
            InvalidRequest,
            "Request specific response headers cannot be used for anonymous GET requests."
        )),
    }
}

/// The identity that [`Gate`] let through.
pub(crate) fn principal_of<T>(request: &S3Request<T>) -> Principal {
    let found = request.extensions.get::<Principal>();
    found.cloned().unwrap_or(Principal::Anonymous)
}

/// Decides about another object than the one in the request's path: a key of
/// DeleteObjects, the key of a form, the source of a copy.
pub(crate) fn allow_object<T>(
    request: &S3Request<T>,
    action: Action,
    bucket: &str,
    key: &str,
) -> S3Result<()> {
    let resource = Resource::Object { bucket, key };
    decide(&principal_of(request), action, resource, Context::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    // ATTACKS 41, 43: keys of a DeleteObjects and sources of copies are
    // decided by themselves, for whoever asks.
    #[test]
    fn other_objects_are_decided_by_themselves() {
        let request = |principal: Option<Principal>| {
            let mut extensions = http::Extensions::new();
            principal.map(|principal| extensions.insert(principal));
            S3Request {
                input: (),
                method: http::Method::POST,
                uri: http::Uri::from_static("/"),
                headers: http::HeaderMap::new(),
                extensions,
                credentials: None,
                region: None,
                service: None,
                trailing_headers: None,
            }
        };
        let root = Principal::Root {
            access_key: "operator".into(),
        };
        for (principal, allowed) in [
            (Some(root), true),
            (Some(Principal::Anonymous), false),
            (None, false),
        ] {
            let request = request(principal);
            for action in [Action::DeleteObject, Action::GetObject] {
                let decision = allow_object(&request, action, "bucket", "key");
                assert_eq!(decision.is_ok(), allowed, "{action:?}");
            }
        }
    }

    #[test]
    fn parameters_are_found_however_they_are_written() {
        let token = |name: &str| name.eq_ignore_ascii_case("x-amz-security-token");
        for (query, found) in [
            ("X-Amz-Security-Token=abc", true),
            ("a=b&x-amz-security-token", true),
            ("%58-Amz-Security-Token=abc", true),
            ("a=X-Amz-Security-Token", false),
            ("", false),
        ] {
            assert_eq!(has_parameter(query, token), found, "{query}");
        }
    }
}
