//! From a [`NetConfig`] to a card at its wire.

use pincushion_devices::context::Context;
use pincushion_devices::net::loopback::Loopback;
use pincushion_devices::net::pattern::Pattern;
use pincushion_devices::net::pcap::{Capture, CaptureError};
use pincushion_devices::net::tap::{Tap, TapError};
use pincushion_devices::net::{self, NetDevice, Port};

use crate::config::NetConfig;
use crate::config::net::Wire;

/// Why a card could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The configuration makes no sense.
    #[error("--net id={id}: {problem}")]
    Config {
        /// Name of the card.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// The tap.
    #[error("--net id={id}")]
    Tap {
        /// Name of the card.
        id: String,
        /// What is wrong with it.
        source: TapError,
    },
    /// The capture file.
    #[error("--net id={id}")]
    Capture {
        /// Name of the card.
        id: String,
        /// What is wrong with it.
        source: CaptureError,
    },
    /// The host refused a descriptor for the device.
    #[error("--net id={id}: cannot make the device")]
    Device {
        /// Name of the card.
        id: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Opens the wire and makes the card `id`.
///
/// # Errors
/// See [`NetError`].
pub fn card(config: &NetConfig, id: &str, context: &Context) -> Result<NetDevice, NetError> {
    let id = id.to_owned();
    let wrong = |problem| NetError::Config {
        id: id.clone(),
        problem,
    };
    config.check().map_err(wrong)?;
    let (wire, address) = (
        config.wire().map_err(wrong)?,
        config.address().map_err(wrong)?,
    );
    let defaults = net::NetConfig::new(&id);
    let net = net::NetConfig {
        mac: address.unwrap_or(defaults.mac),
        mtu: config.mtu,
        pairs: config.queues.unwrap_or(1),
        fetch: config.fetch,
        rate: config.rate.unwrap_or(0).into(),
        hash: context.tracer().is_on(),
        ..defaults
    };
    let port = match open(wire, &net) {
        Ok(port) => port,
        Err(Unopened::Tap(source)) => return Err(NetError::Tap { id, source }),
        Err(Unopened::Capture(source)) => return Err(NetError::Capture { id, source }),
    };
    NetDevice::new(net, port, context.clone()).map_err(|source| NetError::Device { id, source })
}

enum Unopened {
    Tap(TapError),
    Capture(CaptureError),
}

fn open(wire: Wire, net: &net::NetConfig) -> Result<Box<dyn Port>, Unopened> {
    Ok(match wire {
        Wire::Tap(name) => Box::new(Tap::open(&name, net.pairs).map_err(Unopened::Tap)?),
        Wire::Pcap(path, record) => {
            let capture = Capture::open(&path, record.as_deref());
            Box::new(capture.map_err(Unopened::Capture)?)
        }
        Wire::Loopback => Box::new(Loopback::default()),
        Wire::Pattern(seed, frames) => Box::new(Pattern {
            seed,
            frames,
            longest: net.mtu.unwrap_or(1500).saturating_add(14),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: &NetConfig) -> String {
        let refused = card(config, "n", &Context::quiet());
        let error = refused.err().expect("it is refused");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    }

    #[test]
    fn a_card_that_cannot_be_had_says_why_and_the_way_out() {
        let tap = NetConfig {
            tap: Some("pinno1".into()),
            ..NetConfig::default()
        };
        let said = refusal(&tap);
        assert!(
            said.starts_with("--net id=n: there is no interface `pinno1`"),
            "{said}"
        );
        assert!(said.contains("`ip tuntap add dev pinno1"), "{said}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcap");
        std::fs::write(&path, "this is no capture, not at all").unwrap();
        let pcap = NetConfig {
            pcap: Some(path),
            ..NetConfig::default()
        };
        let said = refusal(&pcap);
        assert!(said.contains("x.pcap: at byte 0: "), "{said}");
    }

    #[test]
    fn each_wire_makes_a_card() {
        for text in ["loopback", "pattern=7,queues=2,rate=50"] {
            let config: NetConfig = crate::config::key_values::parse(text).unwrap();
            assert!(card(&config, "n", &Context::quiet()).is_ok(), "{text}");
        }
    }
}
