//! The one function that decides whether a request may happen.
//!
//! Pure: all that the decision needs is in its arguments. Whatever is not
//! allowed by a rule is denied.

use super::{Action, Resource};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Nobody: the request carried no signature.
    Anonymous,
    /// The operator's root identity.
    Root {
        /// Its access key.
        access_key: String,
    },
}

/// What else the decision may depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The request carries a session token.
    pub session_token: bool,
    /// The request asks for other response headers (`response-*`).
    pub overrides_response: bool,
}

/// Why a request is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Nothing allows it.
    NotAllowed,
    /// A session token came with an identity that has none.
    ForeignToken,
    /// `response-*` without a signature.
    UnsignedOverride,
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny(Denial),
}

/// Decides whether `principal` may do `action` to `resource`.
///
/// The root identity may do everything; it has no session tokens, so that a
/// request with one is somebody else's. Nobody else may do anything yet:
/// bucket policies and users extend this function, never go around it.
pub fn authorise(
    principal: &Principal,
    action: Action,
    resource: Resource<'_>,
    context: Context,
) -> Decision {
    let _ = (action, resource);
    if context.overrides_response && *principal == Principal::Anonymous {
        return Decision::Deny(Denial::UnsignedOverride);
    }
    match principal {
        Principal::Anonymous => Decision::Deny(Denial::NotAllowed),
        Principal::Root { .. } if context.session_token => Decision::Deny(Denial::ForeignToken),
        Principal::Root { .. } => Decision::Allow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_identity_without_a_token_is_allowed() {
        let root = Principal::Root {
            access_key: "operator".into(),
        };
        let plain = Context::default();
        let token = Context {
            session_token: true,
            ..plain
        };
        let overriding = Context {
            overrides_response: true,
            ..plain
        };
        let object = Resource::Object {
            bucket: "b",
            key: "k",
        };
        for (principal, context, expected) in [
            (&root, plain, Decision::Allow),
            (&root, overriding, Decision::Allow),
            (&root, token, Decision::Deny(Denial::ForeignToken)),
            (
                &Principal::Anonymous,
                plain,
                Decision::Deny(Denial::NotAllowed),
            ),
            (
                &Principal::Anonymous,
                overriding,
                Decision::Deny(Denial::UnsignedOverride),
            ),
        ] {
            for action in [
                Action::GetObject,
                Action::PutObject,
                Action::ListAllMyBuckets,
            ] {
                for resource in [Resource::Service, Resource::Bucket("b"), object] {
                    assert_eq!(authorise(principal, action, resource, context), expected);
                }
            }
        }
    }
}
