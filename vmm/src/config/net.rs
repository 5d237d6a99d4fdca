//! A virtio-net card, as `--net` and `[[net]]` spell it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use pincushion_devices::net::config::MAX_PAIRS;
use pincushion_devices::net::pace::MAX_RATE;
use pincushion_devices::net::{Mac, pattern};
use pincushion_devices::trace::event::Fetch;
use serde::{Deserialize, Deserializer, Serialize};

/// One card. Exactly one of `tap`, `pcap`, `loopback` and `pattern` says what is at the other end of its wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetConfig {
    /// A tap of the host, which has to exist: `ip tuntap add dev NAME mode tap user $USER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// The frames of a capture file come in; what the guest sends goes to `record`, or nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcap: Option<PathBuf>,
    /// With `pcap`: a new capture file for what the guest sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<PathBuf>,
    /// What the guest sends comes back.
    #[serde(default)]
    pub loopback: bool,
    /// Frames made from this seed come in; what the guest sends goes nowhere.
    #[serde(
        default,
        deserialize_with = "number",
        skip_serializing_if = "Option::is_none"
    )]
    pub pattern: Option<u64>,
    /// With `pattern`: how many frames. Default: 64.
    #[serde(
        default,
        deserialize_with = "number",
        skip_serializing_if = "Option::is_none"
    )]
    pub frames: Option<u32>,
    /// Most frames that come to the guest in a second on each queue pair, up to 1000000; a running machine may change it
    /// (`pincushion ctl SOCK set n rate=100`). Default: 0, as they come.
    #[serde(
        default,
        deserialize_with = "number",
        skip_serializing_if = "Option::is_none"
    )]
    pub rate: Option<u32>,
    /// Name in plans, events and messages. At most 20 bytes. Default: `net0`, `net1`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its address, as in `52:50:00:00:00:01`. Default: made from the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Longest packet in bytes, from 68. Default: not told to the guest, 1500.
    #[serde(
        default,
        deserialize_with = "number",
        skip_serializing_if = "Option::is_none"
    )]
    pub mtu: Option<u16>,
    /// Queue pairs, 1 to 8. Default: 1.
    #[serde(
        default,
        deserialize_with = "number",
        skip_serializing_if = "Option::is_none"
    )]
    pub queues: Option<u16>,
    /// When a frame that is sent is read from guest memory.
    #[serde(default)]
    pub fetch: Fetch,
}

/// The other end of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// A tap by name.
    Tap(String),
    /// A capture file, and one to record into.
    Pcap(PathBuf, Option<PathBuf>),
    /// What is sent comes back.
    Loopback,
    /// Frames by seed, so many.
    Pattern(u64, u32),
}

impl NetConfig {
    /// What is at the other end.
    ///
    /// # Errors
    /// None is named, or two are, or a key does not go with it.
    pub fn wire(&self) -> Result<Wire, String> {
        let mut wires = Vec::new();
        wires.extend(self.tap.clone().map(Wire::Tap));
        wires.extend(
            self.pcap
                .clone()
                .map(|path| Wire::Pcap(path, self.record.clone())),
        );
        wires.extend(self.loopback.then_some(Wire::Loopback));
        let frames = self.frames.unwrap_or(pattern::FRAMES);
        wires.extend(self.pattern.map(|seed| Wire::Pattern(seed, frames)));
        let [wire] = wires.as_slice() else {
            return Err(
                "give exactly one of tap=NAME, pcap=FILE, loopback and pattern=SEED".into(),
            );
        };
        if self.record.is_some() && self.pcap.is_none() {
            return Err("record= goes with pcap= only".into());
        }
        if self.frames.is_some() && self.pattern.is_none() {
            return Err("frames= goes with pattern= only".into());
        }
        Ok(wire.clone())
    }

    /// Its address, if one is given.
    ///
    /// # Errors
    /// It is no address of a card.
    pub fn address(&self) -> Result<Option<Mac>, String> {
        self.mac.as_deref().map(str::parse).transpose()
    }

    /// Checks what can be checked before anything is opened.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.wire()?;
        self.address()?;
        let queues = self.queues.unwrap_or(1);
        if queues == 0 || queues > MAX_PAIRS {
            return Err(format!(
                "queues={queues}: a card has 1 to {MAX_PAIRS} queue pairs"
            ));
        }
        if u64::from(self.rate.unwrap_or(0)) > MAX_RATE {
            return Err(format!("rate: a card gets at most {MAX_RATE} frames/s"));
        }
        match self.mtu {
            Some(mtu) if mtu < pincushion_devices::net::config::MIN_MTU => {
                Err(format!("mtu={mtu}: the least is 68"))
            }
            _ => Ok(()),
        }
    }
}

/// A number, or its text as the command line has it.
fn number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display> + TryFrom<u64>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Negative(i64),
        Text(String),
    }
    let wrong = |text: String| {
        serde::de::Error::custom(format!(
            "`{text}` is not a whole number in the range of this key"
        ))
    };
    match Either::deserialize(deserializer)? {
        Either::Number(number) => T::try_from(number)
            .map(Some)
            .map_err(|_| wrong(number.to_string())),
        Either::Negative(number) => Err(wrong(number.to_string())),
        Either::Text(text) => text.parse().map(Some).map_err(|_| wrong(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key_values;

    fn parse(text: &str) -> Result<NetConfig, String> {
        let net: NetConfig = key_values::parse(text)?;
        net.check()?;
        Ok(net)
    }

    #[test]
    fn a_flag_names_one_wire() {
        let net = parse("pattern=7,frames=9,id=n,queues=2,mtu=9000,mac=52:50:00:00:00:01").unwrap();
        assert_eq!(net.wire(), Ok(Wire::Pattern(7, 9)));
        assert_eq!((net.queues, net.mtu), (Some(2), Some(9000)));
        assert_eq!(parse("loopback").unwrap().wire(), Ok(Wire::Loopback));
        let tap = parse("tap=t0").unwrap();
        assert_eq!(tap.wire(), Ok(Wire::Tap("t0".into())));
        let again: NetConfig = toml::from_str(&toml::to_string(&net).unwrap()).unwrap();
        assert_eq!(again, net);
    }

    #[test]
    fn a_seed_has_all_64_bits_in_a_flag_and_in_a_file() {
        let net = parse("pattern=18446744073709551615").unwrap();
        assert_eq!(net.pattern, Some(u64::MAX));
        let written = toml::to_string(&net).unwrap();
        assert_eq!(toml::from_str(&written), Ok(net), "{written}");
        let said = toml::from_str::<NetConfig>("pattern = -1").unwrap_err();
        assert!(
            said.message().contains("`-1` is not a whole number"),
            "{said}"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, expected) in [
            ("id=n", "exactly one of"),
            ("loopback,tap=t0", "exactly one of"),
            ("loopback,record=x.pcap", "goes with pcap="),
            ("loopback,frames=3", "goes with pattern="),
            ("loopback,queues=9", "1 to 8"),
            ("loopback,rate=1000001", "at most 1000000 frames/s"),
            ("loopback,queues=x", "`x` is not a whole number"),
            ("loopback,mtu=67", "the least is 68"),
            ("loopback,mtu=70000", "`70000` is not a whole number"),
            ("loopback,mac=x", "six pairs"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
