//! Network interfaces, and what goes over them.

use serde::{Deserialize, Serialize};

use super::Pattern;
use super::kinds::{one, ping_bytes, ten_seconds};

/// Sets up an interface: its longest packet, its address with prefix (`10.0.0.2/24`, without DHCP), up or down. With `arp = false`
/// (IFF_NOARP) nobody is asked for a neighbour's address: what is sent goes to the interface's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSet {
    /// Its name.
    pub interface: String,
    /// Up or down.
    #[serde(default)]
    pub up: Option<bool>,
    /// Address and prefix.
    #[serde(default)]
    pub address: Option<String>,
    /// Longest packet in bytes.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether neighbours are asked for.
    #[serde(default)]
    pub arp: Option<bool>,
}

/// ICMP echo requests, each waited for at most `limit_ms`. Values: `sent`, `received`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// IPv4 address.
    pub to: String,
    /// How many.
    #[serde(default = "one")]
    pub count: u32,
    /// Bytes of payload.
    #[serde(default = "ping_bytes")]
    pub len: u64,
    /// For each of them.
    #[serde(default = "ten_seconds")]
    pub limit_ms: u64,
}

/// Connects to a TCP server that sends back what it got, sends a pattern (at most [`super::MAX_TRANSFER`]), closes that direction and reads
/// to the end; each call at most `limit_ms`. Values: `sent`, `received`, `whole` (as many bytes came back), and as
/// [`super::Step::ReadVerify`] `hash`, `equal` and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpEcho {
    /// Address and port.
    pub to: String,
    /// How many bytes.
    pub len: u64,
    /// Which.
    pub pattern: Pattern,
    /// For each call.
    #[serde(default = "ten_seconds")]
    pub limit_ms: u64,
}

/// Waits at most `limit_ms` for a frame that has `len` bytes or more behind its Ethernet header, and compares its last `len` bytes; shorter
/// frames are passed over. Values: `received` (0 or 1), and of one as [`super::Step::ReadVerify`] `hash`, `equal` and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketVerify {
    /// A packet socket.
    pub socket: String,
    /// How many bytes.
    pub len: u64,
    /// What they must be.
    pub pattern: Pattern,
    /// In all.
    #[serde(default = "ten_seconds")]
    pub limit_ms: u64,
}
