//! Which bytes a disk must hold after a flush: from the log alone.
//!
//! A piece is *settled* when the device itself said so: its write ended well, a flush that was fetched afterwards ended well, and no other request
//! that changes these sectors raced with it or came later. Promises that what it returns is settled; does not promise
//! to return all that is settled, since an oracle may miss but must not blame without ground.

use std::collections::HashMap;

use pincushion_devices::trace::event::Operation;

use super::history::Timeline;
use super::request::{Index, Request};

/// Bytes of a sector, in virtio-blk's words.
const SECTOR: u64 = 512;

/// Bytes that must be in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// First sector (512 bytes).
    pub sector: u64,
    /// How many bytes, a multiple of 512.
    pub bytes: u64,
    /// xxh3-64 of what was written, 16 hex digits.
    pub hash: String,
    /// The write.
    pub write: Index,
    /// The flush that made it durable.
    pub flush: Index,
}

/// Who changed a sector last.
struct Last {
    writer: Index,
    /// Everybody before had ended when it was fetched.
    alone: bool,
    /// When all changes so far had ended.
    settled_seq: u64,
}

/// Pieces of `device`'s image that must be there after the machine lost its power.
#[must_use]
pub fn flushed_pieces(timeline: &Timeline, device: &str) -> Vec<Piece> {
    let of_device = |index: &Index| timeline[*index].id.device == device;
    let flushes: Vec<Index> = timeline
        .indices()
        .filter(of_device)
        .filter(|index| {
            let request = &timeline[*index];
            // A flush that was answered otherwise than it ended promises nothing.
            request.operation == Operation::Flush && request.succeeded() && !request.was_spoiled()
        })
        .collect();
    let mut sectors: HashMap<u64, Last> = HashMap::new();
    for index in timeline.indices().filter(of_device) {
        note_change(&mut sectors, index, &timeline[index]);
    }
    let mut pieces = Vec::new();
    for index in timeline.indices().filter(of_device) {
        let request = &timeline[index];
        let Some(executed) = request
            .executed
            .as_ref()
            .filter(|_| is_plain_write(request))
        else {
            continue;
        };
        let flush = flushes
            .iter()
            .find(|flush| timeline[**flush].fetched.seq > executed.at.seq);
        let Some(&flush) = flush else { continue };
        pieces.extend(pieces_of(index, request, flush).filter(|piece| {
            (piece.sector..piece.sector + piece.bytes / SECTOR).all(|sector| {
                sectors
                    .get(&sector)
                    .is_some_and(|last| last.writer == index && last.alone)
            })
        }));
    }
    pieces
}

fn note_change(sectors: &mut HashMap<u64, Last>, index: Index, request: &Request) {
    let changes = matches!(
        request.operation,
        Operation::Write | Operation::Discard | Operation::WriteZeroes
    );
    if !changes {
        return;
    }
    let ended = request
        .executed
        .as_ref()
        .map_or(u64::MAX, |executed| executed.at.seq);
    for sector in request.sector
        ..request
            .sector
            .saturating_add(request.bytes.div_ceil(SECTOR))
    {
        let before = sectors.get(&sector).map_or(0, |last| last.settled_seq);
        let last = Last {
            writer: index,
            alone: before < request.fetched.seq,
            settled_seq: before.max(ended),
        };
        sectors.insert(sector, last);
    }
}

/// A write that ended well, that the plan did not spoil, and of which no hash says that memory changed meanwhile: what went
/// to the disk is beyond doubt.
fn is_plain_write(request: &Request) -> bool {
    request.operation == Operation::Write
        && request.succeeded()
        && !request.was_spoiled()
        && request.changed_payload().is_none()
}

fn pieces_of(index: Index, request: &Request, flush: Index) -> impl Iterator<Item = Piece> {
    let pages = request
        .hashes
        .last()
        .map_or(&[][..], |hashed| hashed.pages.as_slice());
    let mut position = 0;
    pages.iter().filter_map(move |page| {
        let from = position;
        position += page.range.len;
        let whole = from % SECTOR == 0 && page.range.len % SECTOR == 0;
        (whole && request.hashes.len() > 1).then(|| Piece {
            sector: request.sector + from / SECTOR,
            bytes: page.range.len,
            hash: page.hash.clone(),
            write: index,
            flush,
        })
    })
}
