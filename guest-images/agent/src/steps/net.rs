//! Network interfaces and what goes over them by IP.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use pincushion_abi::step::{LinkSet, MAX_TRANSFER, Ping, TcpEcho};

use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::net;

/// Longest wait between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Finds the interface with an address.
pub fn find(stamp: &mut Stamp<'_>, mac: &str) -> StepResult {
    let root = Path::new("/sys/class/net");
    let mut seen = Vec::new();
    stamp.begin();
    let entries = fs::read_dir(root).map_err(|error| fault::io("read /sys/class/net", &error))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim() != mac {
            seen.push(format!("{name} {}", address.trim()));
            continue;
        }
        let device = fs::read_link(entry.path().join("device")).unwrap_or_default();
        let bus = device.file_name().unwrap_or_default().to_string_lossy();
        return Ok(Found::nothing().text("interface", name).text("bus", bus));
    }
    let seen = seen.join(", ");
    Err(sentence(
        "find-net",
        format!("no interface has {mac}; seen: [{seen}]"),
    ))
}

/// Sets up an interface, without DHCP.
pub fn set(stamp: &mut Stamp<'_>, wanted: &LinkSet) -> StepResult {
    let interface = wanted.interface.as_str();
    let address = wanted.address.as_deref().map(address).transpose()?;
    stamp.around(|| {
        wanted
            .mtu
            .map_or(Ok(()), |mtu| net::set_mtu(interface, mtu))?;
        wanted
            .arp
            .map_or(Ok(()), |arp| net::set_arp(interface, arp))?;
        if let Some((address, prefix)) = address {
            net::set_address(interface, address, prefix)?;
        }
        wanted.up.map_or(Ok(()), |up| net::set_up(interface, up))
    })?;
    Ok(Found::nothing())
}

fn address(text: &str) -> Result<(Ipv4Addr, u32), pincushion_abi::Fault> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some((address.parse().ok()?, prefix))
    });
    parsed.ok_or_else(|| sentence("address", format!("{text:?} is not like 10.0.0.2/24")))
}

/// ICMP echo requests, one after the other.
pub fn ping(stamp: &mut Stamp<'_>, ping: &Ping) -> StepResult {
    let Ping {
        to,
        count,
        len,
        limit_ms,
    } = ping;
    let to: Ipv4Addr = to
        .parse()
        .map_err(|_| sentence("ping", format!("{to:?} is no IPv4 address")))?;
    let len = usize::try_from((*len).min(65_000)).unwrap_or(0);
    let socket = net::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
    let mut received = 0;
    stamp.begin();
    for sequence in 0..*count {
        let request = echo_request(sequence, len);
        net::send_to(&socket, &request, to)?;
        let limit = Instant::now() + Duration::from_millis(*limit_ms);
        let answered = wait_for(&socket, limit, |packet| is_reply(packet, to, &request))?;
        received += u64::from(answered);
    }
    let found = Found::nothing();
    Ok(found
        .number("sent", (*count).into())
        .number("received", received))
}

/// Type 8, the sequence number, a pattern; and the checksum over all of it.
fn echo_request(sequence: u32, len: usize) -> Vec<u8> {
    let [_, _, high, low] = sequence.to_be_bytes();
    let mut packet = vec![8, 0, 0, 0, 0x50, 0x43, high, low];
    packet.extend((0..len).map(|at| at.to_le_bytes()[0]));
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => u32::from(pair[0]) << 8,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Whether an IP packet answers a request: type 0, and all after the checksum the same.
fn is_reply(packet: &[u8], from: Ipv4Addr, request: &[u8]) -> bool {
    let header = packet
        .first()
        .map_or(0, |first| usize::from(first & 15) * 4);
    packet.get(12..16) == Some(from.octets().as_slice())
        && packet.get(header) == Some(&0)
        && packet.get(header + 4..) == request.get(4..)
}

/// Reads packets until one is `wanted`. `false`: the limit came first.
pub(super) fn wait_for(
    socket: &OwnedFd,
    limit: Instant,
    mut wanted: impl FnMut(&[u8]) -> bool,
) -> Result<bool, pincushion_abi::Fault> {
    let mut packet = vec![0; 66_000];
    loop {
        while let Some(len) = net::receive(socket, &mut packet)? {
            if wanted(&packet[..len]) {
                return Ok(true);
            }
        }
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        net::wait_readable(socket.as_raw_fd(), left.min(LOOK))?;
    }
}

/// Sends a pattern over TCP, closes that direction, and compares what comes back to the end.
pub fn tcp_echo(stamp: &mut Stamp<'_>, echo: &TcpEcho) -> StepResult {
    let to = echo.to.as_str();
    let to: SocketAddr = to
        .parse()
        .map_err(|_| sentence("tcp-echo", format!("{to:?} is not like 10.0.0.1:7")))?;
    let len = usize::try_from(echo.len.min(MAX_TRANSFER)).unwrap_or(0);
    let mut bytes = vec![0; len];
    echo.pattern.fill(&mut bytes);
    let limit = Duration::from_millis(echo.limit_ms.max(1));
    let failed = |call: &'static str| move |error| fault::io(call, &error);
    let mut back = Vec::with_capacity(len);
    stamp.around(|| {
        let mut stream = TcpStream::connect_timeout(&to, limit).map_err(failed("connect"))?;
        let timeouts = [
            stream.set_read_timeout(Some(limit)),
            stream.set_write_timeout(Some(limit)),
        ];
        timeouts
            .into_iter()
            .collect::<Result<(), _>>()
            .map_err(failed("setsockopt"))?;
        stream.write_all(&bytes).map_err(failed("send"))?;
        stream
            .shutdown(Shutdown::Write)
            .map_err(failed("shutdown"))?;
        stream.read_to_end(&mut back).map_err(failed("recv"))
    })?;
    let whole = back.len() == len;
    let found = Found::nothing()
        .count("sent", len)
        .count("received", back.len());
    Ok(found.flag("whole", whole).compared(&back, echo.pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_told_from_the_request_and_from_others() {
        let request = echo_request(3, 10);
        assert_eq!(checksum(&request), 0, "a packet with its checksum sums up");
        let from = Ipv4Addr::new(10, 0, 0, 1);
        let mut packet = vec![0x45; 20];
        packet[12..16].copy_from_slice(&from.octets());
        packet.extend(&request);
        assert!(
            !is_reply(&packet, from, &request),
            "it is the request itself"
        );
        packet[20] = 0;
        assert!(is_reply(&packet, from, &request));
        assert!(!is_reply(&packet, Ipv4Addr::new(10, 0, 0, 2), &request));
        assert!(!is_reply(&packet, from, &echo_request(4, 10)));
        assert!(!is_reply(&[], from, &request));
    }

    #[test]
    fn an_address_has_a_prefix() {
        assert_eq!(
            address("10.0.0.2/24").unwrap(),
            (Ipv4Addr::new(10, 0, 0, 2), 24)
        );
        for text in ["10.0.0.2", "10.0.0.2/33", "x/24", ""] {
            assert!(
                address(text).unwrap_err().name.contains("10.0.0.2/24"),
                "{text}"
            );
        }
    }

    #[test]
    fn tcp_brings_back_what_it_was_given() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap().to_string();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let bench = crate::steps::testing::Bench::new();
        let step =
            serde_json::json!({"op": "tcp-echo", "to": to, "len": 100_000, "pattern": {"seed": 7}});
        let found = bench.ok(step);
        assert_eq!(found["equal"], pincushion_abi::Value::Bool(true));
        assert_eq!(found["received"], pincushion_abi::Value::Number(100_000));
        peer.join().unwrap();
    }
}
