//! What a card is configured to be, its features, and its configuration space (virtio 1.2, 5.1.4).

use std::fmt;
use std::str::FromStr;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::trace::event::Fetch;

use super::pace::MAX_RATE;
use super::port::Offloads;

/// Length of configuration space up to `mtu`.
pub(super) const CONFIG_LEN: usize = 12;
/// Least MTU of IPv4 (RFC 791).
pub const MIN_MTU: u16 = 68;
/// Most queue pairs: each pair is two queues, and a transport names them by 16 bits; 8 are more than vCPUs need.
pub const MAX_PAIRS: u16 = 8;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Locally administered, the same for the same name in every run.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        let [a, b, c, d, ..] = hash.to_le_bytes();
        Self([0x52, 0x50, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not an address of a card: write six pairs of hex digits, as in 52:50:00:00:00:01"
            )
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        if bytes[0] & 1 != 0 {
            return Err(format!(
                "`{text}` is a group address: the first byte of a card's own is even"
            ));
        }
        Ok(Self(bytes))
    }
}

/// A card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfig {
    /// Name on the command line and in every event.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Longest packet without its Ethernet header in bytes, from [`MIN_MTU`]; `None`: not offered, and frames of up to 1500.
    pub mtu: Option<u16>,
    /// Queue pairs, 1 to [`MAX_PAIRS`].
    pub pairs: u16,
    /// Greatest size of each queue: a power of two up to 32768.
    pub queue_size: u16,
    /// When a frame that is sent is read from guest memory, where no rule says otherwise.
    pub fetch: Fetch,
    /// Hash the frames that are sent.
    pub hash: bool,
    /// Hold frames in the ledger; off only to measure what that costs.
    pub ledger: bool,
    /// Most frames that come to the guest in a second on each pair, up to [`MAX_RATE`]; 0: as they come.
    pub rate: u64,
}

impl NetConfig {
    /// One queue pair of 256 descriptors, late fetch and hashes; the address is made from the name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mac: Mac::of_name(name),
            mtu: None,
            pairs: 1,
            queue_size: 256,
            fetch: Fetch::Late,
            hash: true,
            ledger: true,
            rate: 0,
        }
    }

    /// Longest frame in bytes that the guest may send without segmentation: MTU, Ethernet header and a VLAN tag.
    #[must_use]
    pub fn longest_frame(&self) -> u64 {
        u64::from(self.mtu.unwrap_or(1500)) + 18
    }

    /// What is wrong with it, if anything.
    pub(super) fn defect(&self) -> Option<String> {
        if !self.queue_size.is_power_of_two() || self.queue_size > 1 << 15 {
            let size = self.queue_size;
            return Some(format!(
                "queue size {size} is not a power of two up to 32768"
            ));
        }
        if self.pairs == 0 || self.pairs > MAX_PAIRS {
            let pairs = self.pairs;
            return Some(format!("{pairs} queue pairs: a card has 1 to {MAX_PAIRS}"));
        }
        if self.rate > MAX_RATE {
            let rate = self.rate;
            return Some(format!("{rate} frames/s: a card gets at most {MAX_RATE}"));
        }
        let mtu = self.mtu.filter(|mtu| *mtu < MIN_MTU)?;
        Some(format!("mtu {mtu} is below {MIN_MTU}, the least of IPv4"))
    }

    /// Features on offer at a port.
    #[must_use]
    pub(super) fn features(&self, offloads: Offloads) -> u64 {
        let always = [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_STATUS,
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_NET_F_CTRL_VQ,
            VIRTIO_NET_F_CTRL_RX,
            VIRTIO_NET_F_CTRL_MAC_ADDR,
        ];
        let optional = [
            (self.mtu.is_some(), VIRTIO_NET_F_MTU),
            (self.pairs > 1, VIRTIO_NET_F_MQ),
            (offloads.segmentation, VIRTIO_NET_F_HOST_TSO4),
            (offloads.segmentation, VIRTIO_NET_F_HOST_TSO6),
            (offloads.segmentation, VIRTIO_NET_F_GUEST_TSO4),
            (offloads.segmentation, VIRTIO_NET_F_GUEST_TSO6),
        ];
        let offered = optional.iter().filter(|(offered, _)| *offered);
        let bits = always.iter().chain(offered.map(|(_, bit)| bit));
        bits.fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Configuration space with the link and the address as they are now.
    #[must_use]
    pub(super) fn space(&self, mac: Mac, link_up: bool) -> [u8; CONFIG_LEN] {
        let mut space = [0; CONFIG_LEN];
        let status = if link_up { VIRTIO_NET_S_LINK_UP } else { 0 };
        space[..6].copy_from_slice(&mac.0);
        space[6] = status.to_le_bytes()[0];
        space[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        space[10..].copy_from_slice(&self.mtu.unwrap_or(1500).to_le_bytes());
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_port_does_is_offered() {
        let has = |features: u64, bit: u32| features & (1 << bit) != 0;
        let mut config = NetConfig::new("n");
        let plain = config.features(Offloads::default());
        assert!(has(plain, VIRTIO_NET_F_CSUM) && has(plain, VIRTIO_NET_F_MRG_RXBUF));
        for bit in [
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_MQ,
            VIRTIO_NET_F_MTU,
        ] {
            assert!(!has(plain, bit), "{bit}");
        }
        config.pairs = 2;
        config.mtu = Some(9000);
        let full = config.features(Offloads { segmentation: true });
        for bit in [
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_MQ,
            VIRTIO_NET_F_MTU,
        ] {
            assert!(has(full, bit), "{bit}");
        }
    }

    #[test]
    fn configuration_space_has_the_layout_of_the_specification() {
        let mut config = NetConfig::new("n");
        config.pairs = 4;
        config.mtu = Some(9000);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let expected = [2, 0, 0, 0, 0, 1, 1, 0, 4, 0, 0x28, 0x23];
        assert_eq!(config.space(mac, true), expected);
        assert_eq!(config.space(mac, false)[6], 0);
    }

    #[test]
    fn an_address_is_six_pairs_and_not_of_a_group() {
        let mac: Mac = "52:50:0a:ff:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:50:0a:ff:00:01");
        for text in [
            "",
            "52:50:0a:ff:00",
            "52:50:0a:ff:00:01:02",
            "5:50:0a:ff:00:01",
        ] {
            assert!(
                text.parse::<Mac>().unwrap_err().contains("six pairs"),
                "{text}"
            );
        }
        let said = "01:00:5e:00:00:01".parse::<Mac>().unwrap_err();
        assert!(said.contains("group address"), "{said}");
        assert_eq!(Mac::of_name("a"), Mac::of_name("a"));
        assert_ne!(Mac::of_name("a"), Mac::of_name("b"));
    }
}
