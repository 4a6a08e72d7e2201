//! Whom things belong to, as S3 names owners.
//!
//! Invariant: an owner's id says who it is and nothing of how it signs, so
//! that new access keys change nothing. It has the form of a canonical user
//! id, 64 hex digits: the cluster's 32, and the identity's 32 in it, which are
//! zeroes for the root identity. What was recorded before ids had this form
//! was an access key of the root identity, the only one that there was.

use s3s::dto::{Initiator, Owner};
use shardgate_wire::ClusterId;

use crate::auth::Principal;

/// The name of the root identity, where an answer has one beside the id.
const ROOT: &str = "root";

/// The owners of a cluster.
#[derive(Clone, Debug)]
pub struct Owners {
    cluster: ClusterId,
}

impl Owners {
    /// Those of this cluster.
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster }
    }

    /// The id of the root identity.
    pub fn root(&self) -> String {
        format!("{}{:032x}", self.cluster, 0)
    }

    /// The id under which a principal owns things.
    pub(crate) fn id_of(&self, principal: &Principal) -> String {
        match principal {
            Principal::Root { .. } => self.root(),
            // Nobody anonymous is let through to here.
            Principal::Anonymous => "anonymous".to_owned(),
        }
    }

    /// The id of an owner as it was recorded.
    pub(crate) fn recorded(&self, owner: &str) -> String {
        let identity = owner.strip_prefix(&self.cluster.to_string());
        let is_id = |rest: &str| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit());
        match identity {
            Some(rest) if is_id(rest) => owner.to_owned(),
            _ => self.root(),
        }
    }

    /// The owner of an answer.
    pub(crate) fn shown(&self, recorded: &str) -> Owner {
        let (id, name) = self.named(recorded);
        Owner {
            display_name: Some(name),
            id: Some(id),
        }
    }

    /// Who began an upload.
    pub(crate) fn initiator(&self, recorded: &str) -> Initiator {
        let (id, name) = self.named(recorded);
        Initiator {
            display_name: Some(name),
            id: Some(id),
        }
    }

    fn named(&self, recorded: &str) -> (String, String) {
        let id = self.recorded(recorded);
        let name = if id == self.root() { ROOT } else { &id };
        let name = name.to_owned();
        (id, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_recorded_before_is_the_root_identity() {
        let owners = Owners::new(ClusterId(0xc0ffee));
        let root = owners.root();
        assert_eq!(root.len(), 64);
        let one = Principal::Root {
            access_key: "one".into(),
        };
        let other = Principal::Root {
            access_key: "other".into(),
        };
        assert_eq!(owners.id_of(&one), owners.id_of(&other));
        let long = "0123456789abcdef".repeat(4);
        for recorded in ["one", "other", "", &long, &root] {
            assert_eq!(owners.recorded(recorded), root, "{recorded}");
        }
        // An identity of this cluster that is another.
        let somebody = format!("{}{:032x}", ClusterId(0xc0ffee), 7);
        assert_eq!(owners.recorded(&somebody), somebody);
    }
}
