//! When a write may be acknowledged, and when a group can still take one.
//!
//! Owns the rules of PROTOCOL.md 5: `k' + ceil(m/2)` shards durable, and k'
//! of them without any one server wherever the whole layout would have that.
//! Invariant: a group that [`group_holds`] can acknowledge every blob that is
//! laid on its slots, whatever k' and whichever slots that uses.

use shardgate_erasure::{Layout, Scheme};

/// Shards that must be durable before a write of `data + parity` shards is
/// acknowledged: `k' + ceil(m/2)`.
pub const fn quorum(data: u8, parity: u8) -> u8 {
    data + parity.div_ceil(2)
}

/// When a write of one blob may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumRule {
    data: u8,
    needed: u8,
    /// The server of each shard.
    servers: Vec<u16>,
    /// Servers whose loss the whole layout survives.
    guarded: Vec<u16>,
}

impl QuorumRule {
    /// The rule for a blob of `layout` whose shard i lies on server
    /// `servers[i]`.
    ///
    /// # Panics
    /// If there is not one server for each shard.
    pub fn new(layout: Layout, servers: Vec<u16>) -> Self {
        assert_eq!(
            servers.len(),
            usize::from(layout.shards()),
            "a server for each shard"
        );
        let mut guarded: Vec<u16> = servers.clone();
        guarded.sort_unstable();
        guarded.dedup();
        guarded.retain(|server| on(&servers, *server) <= usize::from(layout.parity()));
        Self {
            data: layout.data(),
            needed: quorum(layout.data(), layout.parity()),
            servers,
            guarded,
        }
    }

    /// Shards that must be durable at least.
    pub fn needed(&self) -> u8 {
        self.needed
    }

    /// Whether the blob may be acknowledged with these shards durable.
    ///
    /// # Panics
    /// If there is not one entry for each shard.
    pub fn reached(&self, durable: &[bool]) -> bool {
        assert_eq!(durable.len(), self.servers.len(), "an entry for each shard");
        let count = durable.iter().filter(|durable| **durable).count();
        if count < usize::from(self.needed) {
            return false;
        }
        let without = |server: u16| {
            let kept = durable.iter().zip(&self.servers);
            kept.filter(|(durable, of)| **durable && **of != server)
                .count()
        };
        self.guarded
            .iter()
            .all(|server| without(*server) >= usize::from(self.data))
    }

    /// Whether it can still be reached when the shards that `failed` names
    /// never become durable.
    pub fn reachable(&self, failed: &[bool]) -> bool {
        let rest: Vec<bool> = failed.iter().map(|failed| !failed).collect();
        self.reached(&rest)
    }
}

/// Whether writes may go on in a group of `scheme` with slot i on server
/// `servers[i]` and taking writes only where `living[i]`.
///
/// # Panics
/// If `servers` and `living` do not have an entry for each slot.
pub fn group_holds(scheme: Scheme, servers: &[u16], living: &[bool]) -> bool {
    QuorumRule::new(Layout::full(scheme), servers.to_vec()).reached(living)
}

/// Whether data with its slots on these servers is whole without any one of
/// them, when nothing else is lost.
pub fn survives_server_loss(scheme: Scheme, servers: &[u16]) -> bool {
    servers
        .iter()
        .all(|server| on(servers, *server) <= usize::from(scheme.parity()))
}

fn on(servers: &[u16], server: u16) -> usize {
    servers.iter().filter(|of| **of == server).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardgate_erasure::slot_of;

    use super::*;

    fn scheme(text: &str) -> Scheme {
        text.parse().unwrap()
    }

    #[test]
    fn quorum_is_data_and_half_the_parity_rounded_up() {
        for (data, parity, needed) in [
            (1, 0, 1),
            (1, 1, 2),
            (1, 2, 2),
            (2, 2, 3),
            (4, 2, 5),
            (6, 3, 8),
            (8, 4, 10),
        ] {
            assert_eq!(quorum(data, parity), needed, "{data}+{parity}");
        }
    }

    #[test]
    fn groups_go_on_while_quorum_and_server_rule_hold() {
        let six = &[0, 1, 2, 3, 4, 5][..];
        let pairs = &[0, 1, 2, 0, 1, 2][..];
        let one = &[0; 6][..];
        for (text, servers, dead, holds) in [
            ("4+2", six, &[][..], true),
            ("4+2", six, &[3], true),
            ("4+2", six, &[3, 4], false),
            ("4+2", one, &[3], true),
            ("4+2", one, &[3, 4], false),
            // Five durable shards would be enough, but without another
            // server only three of them would be left.
            ("4+2", pairs, &[0], false),
            ("1+1", &[0, 1], &[1], false),
            ("1+2", &[0, 1, 2], &[1], true),
            ("1+2", &[0, 0, 0], &[1], true),
            ("1+0", &[0], &[0], false),
        ] {
            let living: Vec<bool> = (0..servers.len())
                .map(|slot| !dead.contains(&slot))
                .collect();
            assert_eq!(
                group_holds(scheme(text), servers, &living),
                holds,
                "{text} on {servers:?} without {dead:?}"
            );
        }
    }

    #[test]
    fn a_server_with_more_than_m_shards_is_not_guarded() {
        let rule = QuorumRule::new(Layout::new(2, 2).unwrap(), vec![0, 0, 0, 1]);
        assert!(rule.reached(&[true, true, true, false]));
        assert!(!survives_server_loss(scheme("2+2"), &[0, 0, 0, 1]));
        assert!(survives_server_loss(scheme("2+2"), &[0, 0, 1, 1]));
    }

    proptest! {
        #[test]
        fn a_group_that_holds_acknowledges_every_shortened_blob(
            data in 1..=8_u8,
            parity in 1..=4_u8,
            servers in prop::collection::vec(0..6_u16, 12),
            living in prop::collection::vec(prop::bool::weighted(0.85), 12),
            hash: u64,
        ) {
            let scheme = Scheme::new(data, parity).unwrap();
            let slots = usize::from(scheme.slots());
            let (servers, living) = (&servers[..slots], &living[..slots]);
            prop_assume!(survives_server_loss(scheme, servers));
            if group_holds(scheme, servers, living) {
                for shorter in 1..=data {
                    let layout = Layout::new(shorter, parity).unwrap();
                    let of: Vec<usize> = (0..layout.shards())
                        .map(|shard| usize::from(slot_of(hash, shard, scheme.slots())))
                        .collect();
                    let rule =
                        QuorumRule::new(layout, of.iter().map(|slot| servers[*slot]).collect());
                    let durable: Vec<bool> = of.iter().map(|slot| living[*slot]).collect();
                    prop_assert!(rule.reached(&durable));
                }
            }
        }

        #[test]
        fn acknowledged_survives_half_the_parity_and_any_guarded_server(
            data in 1..=8_u8,
            parity in 1..=4_u8,
            servers in prop::collection::vec(0..4_u16, 12),
            durable in prop::collection::vec(prop::bool::weighted(0.8), 12),
        ) {
            let layout = Layout::new(data, parity).unwrap();
            let shards = usize::from(layout.shards());
            let rule = QuorumRule::new(layout, servers[..shards].to_vec());
            let durable = &durable[..shards];
            if rule.reached(durable) {
                let kept = durable.iter().filter(|durable| **durable).count();
                prop_assert!(kept >= usize::from(data + parity.div_ceil(2)));
                for server in 0..4_u16 {
                    if on(&servers[..shards], server) <= usize::from(parity) {
                        let left = (0..shards)
                            .filter(|shard| durable[*shard] && servers[*shard] != server)
                            .count();
                        prop_assert!(left >= usize::from(data));
                    }
                }
            }
        }
    }
}
